"""Client status (CSDS): what each client was sent, and what it made of it.

A response says of each resource how it stands with one client: accepted, refused, on its way, not sent. It
is told from the session's own state, which is copied and then rendered step by step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime

from protos._generated.envoy.admin import v3 as admin
from protos.envoy import core, matcher, protobuf, status
from services.gloo.resources import CONFIDENTIAL, Resource, Resources, TypeUrl
from services.gloo.xds.nack import normalise
from services.gloo.xds.subscription import Node, Refusal, Subscription
from services.gloo.xds.wire import Malformed, delimited, fields
from shared.codec.encode import encode
from shared.incremental.units import Steps

SERVICE = "envoy.service.status.v3.ClientStatusDiscoveryService"
STEP = 16  # resources told of at once

_OUTCOME = {
    status.ConfigStatus.SYNCED: admin.ClientResourceStatus.ACKED,
    status.ConfigStatus.ERROR: admin.ClientResourceStatus.NACKED,
    status.ConfigStatus.STALE: admin.ClientResourceStatus.REQUESTED,
    status.ConfigStatus.NOT_SENT: admin.ClientResourceStatus.REQUESTED,
}


class Unclear(Exception):
    """A question that cannot be answered, and why."""


class TooLong(Exception):
    """An answer of more bytes than are allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeState:
    """A subscription at one moment."""

    type_url: TypeUrl
    names: Set[str] | None  # None is all
    base: Resources
    target: Resources
    differs: Mapping[str, Resource | None]
    unanswered: Mapping[str, Resource]
    refused: Mapping[str, Refusal]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientState:
    """A client at one moment; *clock* added to the sessions' time is the world's."""

    node: Node
    clock: float
    types: tuple[TypeState, ...]


def observe(state: Subscription, target: Resources) -> TypeState:
    return TypeState(
        type_url=state.type_url,
        names=None if state.wildcard else frozenset(state.names),
        base=state.base,
        target=target,
        differs=dict(state.differs),
        unanswered={each.name: each for flight in state.flights for each in flight.changed},
        refused=dict(state.refused),
    )


# --- questions --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which clients a request is about: those that any of its matchers fits; all when it has none."""

    matchers: Sequence[matcher.NodeMatcher]
    contents: bool

    @classmethod
    def of(cls, data: bytes) -> Question:
        try:
            deque(fields(data), maxlen=0)  # betterproto2 reads over what it does not understand
            request = status.ClientStatusRequest.parse(data)
        except (Malformed, ValueError, EOFError, TypeError) as error:
            raise Unclear(f"not a client status request: {error}") from error
        return cls(matchers=request.node_matchers, contents=not request.exclude_resource_contents)

    def about(self, node: Node) -> bool:
        return not self.matchers or any(_fits(each, node) for each in self.matchers)


def _fits(wanted: matcher.NodeMatcher, node: Node) -> bool:
    if wanted.node_id is not None and not _matches(wanted.node_id, node.id):
        return False
    for each in wanted.node_metadatas:
        path = [segment.key for segment in each.path]
        if path != ["role"] or each.value is None or each.value.string_match is None:
            raise Unclear("of a node's metadata only role can be matched, with a stringMatch")
        if not _matches(each.value.string_match, node.role):
            return False
    return True


def _matches(wanted: matcher.StringMatcher, text: str) -> bool:
    if wanted.ignore_case:
        text = text.lower()

    def cased(value: str) -> str:
        return value.lower() if wanted.ignore_case else value

    if wanted.exact is not None:
        return text == cased(wanted.exact)
    if wanted.prefix is not None:
        return text.startswith(cased(wanted.prefix))
    if wanted.suffix is not None:
        return text.endswith(cased(wanted.suffix))
    if wanted.contains is not None:
        return cased(wanted.contains) in text
    raise Unclear("strings are matched by exact, prefix, suffix or contains")


# --- answers ----------------------------------------------------------------------------------------------


def answer(clients: Iterable[ClientState], question: Question, limit: int) -> Steps[bytes]:
    """The encoded response about *clients*, in steps, since it takes its time."""
    response, left = bytearray(), limit
    for client in clients:
        yield
        config = bytearray(encode(status.ClientConfig(node=_node(client.node))))
        for each in client.types:
            for number, found in enumerate(_type(each, client.clock, contents=question.contents)):
                if number % STEP == STEP - 1:
                    yield
                config += delimited(3, encode(found))
                if len(config) > left:
                    raise TooLong(
                        f"the answer is longer than {limit} bytes: match fewer nodes, or set "
                        "exclude_resource_contents"
                    )
        left -= len(config)
        response += delimited(1, bytes(config))
    return bytes(response)


def _node(node: Node) -> core.Node:
    metadata = protobuf.Struct(fields={"role": protobuf.Value(string_value=node.role)})
    return core.Node(id=node.id, cluster=node.cluster, metadata=metadata)


def _type(state: TypeState, clock: float, *, contents: bool) -> Iterator[status.ClientConfigGenericXdsConfig]:
    for name in sorted(_names(state)):
        have = state.differs[name] if name in state.differs else state.base.by_name.get(name)
        verdict, shown = _verdict(state, name, have)
        body = contents and shown and shown.body and state.type_url not in CONFIDENTIAL
        outcome = _OUTCOME[verdict]
        if shown is None and verdict is status.ConfigStatus.SYNCED:
            outcome = admin.ClientResourceStatus.DOES_NOT_EXIST
        yield status.ClientConfigGenericXdsConfig(
            type_url=state.type_url,
            name=name,
            version_info=shown.version if shown else "",
            xds_config=protobuf.Any(type_url=state.type_url, value=shown.body) if body and shown else None,
            config_status=verdict,
            client_status=outcome,
            error_state=_error(state.refused[name], clock) if verdict is status.ConfigStatus.ERROR else None,
        )


def _names(state: TypeState) -> Set[str]:
    if state.names is not None:
        return state.names
    return state.base.by_name.keys() | state.target.by_name.keys() | state.differs.keys()


def _verdict(
    state: TypeState, name: str, have: Resource | None
) -> tuple[status.ConfigStatus, Resource | None]:
    """How a resource stands with the client, and which version of it that is about."""
    want = state.target.by_name.get(name)
    if name in state.refused and want is not None and want.digest == state.refused[name].digest:
        return status.ConfigStatus.ERROR, want
    if name in state.unanswered:
        return status.ConfigStatus.STALE, state.unanswered[name]
    if have is None and want is not None:
        return status.ConfigStatus.NOT_SENT, want
    if have is not None and not have.body and want is not None and want.digest == have.digest:
        return status.ConfigStatus.SYNCED, want  # brought along from another connection
    return status.ConfigStatus.SYNCED, have


def _error(refusal: Refusal, clock: float) -> admin.UpdateFailureState:
    return admin.UpdateFailureState(
        details=normalise(refusal.message),
        version_info=f"{refusal.digest:016x}",
        last_update_attempt=datetime.fromtimestamp(refusal.at + clock, UTC),
    )
