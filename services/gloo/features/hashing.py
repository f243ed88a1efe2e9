"""Hashing: what of a request decides which instance of the upstream gets it."""

from __future__ import annotations

from typing import Any

from protos import gloo
from protos.envoy import route
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, Patch, Scope


def hash_requests(config: gloo.RouteActionHashConfig, scope: Scope) -> Patch:
    found = [
        route.RouteActionHashPolicy(
            **translate(policy, f"hashPolicies[{i}]", scope), terminal=policy.terminal
        )
        for i, policy in enumerate(config.hash_policies)
    ]
    return Patch(action={"hash_policy": found}) if found else Patch()


def translate(policy: gloo.HashPolicy, where: str, scope: Scope) -> dict[str, Any]:
    if policy.header is not None:
        if problem := checks.header_name(policy.header, pseudo=True):
            scope.error(f"{where}.header", problem)
        return {"header": route.RouteActionHashPolicyHeader(header_name=policy.header)}
    if policy.cookie is not None:
        return {"cookie": cookie(policy.cookie, f"{where}.cookie", scope)}
    if not policy.source_ip:
        scope.error(where, "no property of requests; one of header, cookie, sourceIp: true")
    return {"connection_properties": route.RouteActionHashPolicyConnectionProperties(source_ip=True)}


def cookie(given: gloo.Cookie, where: str, scope: Scope) -> route.RouteActionHashPolicyCookie:
    if not checks.TOKEN.fullmatch(given.name):
        scope.error(
            f"{where}.name", f"{checks.shown(given.name)} is no cookie name" if given.name else "required"
        )
    if given.ttl is not None and (problem := checks.duration(given.ttl)):
        scope.error(f"{where}.ttl", problem)
    if problem := checks.text_value(given.path):
        scope.error(f"{where}.path", problem)
    elif ";" in given.path:
        scope.error(f"{where}.path", "must not contain ;")
    elif given.path and given.ttl is None:
        scope.warn(f"{where}.path", "has no effect without ttl, for then no cookie is set")
    return route.RouteActionHashPolicyCookie(name=given.name, ttl=given.ttl, path=given.path)


FEATURES = (
    Feature(
        name="lbHash",
        reads={"RouteActionHashConfig": ALL, "HashPolicy": ALL, "Cookie": ALL},
        on_route=hash_requests,
    ),
)
