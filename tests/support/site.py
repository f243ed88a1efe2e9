"""A domain of one's own on a shared stack, so that stories do not disturb each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.backends import Echo
from tests.support.stack import Answer, Stack, direct, virtual_service
from tests.support.waiting import eventually


class Site:
    """A VirtualService *name* for one domain; ``serve`` returns when Envoy has what was written."""

    def __init__(self, stack: Stack, name: str, domain: str = "") -> None:
        self.stack = stack
        self.name = name
        self.domain = domain or f"{name}.example.com"
        self._written = 0

    async def serve(self, *routes: Mapping[str, Any], **fields: Any) -> None:
        """Replace all routes; *fields* are others of the virtual host."""
        document = virtual_service(*self._marked(routes), domains=[self.domain])
        document["virtualHost"] |= fields
        await self.stack.put("VirtualService", self.name, document)
        await self.live()

    async def live(self) -> None:
        """Wait until Envoy serves what was written last."""
        await self.stack.answers("/.live", host=self.domain, saying=f"version {self._written}.")

    async def get(self, path: str, **request: Any) -> Answer:
        return await self.stack.get(path, **{"host": self.domain, **request})

    async def echo(self, path: str, **request: Any) -> Echo:
        """What the backend saw of a request."""
        return Echo.of(await self.get(path, **request))

    async def reaches(self, path: str, backend: str, within: float = 10.0) -> Answer:
        """Ask until *backend* answers."""
        return await eventually(
            lambda: self.get(path),
            until=lambda answer: answer.headers.get("x-backend") == backend,
            within=within,
        )

    async def says(self, state: str, saying: str = "") -> None:
        """Wait for the VirtualService's status."""
        await self.stack.status_is(state, "VirtualService", self.name, saying=saying)

    def _marked(self, routes: tuple[Mapping[str, Any], ...]) -> list[Mapping[str, Any]]:
        """A route before all others tells which version is served; no other request matches it."""
        self._written += 1
        marker = {**direct("/", f"version {self._written}."), "matchers": [{"exact": "/.live"}]}
        return [marker, *routes]
