"""Network filters: what connections pass before they are taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import betterproto2

from protos import gloo
from protos._generated.google import protobuf
from protos.envoy import listener
from services.gloo.features.custom_filters import placed
from services.gloo.plugin import HttpFilter, Stage
from shared.codec.encode import pack


def network_filters(
    limits: Mapping[str, betterproto2.Message], custom: Iterable[gloo.CustomEnvoyFilter]
) -> list[listener.Filter]:
    """Those of options, by name, and the user's own among them."""
    ours = [HttpFilter(name=name, stage=Stage.RATE_LIMIT, config=config) for name, config in limits.items()]
    return [
        listener.Filter(name=each.name, typed_config=packed(each.config))
        for each in sorted((*ours, *placed(custom)), key=lambda each: each.place)
    ]


def packed(config: betterproto2.Message) -> protobuf.Any:
    return config if isinstance(config, protobuf.Any) else pack(config)
