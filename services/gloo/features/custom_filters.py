"""Filters in Envoy's own words, for what has no option here; what they do only Envoy knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from protos import gloo
from protos._generated.google import protobuf
from services.gloo import checks
from services.gloo.plugin import HttpFilter, Scope, Stage
from shared.codec.wellknown import TYPED_STRUCTS, unpack_typed_struct

WEIGHTS = {  # our own filters have -1 to 1
    gloo.FilterStagePredicate.Before: -2,
    gloo.FilterStagePredicate.During: 0,
    gloo.FilterStagePredicate.After: 2,
}
LAST = ("Router", "UpstreamCodec", "HttpConnectionManager", "TcpProxy")


def check_custom(given: Iterable[gloo.CustomEnvoyFilter], ours: Collection[str], scope: Scope) -> None:
    """*ours* are the names that are taken, *scope* is the list's."""
    names = set(ours)
    for i, each in enumerate(given):
        at = f"[{i}]"
        if not each.name:
            scope.error(f"{at}.name", "required")
        elif problem := checks.text_value(each.name):
            scope.error(f"{at}.name", problem)
        elif each.name in names:
            scope.error(f"{at}.name", f"another filter is named {each.name}, too")
        names.add(each.name)
        if each.config is None:
            scope.error(f"{at}.config", "required")
        elif (kind := type_of(each.config).rpartition(".")[2]) in LAST:
            scope.error(f"{at}.config", f"{kind} is there already, as the last filter of all")


def placed(given: Iterable[gloo.CustomEnvoyFilter]) -> list[HttpFilter]:
    """The filters with their places; those of networks have the same stages."""
    found = []
    for each in given:
        place = each.filter_stage or gloo.FilterStage()
        found.append(
            HttpFilter(
                name=each.name,
                stage=Stage(place.stage),
                weight=WEIGHTS[place.predicate],
                config=each.config or protobuf.Any(),
            )
        )
    return found


def type_of(config: protobuf.Any) -> str:
    """The type of a filter's configuration as the user wrote it."""
    return unpack_typed_struct(config.value)[0] if config.type_url in TYPED_STRUCTS else config.type_url
