"""A small rate limit service, in Envoy's gRPC protocol: ``python limits.py --port 8092 --per-hour 2``.

It counts each descriptor by itself, in memory. For more than a try there are services that keep their counts
in Redis and know a limit for each descriptor, such as https://github.com/envoyproxy/ratelimit.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter

from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream
from grpclib.utils import graceful_exit

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
HOUR = 3600


class Limits:
    def __init__(self, per_hour: int) -> None:
        self.per_hour = per_hour
        self.counts: Counter[tuple[object, ...]] = Counter()
        self.begun = time.monotonic()

    def __mapping__(self) -> dict[str, Handler]:
        return {METHOD: Handler(self.answer, Cardinality.UNARY_UNARY, RateLimitRequest, RateLimitResponse)}

    async def answer(self, stream: Stream[RateLimitRequest, RateLimitResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        if time.monotonic() - self.begun > HOUR:
            self.begun = time.monotonic()
            self.counts.clear()
        answer = RateLimitResponse(overall_code=RateLimitResponse.OK)
        for descriptor in request.descriptors:
            key = (request.domain, *((entry.key, entry.value) for entry in descriptor.entries))
            self.counts[key] += 1
            over = self.counts[key] > self.per_hour
            status = answer.statuses.add(code=RateLimitResponse.OVER_LIMIT if over else RateLimitResponse.OK)
            status.current_limit.requests_per_unit = self.per_hour
            status.current_limit.unit = RateLimitResponse.RateLimit.HOUR
            status.limit_remaining = max(0, self.per_hour - self.counts[key])
            if over:
                answer.overall_code = RateLimitResponse.OVER_LIMIT
        await stream.send_message(answer)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8092)
    parser.add_argument("--per-hour", type=int, default=2)
    options = parser.parse_args()
    server = Server([Limits(options.per_hour)])
    with graceful_exit([server]):
        await server.start("127.0.0.1", options.port)
        await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
