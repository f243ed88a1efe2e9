"""An instance in one line of text, so that a gloo that starts can go on with what Consul has lost."""

from __future__ import annotations

from typing import NamedTuple, Self

import orjson

from services.gloo.endpoints.rows import Health, Instance, InstanceKey


class Note(NamedTuple):
    """An instance as it was when Consul still had it; *address* is that of its node."""

    key: InstanceKey
    instance: Instance
    address: str
    health: Health

    @property
    def text(self) -> str:
        service = self.instance
        return orjson.dumps(
            [
                *(service.service, self.key.id, self.key.node, service.address, service.port),
                *(service.tags, service.weights, self.address, self.health),
            ]
        ).decode()

    @classmethod
    def read(cls, text: str) -> Self:
        service, id, node, address, port, tags, weights, at, health = orjson.loads(text)
        instance = Instance(service, address, port, tuple(tags), (weights[0], weights[1]), version=0)
        return cls(InstanceKey(node, id), instance, at, Health(health))
