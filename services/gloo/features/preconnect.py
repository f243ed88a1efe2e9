"""Preconnecting: connections to an upstream that are made before a request needs them."""

from __future__ import annotations

from protos import gloo
from protos.envoy import cluster
from services.gloo.plugin import ALL, Feature, Patch, Scope


def preconnect(policy: gloo.PreconnectPolicy, scope: Scope) -> Patch:
    for name, ratio in (
        ("perUpstreamPreconnectRatio", policy.per_upstream_preconnect_ratio),
        ("predictivePreconnectRatio", policy.predictive_preconnect_ratio),
    ):
        if ratio is not None and not 1 <= ratio <= 3:
            scope.error(name, f"{ratio:g} is out of range; 1.0 to 3.0")
    out = cluster.ClusterPreconnectPolicy(
        per_upstream_preconnect_ratio=policy.per_upstream_preconnect_ratio,
        predictive_preconnect_ratio=policy.predictive_preconnect_ratio,
    )
    return Patch(fields={"preconnect_policy": out})


FEATURES = (Feature(name="preconnectPolicy", reads={"PreconnectPolicy": ALL}, on_upstream=preconnect),)
