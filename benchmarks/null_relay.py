"""The null gateway: copies a change of one Consul key to another; the extra hop between two processes."""

from __future__ import annotations

import argparse

import aiohttp
import uvloop


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--consul", required=True)
    parser.add_argument("--from-key", required=True)
    parser.add_argument("--to-key", required=True)
    options = parser.parse_args()
    index = 0
    async with aiohttp.ClientSession() as session:
        while True:
            url = f"{options.consul}/v1/kv/{options.from_key}?wait=60s&index={index}"
            async with session.get(url) as answer:
                await answer.read()
                seen = int(answer.headers["X-Consul-Index"])
            if index and seen != index:
                async with session.put(f"{options.consul}/v1/kv/{options.to_key}", data=str(seen)) as done:
                    await done.read()
            index = seen


if __name__ == "__main__":
    uvloop.run(main())
