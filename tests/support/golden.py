"""Golden cases of gloo's translation: a small world of objects in, Envoy's resources and the reports out.

A case is a mapping with any of ``proxy``, ``upstreams``, ``upstreamGroups``, ``artifacts``, ``settings`` and
``endpoints`` (by cluster). ``routes`` or ``virtualHost`` alone stand for a Proxy with one listener and one
virtual host ``gloo-system.default``; its listener, with ``listenerOptions``, is then left out of the result.
HTTP filters that stand off in all listeners alike are in the result only with ``everyFilter: true``.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from protos import gloo
from protos.envoy import cluster, core, endpoint, listener, route, tls
from services.gloo.endpoints.table import Endpoint
from services.gloo.features import SCRIPTS
from services.gloo.features.aws_ec2 import FLEET, Fleet
from services.gloo.plugin import Policy
from services.gloo.resources import Resource
from services.gloo.sanitize import fallback_resources
from services.gloo.translator.cluster import translate_selection, translate_upstream
from services.gloo.translator.consul import subset_keys, upstream_selection
from services.gloo.translator.destination import translate_group
from services.gloo.translator.endpoints import translate_endpoints
from services.gloo.translator.listener import http_filters
from services.gloo.translator.names import FALLBACK_CLUSTER, cluster_name
from services.gloo.translator.patches import Joined
from services.gloo.translator.proxy import translate_proxy
from services.gloo.translator.secret import TRUSTED, TRUSTED_FILE, Known, secret_of_files, signing_by_name
from shared.codec.decode import decode
from shared.codec.documents import to_document
from shared.ref import Ref, Source
from shared.report import Report
from tests.support.certificates import any_pair

MESSAGES: dict[str, Any] = {
    "listeners": listener.Listener,
    "routes": route.RouteConfiguration,
    "clusters": cluster.Cluster,
    "endpoints": endpoint.ClusterLoadAssignment,
}
World = dict[str, list[Resource]]

PROXY = Source("Proxy", Ref("gloo-system", "gateway-proxy"))
SOURCES = {"sources": [{"kind": "*v1.VirtualService", "name": "default", "namespace": "gloo-system"}]}


def translate_case(case: Mapping[str, Any]) -> dict[str, Any]:
    """The case's result as one document, every Any spelled out."""
    resources, reports = translate_world(case)
    parts = ("routes", "clusters", "endpoints") if "proxy" not in case else tuple(MESSAGES)
    result: dict[str, Any] = {
        part: {each.name: to_document(MESSAGES[part].parse(each.body)) for each in resources[part]}
        for part in parts
        if resources[part]
    }
    for each in result.get("listeners", {}).values():
        if not case.get("everyFilter"):
            leave_out_waiting_filters(each)
        leave_out_code(each)
    for each in result.get("clusters", {}).values():
        leave_out_code(each)
    result["reports"] = {
        str(source): {
            "errors": [str(e) for e in report.errors],
            "warnings": [str(w) for w in report.warnings],
        }
        for source, report in reports.items()
        if not report.clean
    }
    return result


@cache
def waiting_everywhere() -> tuple[dict[str, Any], ...]:
    """HTTP filters that are off until a route switches them on, as they stand in all listeners alike."""
    return tuple(to_document(each) for each in http_filters(Joined()))


def leave_out_waiting_filters(given: dict[str, Any]) -> None:
    for chain in given.get("filterChains", ()):
        for each in chain["filters"]:
            manager = each["typedConfig"]
            if "httpFilters" in manager:
                everywhere = waiting_everywhere()
                manager["httpFilters"] = [one for one in manager["httpFilters"] if one not in everywhere]
                manager["httpFilters"][-1]["typedConfig"].pop("upstreamHttpFilters", None)


def leave_out_code(given: Any) -> None:
    """The code of Lua filters is the same everywhere; its first line tells which it is."""
    if isinstance(given, dict) and "defaultSourceCode" in given:
        code = given["defaultSourceCode"]["inlineString"]
        given["defaultSourceCode"] = {"inlineString": f"{code.splitlines()[0]} …"}
    for each in given.values() if isinstance(given, dict) else given if isinstance(given, list) else ():
        leave_out_code(each)


def translate_world(
    case: Mapping[str, Any],
) -> tuple[World, dict[Source, Report]]:
    reports: dict[Source, Report] = {}
    policy = Policy.of(_decode(gloo.Settings, case.get("settings", {})))
    upstreams = {_ref(each): each for each in _all(gloo.Upstream, case.get("upstreams", ()))}
    groups = {_ref(each): each for each in _all(gloo.UpstreamGroup, case.get("upstreamGroups", ()))}
    secrets = {Ref(*name.split(".")): Known(**known) for name, known in case.get("secrets", {}).items()}
    objects: dict[str, Mapping[Ref, object]] = {
        "Upstream": upstreams,
        "UpstreamGroup": groups,
        "Secret": secrets,
        FLEET: {
            Ref(*name.split(".")): Fleet(**{**known, "addresses": tuple(known.get("addresses", ()))})
            for name, known in case.get("fleets", {}).items()
        },
        "Artifact": {_ref(each): each for each in _all(gloo.Artifact, case.get("artifacts", ()))},
    }

    def read(kind: str, ref: Ref) -> object | None:
        return objects[kind].get(ref)

    resources: dict[str, list[Resource]] = {part: [] for part in MESSAGES}
    for ref, upstream in upstreams.items():
        made, reports[Source("Upstream", ref)] = translate_upstream(upstream, policy, read)
        if made is not None:
            resources["clusters"] += filter(None, [made.cluster, made.proxy])
            resources["listeners"] += filter(None, [made.listener])
    for ref, group in groups.items():
        reports[Source("UpstreamGroup", ref)] = translate_group(group, read, policy)
    if (document := _proxy(case)) is not None:
        done = translate_proxy(_decode(gloo.Proxy, document), PROXY, read, policy)
        resources["listeners"] += done.listeners
        resources["clusters"] += done.clusters
        resources["routes"] += done.routes
        reports.update(done.reports)
        resources["clusters"] += [translate_selection(each, policy) for each in sorted(done.selections)]
        if any(FALLBACK_CLUSTER in host.clusters for host in done.hosts):
            for kind, made in zip(
                ("clusters", "listeners", "routes"), fallback_resources(policy), strict=True
            ):
                resources[kind].append(made)
    for ref, upstream in upstreams.items():
        if upstream.consul is not None:
            name, selection = cluster_name(ref), upstream_selection(upstream.consul)
            members = map(_endpoint, case.get("endpoints", {}).get(name, ()))
            serving = [each for each in members if selection.admits(each)]
            resources["endpoints"].append(translate_endpoints(name, serving, subset_keys(upstream)))
    return resources, reports


def _proxy(case: Mapping[str, Any]) -> Any:
    if "proxy" in case:
        return case["proxy"]
    if "routes" not in case and "virtualHost" not in case:
        return None
    host = {
        "name": "gloo-system.default",
        "domains": ["*"],
        "metadata": SOURCES,
        **case.get("virtualHost", {}),
    }
    host.setdefault("routes", case.get("routes", []))
    listening = {"name": "listener-::-8080", "bindAddress": "::", "bindPort": 8080}
    http = {"virtualHosts": [host], "options": case.get("listenerOptions", {})}
    return {"listeners": [{**listening, "httpListener": http}]}


def _all(kind: type[Any], documents: Sequence[object]) -> list[Any]:
    return [_decode(kind, document) for document in documents]


def _decode(kind: type[Any], document: object) -> Any:
    report = Report()
    message = decode(kind, document, report)
    assert message is not None, [str(problem) for problem in report.errors]
    return message


def _endpoint(document: Mapping[str, Any]) -> Endpoint:
    return Endpoint(**{"node": "n", "instance_id": str(document), "datacenter": "dc1", **document})


def _ref(message: Any) -> Ref:
    metadata = message.metadata or gloo.Metadata()
    return Ref(metadata.namespace, metadata.name)


def static_resources(worlds: Mapping[str, World], *, port: int = 0) -> dict[str, Any]:
    """Worlds side by side as Envoy's static resources, with names and ports of their own.

    Nothing is bound, unless *port* says where the listeners are to be, one after the other. Secrets are
    what stands in their files, or any certificate.
    """
    ports = count(port or 1024)
    listeners, clusters = [], []
    for name, world in worlds.items():
        documents = {
            part: {each.name: to_document(MESSAGES[part].parse(each.body)) for each in members}
            for part, members in world.items()
        }
        for each in documents["listeners"].values():
            place_routes(each, documents["routes"])
            place_filters(each)
            found = collectors(each, name, documents["clusters"])
            clusters += [cluster for cluster in found if cluster not in clusters]
            if socket := each["address"].get("socketAddress"):
                socket["portValue"] = next(ports)
            elif pipe := each["address"].get("pipe"):
                pipe["path"] += name
            listeners.append({**each, "name": f"{name}{each['name']}"})
            if "udpListenerConfig" not in each:  # they always bind, but not when only validated
                listeners[-1]["bindToPort"] = bool(port)
        for each in documents["clusters"].values():
            if each.get("type") == "EDS":
                del each["edsClusterConfig"]
                each |= {"type": "STATIC", "loadAssignment": documents["endpoints"].get(each["name"], {})}
            place_filters(each)
            own = f"{name}{each['name']}"
            if "loadAssignment" in each:
                each["loadAssignment"]["clusterName"] = own
            clusters.append({**each, "name": own})
    found = {"listeners": listeners, "clusters": clusters}
    return {**found, "secrets": [static_secret(name) for name in sorted(take_secrets(found))]}


def place_filters(part: Any) -> None:
    """Put the filters that would come by name where they are named: scripts, and signatures with any key."""
    if isinstance(part, list):
        for each in part:
            place_filters(each)
    if not isinstance(part, dict):
        return
    if part.pop("configDiscovery", None):
        name, key = part["name"], gloo.AwsSecret(access_key="a", secret_key="s")
        made = SCRIPTS[name].used if name in SCRIPTS else signing_by_name(name, key)
        part["typedConfig"] = to_document(core.TypedExtensionConfig.parse(made.body))["typedConfig"]
    for each in part.values():
        place_filters(each)


def take_secrets(part: Any) -> set[str]:
    """The names of the secrets in *part*, which now are to be found beside it."""
    if isinstance(part, list):
        return set[str]().union(*map(take_secrets, part))
    if not isinstance(part, dict):
        return set()
    if "ads" in part.get("sdsConfig", {}):
        del part["sdsConfig"]
        return {part["name"]}
    return set[str]().union(*map(take_secrets, part.values()))


def static_secret(name: str) -> dict[str, Any]:
    """A secret by its name: what is in files that exist, else any certificate."""
    made = secret_of_files(name)
    document = to_document(tls.Secret.parse(made.body)) if made else {}
    files = [
        each["filename"] for part in document.values() if isinstance(part, dict) for each in part.values()
    ]
    if files and all(Path(file).is_file() for file in files):
        return document
    certificate, key, staple = any_pair()
    if name.startswith((TRUSTED, TRUSTED_FILE)):
        return {"name": name, "validationContext": {"trustedCa": {"inlineString": certificate}}}
    pair: dict[str, Any] = {
        "certificateChain": {"inlineString": certificate},
        "privateKey": {"inlineString": key},
        "ocspStaple": {"inlineBytes": b64encode(staple).decode()},
    }
    return {"name": name, "tlsCertificate": pair}


def collectors(given: dict[str, Any], prefix: str, clusters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Have traces sent to clusters of this world; those that it lacks, since Envoys bring them themselves."""
    found = {}
    for chain in given.get("filterChains", ()):
        tracing = chain["filters"][-1]["typedConfig"].get("tracing", {})
        config = tracing.get("provider", {}).get("typedConfig", {})
        if "collectorCluster" in config:
            wanted = config["collectorCluster"]
            own = config["collectorCluster"] = f"{prefix}{wanted}"
            if wanted not in clusters:
                found[own] = {"name": own, "type": "STATIC", "loadAssignment": {"clusterName": own}}
    return list(found.values())


def place_routes(given: dict[str, Any], routes: Mapping[str, Any]) -> None:
    """Put the routes that would come over RDS into the listener itself."""
    for chain in given.get("filterChains", ()):
        manager = chain["filters"][-1]["typedConfig"]
        if rds := manager.pop("rds", None):
            manager["routeConfig"] = {**routes[rds["routeConfigName"]], "validateClusters": False}
