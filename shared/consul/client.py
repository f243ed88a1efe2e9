"""The Consul client: py-consul's ``consul.aio`` over an HTTP layer of our own."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import consul.aio
import consul.callback
import orjson

from shared.consul.config import ConsulConfig
from shared.consul.http import WHOLE_READ, Answer, Consistency, Http, Params, blocking_deadline, parse
from shared.consul.kv import KV
from shared.errors import ConsulUnavailable

__all__ = ["Consul", "ConsulConfig"]


class Consul(consul.aio.Consul):  # type: ignore[misc]
    """A client of one Consul. ``kv`` is ours; sessions, agent, ACLs and the rest are py-consul's own."""

    http: Http

    def __init__(self, config: ConsulConfig | None = None) -> None:
        # py-consul decodes every JSON answer through this name.
        consul.callback.json = SimpleNamespace(loads=orjson.loads, JSONDecodeError=orjson.JSONDecodeError)
        self.configuration = config or ConsulConfig()
        super().__init__(
            host=self.configuration.host,
            port=self.configuration.port,
            scheme=self.configuration.scheme,
            verify=False,
        )
        self.token = None  # py-consul prefers the environment's token; ours goes with every request anyway
        self.kv = KV(self)

    def http_connect(
        self, host: str, port: int, scheme: str, verify: bool | str = True, cert: Any = None
    ) -> Http:
        return Http(self.configuration)

    async def read(
        self,
        path: str,
        params: Params = (),
        *,
        index: int = 0,
        wait: float | None = None,
        consistency: Consistency = "default",
        watching: bool = False,
        operation: str = "",
    ) -> Answer:
        """A GET; with an *index* it parks until that has passed, at most *wait* seconds.

        *watching* puts an unparked read on the watches' connections too, so that big first reads and
        resyncs never queue before a write.
        """
        query: list[tuple[str, str | int]] = list(params)
        deadline = WHOLE_READ
        if consistency != "default":
            query.append((consistency, ""))
        if index:
            wait = self.configuration.wait if wait is None else wait
            query += [("index", index), ("wait", f"{max(1, round(wait * 1000))}ms")]
            deadline = blocking_deadline(wait)
        operation = operation or f"GET {path}"
        answer = await self.http.request(
            "GET",
            path,
            params=query,
            deadline=deadline,
            pool="watch" if index or watching else "rpc",
            operation=operation,
        )
        if answer.headers.get("X-Consul-KnownLeader") == "false":
            raise ConsulUnavailable(operation, "no cluster leader")
        return answer

    async def get_json(self, path: str, params: Params = (), *, consistency: Consistency = "default") -> Any:
        """The parsed body of a GET; None when there is nothing at *path*."""
        return parse(await self.read(path, params, consistency=consistency), f"GET {path}")

    async def datacenters(self) -> Sequence[str]:
        return [str(name) for name in await self.get_json("/v1/catalog/datacenters") or ()]
