"""What a feature is: an option it reads, and what it adds to Envoy's messages.

A hook gives back what it adds and never sees the message it is added to, so the order of features cannot
matter and a test is one comparison. HTTP filters are declared with their stage: each listener carries all
of them from the start, in this one order and disabled, and a route's own configuration switches one on.
So no edit of a route ever changes a listener.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import betterproto2

from protos import gloo
from shared.ref import Ref
from shared.report import Report, join

ALL = ("*",)


class Reader(Protocol):
    """How translation looks at other objects; every call is recorded, a miss too."""

    def __call__(self, kind: str, ref: Ref, /) -> Any: ...


class Stage(IntEnum):
    """Gloo's order of HTTP filters; the router is the last."""

    FAULT = 0
    CORS = 1
    WAF = 2
    AUTHN = 3
    AUTHZ = 4
    RATE_LIMIT = 5
    ACCEPTED = 6
    OUT_AUTH = 7
    ROUTE = 8
    ROUTER = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFilter:
    """An HTTP filter that stands in every listener by name alone, for its code comes apart
    (``translator/scripts.py``); *weight* puts it before (-1) or after (1) its stage's others."""

    name: str
    stage: Stage
    weight: int = 0

    @property
    def place(self) -> tuple[Stage, int, str]:
        return self.stage, self.weight, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFilter(NamedFilter):
    """One that stands there with a configuration of its own."""

    config: betterproto2.Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings translation depends on, as values, so that other settings recompute nothing."""

    regex_max_program_size: int = 1024
    replace_invalid_routes: bool = False
    invalid_route_code: int = 404
    invalid_route_body: str = ""
    disable_grpc_web: bool = False
    circuit_breakers: gloo.CircuitBreakerConfig | None = None
    ssl_parameters: gloo.SslParameters | None = None  # of upstreams without their own
    aws: gloo.GlooOptionsAwsOptions = field(default_factory=gloo.GlooOptionsAwsOptions)
    extauth: gloo.ExtAuthSettings | None = None
    named_extauth: Mapping[str, gloo.ExtAuthSettings] = field(default_factory=dict)
    ratelimit_server: gloo.RateLimitServerSettings | None = None

    @classmethod
    def of(cls, settings: gloo.Settings | None) -> Policy:
        settings = settings or gloo.Settings()
        upstreams = settings.upstream_options or gloo.UpstreamOptions()
        options = settings.gloo or gloo.GlooOptions()
        invalid = options.invalid_config_policy or gloo.GlooOptionsInvalidConfigPolicy()
        size, code = options.regex_max_program_size, invalid.invalid_route_response_code
        return cls(
            regex_max_program_size=1024 if size is None else size,
            replace_invalid_routes=invalid.replace_invalid_routes,
            invalid_route_code=code if 200 <= code <= 599 else 404,
            invalid_route_body=invalid.invalid_route_response_body,
            disable_grpc_web=bool(options.disable_grpc_web),
            circuit_breakers=options.circuit_breakers,
            ssl_parameters=upstreams.ssl_parameters,
            aws=options.aws_options or gloo.GlooOptionsAwsOptions(),
            extauth=settings.extauth,
            named_extauth=settings.named_extauth,
            ratelimit_server=settings.ratelimit_server,
        )


def read_nothing(kind: str, ref: Ref, /) -> None:
    """The reader of places whose options look at no other object."""


NO_HOST, NO_LISTENER = gloo.VirtualHostOptions(), gloo.HttpListenerOptions()
"""Of places that nothing stands around; made once, since there are many of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where an option stands, and what stands around it; problems go to its report, under its path.

    *options* are all of the place; a route that does not *forward* answers by itself; connections of a *tcp*
    listener are not of HTTP. Of the options of the
    *host* and *listener* around a route those are here that some feature looks at (``Feature.looks_at``).
    """

    path: str
    report: Report
    policy: Policy
    read: Reader = read_nothing
    matchers: Sequence[gloo.Matcher] = ()
    forwards: bool = True
    tcp: bool = False
    options: Any = None
    host: gloo.VirtualHostOptions = field(default_factory=lambda: NO_HOST)
    listener: gloo.HttpListenerOptions = field(default_factory=lambda: NO_LISTENER)

    def error(self, where: str, text: str) -> None:
        self.report.error(join(self.path, where), text)

    def warn(self, where: str, text: str) -> None:
        self.report.warn(join(self.path, where), text)


def within(scope: Scope, where: str) -> Scope:
    """The scope of something below. Copied by hand: a route has dozens, and ``replace`` takes its time."""
    below = object.__new__(Scope)
    for name in Scope.__slots__:
        object.__setattr__(below, name, getattr(scope, name))
    object.__setattr__(below, "path", join(scope.path, where))
    return below


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What a feature adds: fields of Envoy's message, and of the messages that hang on it.

    *action* are fields of a route's RouteAction, *protocol* those of a cluster's HttpProtocolOptions,
    *manager* those of whatever takes a listener's connections, and *filters* the settings of HTTP filters
    by name, which also switch the filter on. *network* are network filters by name, before what takes the
    connections. *waiting* are HTTP filters that stand in this listener only, or otherwise than in all others,
    until a route switches them on. *clusters* are those that the other parts mention.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    action: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    manager: Mapping[str, Any] = field(default_factory=dict)
    filters: Mapping[str, betterproto2.Message] = field(default_factory=dict)
    network: Mapping[str, betterproto2.Message] = field(default_factory=dict)
    waiting: tuple[HttpFilter, ...] = ()
    clusters: tuple[str, ...] = ()


Hook = Callable[[Any, Scope], Patch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One option by its JSON *name*: a hook for each place it can stand, the filter it works through.

    *reads* names the messages below the option and the fields of each that the hooks take into account
    (``ALL`` for all of them); whatever else is set there is refused by name. A hook gets the option's
    value as set, so never None. The hook of a feature with options *beside* it gets the whole object, when
    one of them all is set.

    *looks_at* names, message by message, options of the virtual host and listener around a route that its
    hook takes into account. *default* is the value where the option is not set, if that is not nothing.
    """

    name: str
    beside: tuple[str, ...] = ()
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    looks_at: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default: Callable[[Policy], Any] | None = None
    on_listener: Hook | None = None  # among the options of an HTTP listener
    on_any_listener: Hook | None = None  # among those that all listeners have
    on_route: Hook | None = None
    on_virtual_host: Hook | None = None
    on_destination: Hook | None = None
    on_upstream: Hook | None = None
    filter: NamedFilter | None = None
