"""Random documents of the contract, driven by its schema: mostly sensible, sometimes nasty, seeded."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from protos._generated.schema import ENUMS, MESSAGES
from services.gloo.translator.ssl import CIPHERS, CURVES
from services.gloo.translator.supported import FIELDS_READ, PACKAGE, is_read
from tests.support.fields import places_in_case

TEXTS = [
    *("/", "/api", "/a/b.c", "/a?b", "/a/../b", "", "x", "é", "a b", "a\nb", "\x7f", "'\"", "/%2f", "/世"),
    *(
        "GET",
        "POST",
        "x-header",
        "Host",
        ":path",
        ":method",
        "x_y",
        "*",
        "*.com",
        "a.*",
        "a*b",
        "A.com:80",
        "a.com",
    ),
    *(
        "10.0.0.1",
        "fd00::1",
        "localhost",
        "-x",
        "5xx",
        "5xx,reset",
        "retriable-status-codes",
        "nonsense",
        "\\1",
        "\\0x",
    ),
    *("%", "%%", "%REQ(x)%", "%PROTOCOL%", "%NOPE%", "%START_TIME(%Y)%", "%DYNAMIC_METADATA(a:b)%", "50%"),
    *(
        "(",
        "a|b",
        "/v[0-9]+/.*",
        "(?i)/a",
        "(?=a)",
        "a{2000}",
        "\\pL+",
        "x{900}",
        "[[:alpha:]]",
        "\\x{100}",
        "a++",
    ),
]
NUMBERS = [0, 1, 2, 3, 80, 99, 200, 204, 443, 503, 599, 600, 8080, 65535, 65536, 2**31 - 1, 2**32 - 1]
REALS = [0, 0.00001, 0.5, 33.3, 100, 100.1, -1]
TIMES = ["0s", "0.000000001s", "0.001s", "1s", "15s", "3600s", "-1s", "1000000000s", "99999999999s"]
NAMES = ["a", "b", "consul", "missing"]
PATHS, HOSTS, HEADERS, SOON = ["/", "/api", "/a/b"], ["example.com", "a.b"], ["x-a", "x-b"], ["1s", "3.5s"]
PERCENT = [0, 50, 100]
SHARES = ["healthyPanicThreshold", "minWeightPercent", "maxEjectionPercent", "enforcingConsecutive5xx"]
SHARES += ["enforcingSuccessRate", "enforcingConsecutiveGatewayFailure", "enforcingLocalOriginSuccessRate"]
SHARES += ["enforcingConsecutiveLocalOriginFailure"]
USUAL: dict[str, list[Any]] = {
    "prefix": PATHS,
    "exact": PATHS,
    "prefixRewrite": PATHS,
    "pathRedirect": PATHS,
    "hostRewrite": HOSTS,
    "hostRedirect": HOSTS,
    "sniAddr": HOSTS,
    "requestHeadersToRemove": HEADERS,
    "responseHeadersToRemove": HEADERS,
    "key": HEADERS,
    "timeout": SOON,
    "perTryTimeout": SOON,
    "fixedDelay": SOON,
    "connectTimeout": SOON,
    "maxInterval": SOON,
    "regex": ["/.*", "/v[0-9]+", "/(a|b)+"],
    "addr": ["10.0.0.1", "fd00::1", "example.com", "localhost"],
    "serviceName": ["petstore", "web"],
    "name": ["x-a", "content-type", ":authority"],
    "value": ["b", "%PROTOCOL%", "100%%"],
    "methods": ["GET", "POST"],
    "retryOn": ["5xx", "reset,connect-failure"],
    "substitution": ["\\0", "/x"],
    "body": ["hello", ""],
    "domains": ["a.com", "*.b.com", "c.*", "d.com:8080", *(f"{letter}.org" for letter in "abcdefghijkl")],
    "httpStatus": [503, 404],
    "status": [200, 404],
    "httpProxyHostname": ["example.com:443", "[fd00::1]:80", "10.0.0.1:80"],
    "proxyProtocolVersion": ["V1", "V2"],
    "weight": [1, 5, 100],
    "loadBalancingWeight": [1, 2],
    "port": [80, 443],
    "portRedirect": [8080],
    "percentage": [0, 12.5, 100],
    "baseInterval": ["0.1s"],
    **dict.fromkeys(("interval", "noTrafficInterval", "unhealthyInterval", "slowStartWindow"), SOON),
    **dict.fromkeys(("unhealthyEdgeInterval", "healthyEdgeInterval", "baseEjectionTime"), SOON),
    **dict.fromkeys(("intervalJitter", "initialJitter", "updateMergeWindow", "dnsRefreshRate"), SOON),
    **dict.fromkeys(("idleTimeout", "maxStreamDuration", "keepaliveTime", "keepaliveInterval"), SOON),
    **dict.fromkeys(SHARES, PERCENT),
    "unhealthyThreshold": [1, 3],
    "healthyThreshold": [1, 3],
    "initialStreamWindowSize": [65535, 2**20],
    "initialConnectionWindowSize": [65535, 2**20],
    "perUpstreamPreconnectRatio": [1, 1.5],
    "predictivePreconnectRatio": [1, 3],
    "minimumRingSize": [1, 1024],
    "maximumRingSize": [1024, 2048],
    "maxConcurrentStreams": [1, 100],
    "choiceCount": [2, 5],
    "aggression": [0.5, 2],
    "start": [100, 200],
    "end": [300, 600],
    "text": ["00", "cafe"],
    "host": HOSTS,
    "authority": HOSTS,
    "path": PATHS,
    "method": ["GET", "POST"],
    "allowOrigin": ["https://example.com", "*"],
    "allowOriginRegex": ["https://.*"],
    "allowMethods": ["GET", "POST"],
    "allowHeaders": HEADERS,
    "exposeHeaders": HEADERS,
    "maxAge": ["86400"],
    "header": HEADERS,
    "hostRewriteHeader": HEADERS,
    "clusterHeader": HEADERS,
    "maxRequestBytes": [1, 1000],
    "maxTokens": [1, 100],
    "tokensPerFill": [1, 5],
    "fillInterval": SOON,
    "memoryLevel": [1, 9],
    "windowBits": [9, 15],
}
USUAL |= {
    "sniDomains": ["a.com", "*.b.com", "c.com"],
    "addressPrefix": ["10.0.0.0", "10.1.0.0", "fd00::", "0.0.0.0"],
    "prefixLen": [8, 16, 32],
    "destinationPort": [443],
    "verifySubjectAltName": ["a.com", "10.0.0.1", "spiffe://a/b"],
    "alpnProtocols": ["h2", "http/1.1"],
    "cipherSuites": sorted(CIPHERS),
    "ecdhCurves": list(CURVES),
    "tlsCert": ["/etc/cert.pem"],
    "tlsKey": ["/etc/key.pem"],
    "rootCa": ["/etc/ca.pem"],
    "clusterName": ["sds_server"],
    "certificatesSecretName": ["pair"],
    "transportSocketConnectTimeout": SOON,
    "bindAddress": ["::", "127.0.0.1"],
    "bindPort": [8080, 8443, 9000],
    "proxyNames": ["gateway-proxy", "other"],
    "labels": ["x", "y"],
    "virtualServiceSelector": ["x", "y"],
    "namespaces": ["ns", "*"],
    "virtualServiceNamespaces": ["ns", "*"],
    "region": ["us-east-1"],
}
NEEDED = {"header", "destination", "hosts", "pattern", "resetHeaders", "destinations", "single", "multi"}
NEEDED |= {"routeAction", "redirectAction", "directResponseAction", "upstream", "consul", "static"}
NEEDED |= {
    "httpGateway",
    "tcpGateway",
    "defaultValue",
    "defaultLimit",
    "virtualHost",
    "routes",
    "matchers",
    "tcpHosts",
    "matchedGateways",
}
SINGLE = {"healthChecks"}  # lists of one, says Envoy
FEW = {"matchers", "domains"}  # a route that delegates has one, and who has many is in others' way
SECRETS = {"ns.a": {"pair": True}, "ns.b": {"pair": True, "trusted": True}}
SECRETS["ns.consul"] = {"pair": True, "trusted": True, "staple": True}
NOT_MADE = {"metadata", "metadataStatic", "namespacedStatuses", "discoveryMetadata"}
NOT_MADE |= {"protoDescriptor"}  # a file on Envoy's machine, of which we know nothing
WRITTEN = {("FileSink", "path"), ("HealthCheck", "eventLogPath")}  # and that Envoy opens, or makes


def random_case(seed: int) -> dict[str, Any]:
    """A case for ``tests.support.golden``: a virtual host of some routes and its listener's options,
    upstreams and a group.

    Every other one is calm, and so mostly accepted.
    """
    random = Case(seed)
    host = message("VirtualHost", random) | {"name": f"host-{seed}"}
    host["routes"] = [message("Route", random) for _ in range(random.randint(1, 4))]
    upstreams = [message("Upstream", random) | {"metadata": named(name)} for name in ("a", "b")]
    upstreams.append({"metadata": named("consul"), "consul": {"serviceName": "web", "serviceTags": ["v1"]}})
    groups = [message("UpstreamGroup", random) | {"metadata": named("a")}]
    options = message("HttpListenerOptions", random) if random.random() < 0.3 else {}
    return {"virtualHost": host, "listenerOptions": options, "upstreams": upstreams, "upstreamGroups": groups}


def random_tls_case(seed: int) -> dict[str, Any]:
    """A case with a listener of some TLS configurations, and most of the secrets they name."""
    random = Case(seed)
    route = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200}}
    listener = {
        "name": "tls",
        "bindAddress": "::",
        "bindPort": 8443,
        "httpListener": {"virtualHosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "sslConfigurations": [message("SslConfig", random) for _ in range(random.randint(1, 3))],
    }
    return {"proxy": {"listeners": [listener]}, "secrets": SECRETS}


def edged_case(seed: int, cases: Sequence[Any]) -> Any:
    """One of *cases* with one field gone, or with another value: mostly at the edge of what it may be."""
    random = Case(2 * seed + 1)
    case = copy.deepcopy(random.choice(cases))
    (name, field), way = random.choice(sorted(places_in_case(case), key=str))
    part = case
    for step in way[:-1]:
        part = part[step]
    _, kind, type_name, _, shape = MESSAGES[name][field]
    if kind == "message" or random.random() < 0.1:
        del part[way[-1]]
    elif field not in NOT_MADE and (name.removeprefix(PACKAGE), field) not in WRITTEN:
        one = value(field, kind, type_name, random, depth=0)
        part[way[-1]] = {"one": one, "list": [one], "map": {"tag_v1": one}}[shape]
    return case


def random_hybrid_case(seed: int) -> dict[str, Any]:
    """A case with a hybrid listener: parts of HTTP and TCP that mostly take different connections."""
    random = Case(seed)
    route = {"matchers": [{"prefix": "/"}], "directResponseAction": {"status": 200}}
    parts = []
    for i in range(random.randint(1, 4)):
        matched = message("MatchedListener", random, 1)
        if "httpListener" in matched or "tcpListener" not in matched:
            hosts = [{"name": f"host-{seed}-{i}", "domains": ["*"], "routes": [route]}]
            options = matched.pop("httpListener", {}).get("options", {}) if random.random() < 0.2 else {}
            matched["httpListener"] = {"virtualHosts": hosts, "options": options}
            matched.pop("tcpListener", None)
        else:
            matched.pop("sslConfigurations", None)
            for number, each in enumerate(matched["tcpListener"].get("tcpHosts", ())):
                each["name"] = f"tcp-{number}"
        parts.append(matched)
    listener = {
        "name": "hybrid",
        "bindAddress": "::",
        "bindPort": 8443,
        "hybridListener": {"matchedListeners": parts},
    }
    upstreams = [
        {"metadata": named(name), "static": {"hosts": [{"addr": "10.0.0.1", "port": 1}]}}
        for name in ("a", "b")
    ]
    return {"proxy": {"listeners": [listener]}, "secrets": SECRETS, "upstreams": upstreams}


class Case(Random):
    """A source of randomness that knows how nasty its case shall be, and how many fields are set in it."""

    def __init__(self, seed: int, often: float = 0.4) -> None:
        super().__init__(seed)
        self.nasty = 0.1 if seed % 2 else 0.001
        self.often = often


def named(name: str) -> dict[str, str]:
    return {"name": name, "namespace": "ns"}


def message(name: str, random: Case, depth: int = 0) -> dict[str, Any]:
    """A message with some of its fields set, at most one of each oneof, seldom one that is not read.

    *name* is its full one, or without the package where that is gloo.
    """
    name = name.removeprefix(PACKAGE)
    if name == "ResourceRef":
        return named(random.choice(NAMES[:3] if random.random() < 0.9 else NAMES))
    if name == "PolicyTargetReferenceWithSectionName":
        return {"kind": "Gateway", "name": random.choice(NAMES)}
    fields = MESSAGES[name if name in MESSAGES else PACKAGE + name]
    made: dict[str, Any] = {}
    chosen = choices(name, fields, random)
    for field in random.sample(sorted(fields), len(fields)):
        _, kind, type_name, oneof, shape = fields[field]
        wanted = chosen[oneof] == field if oneof in chosen else random.random() < chance(name, field, random)
        if not wanted or depth > 6 or field in NOT_MADE or type_name == f"{PACKAGE}Status":
            continue
        members = [value(field, kind, type_name, random, depth) for _ in range(count(field, shape, random))]
        if (name, field) in WRITTEN:
            members = ["/dev/null"]
        first = members[0] if members else None
        made[field] = {"one": first, "list": members, "map": {"tag_v1": first} if members else {}}[shape]
    return made


def choices(name: str, fields: Mapping[str, Any], random: Case) -> dict[str, str]:
    """A member of each oneof; of options, where none of them is needed, mostly none."""
    members: dict[str, list[str]] = {}
    for field, (*_, oneof, _) in sorted(fields.items()):
        if oneof and (name not in FIELDS_READ or is_read(name, field) or random.random() < random.nasty / 7):
            members.setdefault(oneof, []).append(field)
    often = random.often if name.endswith("Options") else 1 - random.nasty
    if name == "Matcher" and random.random() < 0.5:
        return {"path_specifier": "prefix"}  # the only one of routes that delegate
    return {oneof: random.choice(each) if random.random() < often else "" for oneof, each in members.items()}


def chance(name: str, field: str, random: Case) -> float:
    """How likely a field is set."""
    if name in FIELDS_READ and not is_read(name, field):
        return random.nasty / 7
    if name == "gateway.solo.io.DelegateAction":
        return random.nasty  # there are two newer ways to say the same
    if field in NEEDED or field in USUAL:
        return 1 - random.nasty
    return random.often


def count(field: str, shape: str, random: Case) -> int:
    if shape == "one" or field in SINGLE or (field in FEW and random.random() < 0.8):
        return 1
    return random.randint(1, 3) if random.random() > random.nasty else 0


def value(field: str, kind: str, type_name: str, random: Case, depth: int) -> Any:
    usual = field in USUAL and kind != "enum" and type_name != "bool"
    if kind == "message":
        return message(type_name.removeprefix(PACKAGE), random, depth + 1)
    if usual and random.random() > random.nasty:
        return random.choice(USUAL[field])
    pools: dict[str, Sequence[Any]] = {"string": TEXTS, "bool": [True, False], "bytes": [""]}
    if kind in ("scalar", "wrapper"):
        return random.choice(pools.get(type_name, REALS if type_name in ("float", "double") else NUMBERS))
    if kind == "enum":
        return random.choice(sorted(ENUMS[type_name]))
    return random.choice(TIMES) if kind == "duration" else {}
