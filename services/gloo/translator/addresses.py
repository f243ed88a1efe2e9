"""Where listeners listen: an address and a port, of TCP or of UDP; and which get in each other's way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address, ip_address

from protos import gloo
from protos.envoy import core
from services.gloo import checks
from services.gloo.translator.names import http3_name

TCP, UDP = core.SocketAddressProtocol.TCP, core.SocketAddressProtocol.UDP
ANY_IPV6 = IPv6Address("::")

Bound = tuple[core.SocketAddressProtocol, str, int]


def address_of(given: gloo.Listener, protocol: core.SocketAddressProtocol = TCP) -> core.Address:
    """The address of all that is IPv6 takes IPv4, too."""
    address = given.bind_address
    return core.Address(
        socket_address=core.SocketAddress(
            protocol=protocol,
            address=address,
            port_value=given.bind_port,
            ipv4_compat=checks.is_ip(address) and ip_address(address) == ANY_IPV6,
        )
    )


def served_by(given: gloo.Listener) -> Iterator[tuple[str, Bound]]:
    """Envoy's listeners that one of ours comes to: their names, and what they bind."""
    protocol = TCP if given.udp_listener is None else UDP
    yield given.name, (protocol, given.bind_address, given.bind_port)
    http = given.http_listener
    if http is not None and http.options is not None and http.options.http3 is not None:
        yield http3_name(given.name), (UDP, given.bind_address, given.bind_port)


def listener_conflicts(listeners: Sequence[gloo.Listener]) -> dict[int, str]:
    """The listeners of a Proxy that clash with an earlier one, by index, and why."""
    names: set[str] = set()
    holders: dict[Bound, str] = {}
    problems: dict[int, list[str]] = defaultdict(list)
    for i, each in enumerate(listeners):
        for name, bound in served_by(each):
            protocol, address, port = bound
            if name in names:
                problems[i].append(f"another listener is named {name}, too")
            if bound in holders:
                of_udp = " of UDP" if protocol is UDP else ""
                problems[i].append(f"listener {holders[bound]} already binds {address} port {port}{of_udp}")
        if i not in problems:
            names.update(name for name, _ in served_by(each))
            holders.update((bound, each.name) for _, bound in served_by(each))
    return {i: "; ".join(texts) for i, texts in problems.items()}
