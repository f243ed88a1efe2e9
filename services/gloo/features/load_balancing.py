"""Load balancing: which instance of an upstream gets a request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from protos import gloo
from protos.envoy import cluster, core, envoy_type
from services.gloo import checks
from services.gloo.features.dns import looked_up
from services.gloo.plugin import ALL, Feature, Patch, Scope
from shared.report import join

LARGEST_RING, LEAST_RING = 8 * 2**20, 1024  # Envoy's limit, and its default
LbPolicy = cluster.ClusterLbPolicy
Fields = dict[str, Any]


def balance(upstream: gloo.Upstream, outer: Scope) -> Patch:
    config, scope = upstream.load_balancer_config, replace(outer, path=join(outer.path, "loadBalancerConfig"))
    if config is None:
        return Patch()
    fields = policy(config, scope)
    common = common_config(config, scope)
    if config.locality_weighted_lb_config is not None and upstream.consul is not None:
        common.locality_weighted_lb_config = cluster.ClusterCommonLbConfigLocalityWeightedLbConfig()
    if common != cluster.ClusterCommonLbConfig():
        fields["common_lb_config"] = common
    if config.locality_weighted_lb_config is not None and upstream.consul is None:
        scope.warn("localityWeightedLbConfig", "has no effect: only instances of consul are in datacenters")
    if config.use_hostname_for_hashing and not looked_up(upstream):
        scope.error("useHostnameForHashing", "only static hosts that have names can be hashed by them")
    return Patch(fields=fields)


def policy(config: gloo.LoadBalancerConfig, scope: Scope) -> Fields:
    if config.round_robin is not None:
        slow = slow_start(config.round_robin.slow_start_config, "roundRobin", scope)
        return {"round_robin_lb_config": cluster.ClusterRoundRobinLbConfig(slow_start_config=slow)}
    if config.least_request is not None:
        return {"lb_policy": LbPolicy.LEAST_REQUEST, **least_request(config.least_request, scope)}
    if config.random is not None:
        return {"lb_policy": LbPolicy.RANDOM}
    if config.ring_hash is not None:
        return {"lb_policy": LbPolicy.RING_HASH, **ring_hash(config.ring_hash, scope)}
    if config.maglev is not None:
        return {"lb_policy": LbPolicy.MAGLEV}
    return {}


def least_request(config: gloo.LoadBalancerConfigLeastRequest, scope: Scope) -> Fields:
    if config.choice_count == 1:
        scope.error("leastRequest.choiceCount", "1 is no choice; 2 or more")
    slow = slow_start(config.slow_start_config, "leastRequest", scope)
    choice = config.choice_count or None
    return {
        "least_request_lb_config": cluster.ClusterLeastRequestLbConfig(
            choice_count=choice, slow_start_config=slow
        )
    }


def ring_hash(config: gloo.LoadBalancerConfigRingHash, scope: Scope) -> Fields:
    size = config.ring_hash_config
    if size is None:
        return {}
    at = "ringHash.ringHashConfig"
    for name, entries in (
        ("minimumRingSize", size.minimum_ring_size),
        ("maximumRingSize", size.maximum_ring_size),
    ):
        if entries > LARGEST_RING:
            scope.error(f"{at}.{name}", f"{entries} is too large; {LARGEST_RING} at most")
    least, most = size.minimum_ring_size or LEAST_RING, size.maximum_ring_size or LARGEST_RING
    if least > most:
        default = "" if size.minimum_ring_size else ", which is the default"
        scope.error(f"{at}.maximumRingSize", f"{most} is less than minimumRingSize {least}{default}")
    return {
        "ring_hash_lb_config": cluster.ClusterRingHashLbConfig(
            minimum_ring_size=size.minimum_ring_size or None, maximum_ring_size=size.maximum_ring_size or None
        )
    }


def slow_start(
    config: gloo.LoadBalancerConfigSlowStartConfig | None, within: str, scope: Scope
) -> cluster.ClusterSlowStartConfig | None:
    if config is None:
        return None
    at = f"{within}.slowStartConfig"
    if config.slow_start_window is None:
        scope.error(f"{at}.slowStartWindow", "required")
    elif problem := checks.duration(config.slow_start_window, positive=True):
        scope.error(f"{at}.slowStartWindow", problem)
    out = cluster.ClusterSlowStartConfig(slow_start_window=config.slow_start_window)
    if config.aggression is not None:
        if not config.aggression > 0:
            scope.error(f"{at}.aggression", "must be more than 0")
        out.aggression = core.RuntimeDouble(
            default_value=config.aggression, runtime_key=f"gloo.{within}.aggression"
        )
    if config.min_weight_percent is not None:
        out.min_weight_percent = percent(config.min_weight_percent, f"{at}.minWeightPercent", scope)
    return out


def common_config(config: gloo.LoadBalancerConfig, scope: Scope) -> cluster.ClusterCommonLbConfig:
    out = cluster.ClusterCommonLbConfig(
        update_merge_window=config.update_merge_window,
        close_connections_on_host_set_change=config.close_connections_on_host_set_change,
    )
    if config.healthy_panic_threshold is not None:
        out.healthy_panic_threshold = percent(config.healthy_panic_threshold, "healthyPanicThreshold", scope)
    if config.update_merge_window is not None and (problem := checks.duration(config.update_merge_window)):
        scope.error("updateMergeWindow", problem)
    if config.use_hostname_for_hashing is not None:
        if config.use_hostname_for_hashing and config.ring_hash is None and config.maglev is None:
            scope.warn("useHostnameForHashing", "has no effect without ringHash or maglev")
        out.consistent_hashing_lb_config = cluster.ClusterCommonLbConfigConsistentHashingLbConfig(
            use_hostname_for_hashing=config.use_hostname_for_hashing
        )
    return out


def percent(value: float, where: str, scope: Scope) -> envoy_type.Percent:
    if not 0 <= value <= 100:
        scope.error(where, f"{value:g} is no percentage; 0 to 100")
    return envoy_type.Percent(value=value)


FEATURES = (
    Feature(
        name="loadBalancerConfig",
        beside=("static",),
        reads={
            "LoadBalancerConfig": (
                *("roundRobin", "leastRequest", "random", "ringHash", "maglev", "useHostnameForHashing"),
                *("healthyPanicThreshold", "updateMergeWindow", "closeConnectionsOnHostSetChange"),
                "localityWeightedLbConfig",
            ),
            "LoadBalancerConfig.RoundRobin": ALL,
            "LoadBalancerConfig.LeastRequest": ALL,
            "LoadBalancerConfig.Random": ALL,
            "LoadBalancerConfig.RingHash": ALL,
            "LoadBalancerConfig.RingHashConfig": ALL,
            "LoadBalancerConfig.Maglev": ALL,
            "LoadBalancerConfig.SlowStartConfig": ALL,
        },
        on_upstream=balance,
    ),
)
