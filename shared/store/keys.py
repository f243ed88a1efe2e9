"""The KV layout: which key an object has, and which object a key means.

``<root>/<group>/<version>/<Kind>/<namespace>/<name>``, as Gloo lays it out. What only our processes write
stands beside it under names no group can have: ``<root>/_status/…``, ``<root>/_chunks/…``. Nothing here
knows a message class, so that a command line which only reads keys starts fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from shared.errors import InvalidResource
from shared.ref import Ref

DEFAULT_ROOT: Final = "gloo"

_GATEWAY = "gateway.solo.io"
_GLOO = "gloo.solo.io"
_LONGEST_NAME = 253
_DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of object: *plural* names its directory and its command, *short* is the command's short form."""

    name: str
    group: str
    version: str = "v1"
    plural: str
    short: str

    @property
    def message(self) -> str:
        """The full name of the kind's message in the contract."""
        return f"{self.group}.{self.name}"

    def __str__(self) -> str:
        return self.name


GATEWAY = Kind(name="Gateway", group=_GATEWAY, plural="gateways", short="gw")
VIRTUAL_SERVICE = Kind(name="VirtualService", group=_GATEWAY, plural="virtualservices", short="vs")
ROUTE_TABLE = Kind(name="RouteTable", group=_GATEWAY, plural="routetables", short="rt")
VIRTUAL_HOST_OPTION = Kind(
    name="VirtualHostOption", group=_GATEWAY, plural="virtualhostoptions", short="vhopts"
)
ROUTE_OPTION = Kind(name="RouteOption", group=_GATEWAY, plural="routeoptions", short="rtopts")
MATCHABLE_HTTP_GATEWAY = Kind(name="MatchableHttpGateway", group=_GATEWAY, plural="httpgateways", short="hgw")
MATCHABLE_TCP_GATEWAY = Kind(name="MatchableTcpGateway", group=_GATEWAY, plural="tcpgateways", short="tgw")
LISTENER_OPTION = Kind(name="ListenerOption", group=_GATEWAY, plural="listeneroptions", short="lisopts")
HTTP_LISTENER_OPTION = Kind(
    name="HttpListenerOption", group=_GATEWAY, plural="httplisteneroptions", short="hlisopts"
)
PROXY = Kind(name="Proxy", group=_GLOO, plural="proxies", short="px")
UPSTREAM = Kind(name="Upstream", group=_GLOO, plural="upstreams", short="us")
UPSTREAM_GROUP = Kind(name="UpstreamGroup", group=_GLOO, plural="upstreamgroups", short="ug")
ARTIFACT = Kind(name="Artifact", group=_GLOO, plural="artifacts", short="art")

KINDS: Final = (
    GATEWAY,
    VIRTUAL_SERVICE,
    ROUTE_TABLE,
    VIRTUAL_HOST_OPTION,
    ROUTE_OPTION,
    MATCHABLE_HTTP_GATEWAY,
    MATCHABLE_TCP_GATEWAY,
    LISTENER_OPTION,
    HTTP_LISTENER_OPTION,
    PROXY,
    UPSTREAM,
    UPSTREAM_GROUP,
    ARTIFACT,
)
_BY_PATH = {(kind.group, kind.version, kind.name): kind for kind in KINDS}


def prefix(root: str, kind: Kind, namespace: str | None = None) -> str:
    """What all keys of *kind* begin with; it ends with a slash, else namespace ``a`` would match ``a2``."""
    path = f"{root}/{kind.group}/{kind.version}/{kind.name}/"
    return path if namespace is None else f"{path}{namespace}/"


def key(root: str, kind: Kind, ref: Ref) -> str:
    return prefix(root, kind, ref.namespace) + ref.name


def status_prefix(root: str, kind: Kind) -> str:
    """Where statuses lie when they are kept out of the objects."""
    return f"{root}/_status/{kind.name}/"


def status_key(root: str, kind: Kind, ref: Ref) -> str:
    return f"{status_prefix(root, kind)}{ref.namespace}/{ref.name}"


def chunk_prefix(root: str, kind: Kind) -> str:
    """Where the bodies of large objects lie: outside every watched prefix, so that they wake nobody."""
    return f"{root}/_chunks/{kind.name}/"


def parse_key(root: str, key: str) -> tuple[Kind, Ref] | None:
    """The object *key* means, or None; ``…/Gateway/gloo-system`` has a namespace and an empty name.

    Gloo's own documentation writes Gateways to such nameless keys: their name is in the value alone.
    """
    if not key.startswith(f"{root}/"):
        return None
    group, _, rest = key[len(root) + 1 :].partition("/")
    version, _, rest = rest.partition("/")
    name, _, rest = rest.partition("/")
    kind = _BY_PATH.get((group, version, name))
    namespace, slash, name = rest.partition("/")
    if kind is None or not namespace or bool(slash) != bool(name) or "/" in name:
        return None
    return kind, Ref(namespace, name)


def check_ref(ref: Ref) -> None:
    """Raise ``InvalidResource`` unless namespace and name are DNS-1123 subdomains, as all writers demand."""
    for path, text in (("metadata.namespace", ref.namespace), ("metadata.name", ref.name)):
        if not text:
            raise InvalidResource(path, "is missing")
        if len(text) > _LONGEST_NAME:
            raise InvalidResource(path, f"is longer than {_LONGEST_NAME} characters")
        if not _DNS_1123.fullmatch(text):
            problem = "use lower-case letters, digits, '-' and '.', with a letter or digit at both ends"
            raise InvalidResource(path, f"{text!r} is no valid name: {problem}")
