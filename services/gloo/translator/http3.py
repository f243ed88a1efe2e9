"""HTTP/3: a listener of UDP beside one of TCP, with its routes, filters and certificates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from protos import gloo
from protos.envoy import core, hcm, listener, quic, tls
from services.gloo.features.http3 import told
from services.gloo.plugin import Scope
from services.gloo.translator.addresses import address_of
from services.gloo.translator.filter_chains import Chain
from services.gloo.translator.names import http3_name
from services.gloo.translator.patches import Joined
from services.gloo.translator.ssl import NEWEST
from shared.codec.encode import pack

QUIC = "envoy.transport_sockets.quic"
PROTOCOLS = ["h3"]
KEPT = ("access_log", "per_connection_buffer_limit_bytes")  # the other options are about TCP


def usable(given: gloo.Listener, chains: Sequence[Chain], joined: Joined, scope: Scope) -> list[Chain]:
    """Those of *chains* that go over HTTP/3, if it is wanted; then *joined* has all answers tell of it.

    *scope* is that of the HTTP listener.
    """
    http = given.http_listener
    wanted = http.options.http3 if http is not None and http.options is not None else None
    if wanted is None or http is None or not http.virtual_hosts:
        return []
    if not given.ssl_configurations:
        scope.error("options.http3", "needs TLS, which it is never without; give the hosts an sslConfig")
    if given.use_proxy_proto or (given.options is not None and given.options.proxy_protocol is not None):
        scope.warn("options.http3", "knows no PROXY protocol: clients' addresses are those of connections")
    found = [chain for chain in chains if allows_tls_1_3(chain.context)]
    if found:
        joined.add(told(wanted, given.bind_port))
    elif chains:
        scope.warn("options.http3", "has no effect, since no sslConfig allows TLS 1.3")
    return found


def speaking(joined: Joined) -> Joined:
    """What *joined* says to a connection manager, for one that speaks HTTP/3."""
    own = {
        "codec_type": hcm.HttpConnectionManagerCodecType.HTTP3,
        "http3_protocol_options": core.Http3ProtocolOptions(),
    }
    return replace(joined, fields=joined.fields | own)


def beside(
    given: gloo.Listener, frame: Joined, chains: Iterable[Chain], filters: Sequence[listener.Filter]
) -> listener.Listener:
    """The listener of HTTP/3; *filters* are those of its connections."""
    built = [with_quic(chain, filters) for chain in chains]
    datagrams = core.UdpSocketConfig(prefer_gro=True)
    out = listener.Listener(
        name=http3_name(given.name),
        address=address_of(given, core.SocketAddressProtocol.UDP),
        udp_listener_config=listener.UdpListenerConfig(
            downstream_socket_config=datagrams, quic_options=listener.QuicProtocolOptions()
        ),
        filter_chains=sorted(built, key=lambda chain: chain.name),
    )
    replace(frame, fields={name: frame.fields[name] for name in KEPT if name in frame.fields}).write(out)
    return out


def with_quic(chain: Chain, filters: Sequence[listener.Filter]) -> listener.FilterChain:
    """*chain* over QUIC, without data before the handshake (0-RTT): anybody could send those again."""
    common = chain.context.common_tls_context or tls.CommonTlsContext()
    context = replace(chain.context, common_tls_context=replace(common, alpn_protocols=PROTOCOLS))
    transport = quic.QuicDownstreamTransport(downstream_tls_context=context, enable_early_data=False)
    out = chain.build(filters)
    out.transport_socket = core.TransportSocket(name=QUIC, typed_config=pack(transport))
    return out


def allows_tls_1_3(context: tls.DownstreamTlsContext) -> bool:
    common = context.common_tls_context
    parameters = common.tls_params if common is not None else None
    newest = parameters.tls_maximum_protocol_version if parameters is not None else 0
    return newest in (0, tls.TlsParametersTlsProtocol(NEWEST))
