"""Statistics of groups of requests, which Envoy counts apart as virtual clusters."""

from __future__ import annotations

import re

from protos import gloo
from protos.envoy import matcher, route
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, Patch, Scope
from services.gloo.values import regex_matcher

UNFIT = re.compile(r"[^0-9A-Za-z_-]")


def count_apart(stats: gloo.Stats, scope: Scope) -> Patch:
    names: dict[str, int] = {}
    found = []
    for i, group in enumerate(stats.virtual_clusters):
        at = f"virtualClusters[{i}]"
        name = UNFIT.sub("_", group.name)
        if not name:
            scope.error(f"{at}.name", "required")
        elif names.setdefault(name, i) != i:
            scope.warn(f"{at}.name", f"counted together with virtualClusters[{names[name]}], as {name}")
        found.append(route.VirtualCluster(name=name, headers=headers(group, at, scope)))
    return Patch(fields={"virtual_clusters": found}) if found else Patch()


def headers(group: gloo.VirtualCluster, at: str, scope: Scope) -> list[route.HeaderMatcher]:
    """To Envoy a header, the path has its query with it, which the user's pattern knows nothing of."""
    errors = len(scope.report.errors)
    pattern = regex_matcher(group.pattern, f"{at}.pattern", scope)
    if len(scope.report.errors) == errors:
        pattern = regex_matcher(rf"(?:{group.pattern})(?:\?.*)?", f"{at}.pattern", scope)
    path = route.HeaderMatcher(name=":path", string_match=matcher.StringMatcher(safe_regex=pattern))
    if not group.method:
        return [path]
    if not checks.TOKEN.fullmatch(group.method):
        scope.error(f"{at}.method", f"{checks.shown(group.method)} is no method")
    method = matcher.StringMatcher(exact=group.method)
    return [path, route.HeaderMatcher(name=":method", string_match=method)]


FEATURES = (Feature(name="stats", reads={"Stats": ALL, "VirtualCluster": ALL}, on_virtual_host=count_apart),)
