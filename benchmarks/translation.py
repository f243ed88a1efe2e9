"""What translation costs a route, in processor time: plain ones, and ones with all options that go together.

In gateway a VirtualService becomes its part of a Proxy, in gloo that becomes Envoy's virtual host. Reading is
from the bytes in Consul to messages.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import orjson

from protos import gloo
from services.gateway.composition import Rendered
from services.gateway.translation import Changes, Translation
from services.gloo.plugin import Policy
from services.gloo.translator.virtual_host import TranslatedHost, translate_virtual_host
from shared.ref import Ref
from shared.store.chunks import join
from shared.store.keys import GATEWAY, PROXY, VIRTUAL_SERVICE, Kind, key
from shared.store.objects import Stored, decode_value

ROUTES = 1000
TURNS = 7
ROOT, NAMESPACE = "gloo", "gloo-system"
UPSTREAM = {"name": "pets", "namespace": NAMESPACE}
PETS = gloo.Upstream(static=gloo.StaticUpstreamSpec(hosts=[gloo.StaticHost(addr="127.0.0.1", port=80)]))
Document = dict[str, Any]


def plain_route(i: int) -> Document:
    return {"matchers": [{"prefix": f"/pets/{i}"}], "routeAction": {"single": {"upstream": UPSTREAM}}}


def full_route(i: int) -> Document:
    """As many options as one route can have, with values as people write them, and different ones in each."""
    options = {
        "appendXForwardedHost": True,
        "bufferPerRoute": {"buffer": {"maxRequestBytes": 65536 + i}},
        "cors": {
            "allowOrigin": [f"https://{i}.example.com"],
            "allowOriginRegex": [r"https://[a-z]+\.example\.com"],
            "allowMethods": ["GET", "POST"],
            "allowHeaders": ["authorization", "content-type"],
            "exposeHeaders": ["x-total"],
            "maxAge": "600",
            "allowCredentials": True,
        },
        "compression": {"disabled": True},
        "csrf": {
            "filterEnabled": {"defaultValue": {"numerator": 100, "denominator": "HUNDRED"}},
            "additionalOrigins": [{"exact": f"{i}.example.com"}],
        },
        "envoyMetadata": {"example.route": {"number": i, "team": "pets", "tags": ["a", "b"]}},
        "faults": {
            "abort": {"httpStatus": 503, "percentage": 0.5},
            "delay": {"fixedDelay": "0.2s", "percentage": 1},
        },
        "headerManipulation": {
            "requestHeadersToAdd": [
                {"header": {"key": "x-route", "value": f"pets-{i}"}},
                {"header": {"key": "x-client", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}},
            ],
            "requestHeadersToRemove": ["x-internal"],
            "responseHeadersToAdd": [{"header": {"key": "x-served-by", "value": "pets"}, "append": False}],
            "responseHeadersToRemove": ["server"],
        },
        "hostRewrite": f"pets-{i}.internal",
        "idleTimeout": "60s",
        "lbHash": {
            "hashPolicies": [
                {"header": "x-user", "terminal": True},
                {"cookie": {"name": f"pets-{i}", "ttl": "3600s", "path": "/"}},
            ]
        },
        "maxStreamDuration": {"maxStreamDuration": "300s"},
        "mirrors": [{"upstream": UPSTREAM, "percentage": 1}],
        "ratelimit": {"localRatelimit": {"maxTokens": 100 + i, "fillInterval": "1s"}},
        "regexRewrite": {"pattern": {"regex": f"^/pets/{i}/([0-9]+)$"}, "substitution": r"/v2/\1"},
        "retries": {
            "retryOn": "5xx,connect-failure",
            "numRetries": 3,
            "perTryTimeout": "2s",
            "retryBackOff": {"baseInterval": "0.1s", "maxInterval": "1s"},
        },
        "sessionAffinity": {"cookie": {"name": f"instance-{i}", "ttl": "3600s", "path": "/pets"}},
        "shadowing": {"upstream": UPSTREAM, "percentage": 5},
        "stagedTransformations": {
            "early": {
                "requestTransforms": [
                    {
                        "matcher": {"prefix": f"/pets/{i}", "methods": ["POST"]},
                        "requestTransformation": {
                            "transformationTemplate": {
                                "passthrough": {},
                                "extractors": {
                                    "id": {"header": ":path", "regex": f"/pets/{i}/([0-9]+)", "subgroup": 1}
                                },
                                "headers": {"x-id": {"text": '{{ extraction("id") }}'}},
                            }
                        },
                    }
                ]
            },
            "regular": {
                "responseTransforms": [
                    {
                        "matchers": [{"name": ":status", "value": "404"}],
                        "responseTransformation": {
                            "transformationTemplate": {
                                "parseBodyBehavior": "DontParse",
                                "body": {"text": f'{{"error": "no pet", "route": {i}}}'},
                            }
                        },
                    }
                ]
            },
        },
        "timeout": "10s",
        "tracing": {"routeDescriptor": f"pets-{i}", "tracePercentages": {"randomSamplePercentage": 10}},
        "upgrades": [{"websocket": {}}],
    }
    matcher = {
        "prefix": f"/pets/{i}",
        "methods": ["GET", "POST"],
        "headers": [
            {"name": "x-team", "value": "pets"},
            {"name": "x-version", "value": "v[0-9]+", "regex": True},
        ],
        "queryParameters": [{"name": "kind", "value": "cat"}],
    }
    return {**plain_route(i), "matchers": [matcher], "options": options}


async def main(samples: int) -> None:
    print(f"microseconds of processor time: a route, of {ROUTES}, and in all for an edit of one among them")
    print("                       |  a route: reading  translation |  an edit: reading  translation")
    for name, make in (("plain", plain_route), ("all options", full_route)):
        routes = [make(i) for i in range(ROUTES)]
        edited = [*routes[:500], {**routes[500], "name": "edited"}, *routes[501:]]
        show(f"gateway, {name}", *gateway_costs(routes, edited))
        show(f"gloo, {name}", *gloo_costs(routes, edited))


def show(name: str, *costs: float) -> None:
    print("  {:20} | {:17.0f} {:12.0f} | {:17.0f} {:12.0f}".format(name, *costs))


def gateway_costs(routes: list[Document], edited: list[Document]) -> tuple[float, ...]:
    read, again = (reading(VIRTUAL_SERVICE, virtual_service(each)) for each in (routes, edited))
    before = read(None)
    gateway, versions = Gateway(), [before, again(before)]
    gateway.take(before)
    return (
        used(lambda: read(None)) / ROUTES,
        used(lambda: Gateway().take(before)) / ROUTES,
        used(lambda: again(before)),
        used(lambda: gateway.take(turned(versions))),
    )


def gloo_costs(routes: list[Document], edited: list[Document]) -> tuple[float, ...]:
    read, again = (reading(PROXY, proxy(each)) for each in (routes, edited))
    before = read(None)
    after, host = again(before), translate(before)
    return (
        used(lambda: read(None)) / ROUTES,
        used(lambda: translate(before)) / ROUTES,
        used(lambda: again(before)),
        used(lambda: translate(after, host)),
    )


def used(work: Callable[[], object]) -> float:
    """Microseconds, the least of some turns: that one was disturbed least. Garbage waits, as in services."""
    found = []
    for _ in range(TURNS):
        gc.collect()
        gc.disable()
        began = time.process_time_ns()
        work()
        found.append(time.process_time_ns() - began)
        gc.enable()
    return min(found) / 1000


def turned(versions: list[Stored]) -> Stored:
    """The other one each time."""
    versions.reverse()
    return versions[0]


def reading(kind: Kind, document: Document) -> Callable[[Stored | None], Stored]:
    """Reads an object as its watch does: of a changed one, only what has changed since it was *previous*."""
    raw, at = orjson.dumps(document), key(ROOT, kind, Ref(NAMESPACE, document["metadata"]["name"]))

    def read(previous: Stored | None) -> Stored:
        found = decode_value(ROOT, at, raw, 1, previous=previous)
        assert found is not None
        assert found.message is not None, found.report
        return found

    return read


def named(name: str, document: Document) -> Document:
    return {"metadata": {"name": name, "namespace": NAMESPACE}, **document}


def virtual_service(routes: list[Document]) -> Document:
    return named("pets", {"virtualHost": {"domains": ["*"], "routes": routes}})


def proxy(routes: list[Document]) -> Document:
    """What gateway makes of them, in one piece."""
    rendered = Gateway().take(reading(VIRTUAL_SERVICE, virtual_service(routes))(None))
    hosts = [orjson.loads(part.body) for part in rendered.parts]
    return join(rendered.skeleton, {rendered.parts[0].path: hosts})


class Gateway:
    """The translation of a gateway that has one Gateway."""

    def __init__(self) -> None:
        self._translation = Translation(NAMESPACE)
        listening = named("gateway-proxy", {"bindAddress": "::", "bindPort": 8080, "httpGateway": {}})
        self._take(reading(GATEWAY, listening)(None))

    def take(self, service: Stored) -> Rendered:
        self._take(service)
        return self._translation.render()["gateway-proxy"]

    def _take(self, stored: Stored) -> None:
        changes = Changes()
        changes.add([stored], ())
        self._translation.update(changes)


def translate(proxy: Stored, previous: TranslatedHost | None = None) -> TranslatedHost:
    """The Proxy's virtual host as gloo makes it."""
    host = proxy.message.listeners[0].http_listener.virtual_hosts[0]
    found = translate_virtual_host(host, "", proxy.source, look_up, Policy(), previous=previous)
    assert not found.reports, str(found.reports)[:1000]
    return found


def look_up(kind: str, ref: Ref, /) -> object:
    return PETS if (kind, ref) == ("Upstream", Ref(NAMESPACE, "pets")) else None
