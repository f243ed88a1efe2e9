"""External authorization: a service of the user's own is asked whether a request may pass.

Nothing is asked unless a virtual host, route or destination says so. Each service has a filter in the
listeners; who says that it is to be asked switches that on, and with it the guard behind them, which lets
pass only what was put to that service. So nothing passes while there is no such service, nor in the moment
in which a listener has lost it and its routes do not know yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import betterproto2

from protos import gloo
from protos.envoy import (
    core,
    early_headers,
    envoy_type,
    ext_authz,
    fault,
    lua,
    matcher,
    mutation_rules,
    route,
)
from services.gloo import checks
from services.gloo.features.asked_services import asked_cluster, asked_over_grpc, patience
from services.gloo.features.connection_manager import EARLY
from services.gloo.plugin import ALL, Feature, HttpFilter, NamedFilter, Patch, Scope, Stage, within
from services.gloo.translator.scripts import script
from services.gloo.values import regex_matcher
from shared.codec.encode import pack
from shared.codec.wellknown import struct_of

FILTER = "envoy.filters.http.ext_authz"
GUARD = "gloo.extauth-guard"
SERVER = "extauthzServerRef"
TIMEOUT = timedelta(milliseconds=200)
MAX_BODY = 4096
MAX_STAT_PREFIX = 255
URI = "http://not-used.example.com/"  # Envoy wants one, and asks the cluster
STATUSES = frozenset(status.value for status in envoy_type.StatusCode if status.value >= 200)
OFF = route.FilterConfig(disabled=True)
GUARDING = """\
-- The filter that the context names must have asked; it leaves behind how long that took.
function envoy_on_request(handle)
  local filter = handle:filterContext():get("asked")
  if filter and not handle:streamInfo():filterState():get(filter, "latency_us") then
    handle:respond({ [":status"] = "403" }, "")
  end
end
"""


def closed() -> fault.HttpFault:
    """Lets nothing pass."""
    share = envoy_type.FractionalPercent(numerator=100)
    return fault.HttpFault(abort=fault.FaultAbort(http_status=403, percentage=share))


SCRIPTS = {GUARD: script(GUARD, GUARDING, without=pack(closed()))}


def filter_of(service: str) -> str:
    """The filter that asks a service of ``settings.namedExtauth``, or the one without a name."""
    return f"gloo.extauth.{service}" if service else FILTER


def stand_ready(_: gloo.ExtAuthSettings, scope: Scope) -> Patch:
    """A filter for each service; what clients send in the headers that services set is not theirs to say."""
    found = list(services(scope))
    filters = tuple(
        HttpFilter(name=name, stage=Stage.AUTHN, config=translate(given, at)) for name, given, at in found
    )
    headers = sorted({given.user_id_header.lower() for _, given, _ in found if given.user_id_header})
    return Patch(waiting=filters, fields={"early_header_mutation_extensions": without(headers)})


def services(scope: Scope) -> Iterator[tuple[str, gloo.ExtAuthSettings, Scope]]:
    """Each service that a listener's requests may be put to: its filter, and where it is set."""
    own, policy = scope.options.extauth, scope.policy
    if own is not None:
        yield FILTER, own, scope
    elif policy.extauth is not None:
        yield FILTER, policy.extauth, replace(scope, path="settings.extauth")
    if "" in policy.named_extauth:
        replace(scope, path="settings.namedExtauth").error("", "a service without a name")
    for name, given in sorted(policy.named_extauth.items()):
        yield filter_of(name), given, replace(scope, path=f"settings.namedExtauth[{name}]")


def without(headers: Sequence[str]) -> list[core.TypedExtensionConfig]:
    if not headers:
        return []
    gone = [mutation_rules.HeaderMutation(remove=header) for header in headers]
    return [
        core.TypedExtensionConfig(name=EARLY, typed_config=pack(early_headers.HeaderMutation(mutations=gone)))
    ]


def translate(given: gloo.ExtAuthSettings, scope: Scope) -> ext_authz.ExtAuthz:
    if given.user_id_header and (problem := checks.mutable_header(given.user_id_header)):
        scope.error("userIdHeader", problem)
    if problem := checks.text_value(given.stat_prefix, MAX_STAT_PREFIX):
        scope.error("statPrefix", problem)
    timeout = patience(given.request_timeout, TIMEOUT, scope)
    out = ext_authz.ExtAuthz(
        transport_api_version=core.ApiVersion.V3,
        failure_mode_allow=given.failure_mode_allow,
        with_request_body=with_body(given.request_body),
        clear_route_cache=given.clear_route_cache,
        status_on_error=status_on_error(given.status_on_error, scope),
        stat_prefix=given.stat_prefix,
        emit_filter_state_stats=True,  # for the guard
    )
    if given.http_service is not None:
        cluster = asked_cluster(given.extauthz_server_ref, SERVER, scope, grpc=False)
        if given.request_body is not None and given.request_body.pack_as_bytes is not None:
            scope.warn("requestBody.packAsBytes", "has no effect over HTTP; a body is sent as it is")
        to = core.HttpUri(uri=URI, cluster=cluster, timeout=timeout)
        at = within(scope, "httpService")
        out.http_service = over_http(given.http_service, to, given.user_id_header.lower(), at)
        if given.http_service.request is not None:
            out.allowed_headers = headers_shown(given.http_service.request, within(at, "request"))
    else:
        authority = given.grpc_service.authority if given.grpc_service is not None else ""
        out.grpc_service = asked_over_grpc(given.extauthz_server_ref, SERVER, authority, timeout, scope)
    return out


def with_body(given: gloo.ExtAuthSettingsBufferSettings | None) -> ext_authz.BufferSettings | None:
    if given is None:
        return None
    return ext_authz.BufferSettings(
        max_request_bytes=given.max_request_bytes or MAX_BODY,
        allow_partial_message=given.allow_partial_message,
        pack_as_bytes=bool(given.pack_as_bytes),
    )


def status_on_error(code: int, scope: Scope) -> envoy_type.HttpStatus | None:
    if not code:
        return None
    if code not in STATUSES:
        scope.error("statusOnError", f"{code} is no status that Envoy answers with, such as 403 or 503")
        return None
    return envoy_type.HttpStatus(code=envoy_type.StatusCode(code))


def over_http(
    given: gloo.ExtAuthSettingsHttpService, to: core.HttpUri, user: str, scope: Scope
) -> ext_authz.HttpService:
    prefix = given.path_prefix.rstrip("/")
    if problem := checks.text_value(prefix, checks.MAX_PATH):
        scope.error("pathPrefix", problem)
    elif prefix and not prefix.startswith("/"):
        scope.error("pathPrefix", f"{checks.shown(prefix)} must begin with /")
    request = given.request or gloo.ExtAuthSettingsHttpServiceRequest()
    response = given.response or gloo.ExtAuthSettingsHttpServiceResponse()
    at = within(scope, "response")
    return ext_authz.HttpService(
        server_uri=to,
        path_prefix=prefix,
        authorization_request=ext_authz.AuthorizationRequest(
            headers_to_add=added(request.headers_to_add, within(scope, "request.headersToAdd"))
        ),
        authorization_response=ext_authz.AuthorizationResponse(
            allowed_upstream_headers=names(
                [*response.allowed_upstream_headers, *([user] if user else [])], "allowedUpstreamHeaders", at
            ),
            allowed_upstream_headers_to_append=names(
                response.allowed_upstream_headers_to_append, "allowedUpstreamHeadersToAppend", at
            ),
            allowed_client_headers=names(response.allowed_client_headers, "allowedClientHeaders", at),
        ),
    )


def added(given: dict[str, str], scope: Scope) -> list[core.HeaderValue]:
    for name, value in given.items():
        if problem := checks.mutable_header(name) or checks.format_string(value):
            scope.error(name, problem)
    return [core.HeaderValue(key=name.lower(), value=given[name]) for name in sorted(given)]


def headers_shown(
    given: gloo.ExtAuthSettingsHttpServiceRequest, scope: Scope
) -> matcher.ListStringMatcher | None:
    found = names(given.allowed_headers, "allowedHeaders", scope)
    patterns = found.patterns if found is not None else []
    for i, pattern in enumerate(given.allowed_headers_regex):
        regex = regex_matcher(pattern, f"allowedHeadersRegex[{i}]", scope)
        patterns.append(matcher.StringMatcher(safe_regex=regex))
    return matcher.ListStringMatcher(patterns=patterns) if patterns else None


def names(given: Sequence[str], where: str, scope: Scope) -> matcher.ListStringMatcher | None:
    for i, name in enumerate(given):
        if problem := checks.header_name(name):
            scope.error(f"{where}[{i}]", problem)
    patterns = [matcher.StringMatcher(exact=name.lower()) for name in given]
    return matcher.ListStringMatcher(patterns=patterns) if patterns else None


def authorize_here(given: gloo.ExtAuthExtension, scope: Scope) -> Patch:
    """Authorization on a virtual host or route, of which the listener is known."""
    nothing = scope.listener.extauth is None and scope.policy.extauth is None
    if given.custom_auth is not None and not given.custom_auth.name and nothing:
        scope.warn("customAuth", "no service to ask (settings.extauth), so requests are refused")
    return authorize(given, scope)


def authorize(given: gloo.ExtAuthExtension, scope: Scope) -> Patch:
    """Which of the services is asked; the others are not, whatever stands around."""
    if not says_something(given):
        return Patch()
    known = scope.policy.named_extauth
    filters: dict[str, betterproto2.Message] = dict.fromkeys((FILTER, *map(filter_of, sorted(known))), OFF)
    if (custom := given.custom_auth) is None:
        return Patch(filters={**filters, GUARD: guard("")})
    if custom.name and custom.name not in known:
        text = f"settings.namedExtauth has no {checks.shown(custom.name)}, so requests are refused"
        scope.warn("customAuth.name", text)
    chosen = filter_of(custom.name)
    facts = ext_authz.CheckSettings(context_extensions=dict(custom.context_extensions))
    filters[chosen] = ext_authz.ExtAuthzPerRoute(check_settings=facts)
    filters[GUARD] = guard(chosen)
    return Patch(filters=filters)


def guard_what_leaves(staged: gloo.TransformationStages, scope: Scope) -> Patch:
    """Envoy decides which filters a request passes by its first route. One led to another route before
    authorization comes there unasked, so the guard goes with it, to do as that route says."""
    early = staged.early.request_transforms if staged.early is not None else []
    if says_something(scope.options.extauth) or not any(each.clear_route_cache for each in early):
        return Patch()
    return Patch(filters={GUARD: guard("")})


def says_something(given: gloo.ExtAuthExtension | None) -> bool:
    return given is not None and (given.disable or given.custom_auth is not None)


def guard(asked: str) -> lua.LuaPerRoute:
    """The guard of what was put to the filter *asked*, or of nothing."""
    return lua.LuaPerRoute(filter_context=struct_of({"asked": asked} if asked else {}))


FEATURES = (
    Feature(
        name="extauth",
        reads={
            "ExtAuthSettings": ALL,
            "ExtAuthSettings.HttpService": ALL,
            "ExtAuthSettings.HttpService.Request": ALL,
            "ExtAuthSettings.HttpService.Response": ALL,
            "ExtAuthSettings.GrpcService": ALL,
            "ExtAuthSettings.BufferSettings": ALL,
        },
        default=lambda _: gloo.ExtAuthSettings(),  # there may be services of the settings
        on_listener=stand_ready,
    ),
    Feature(
        name="extauth",
        reads={"ExtAuthExtension": ("disable", "customAuth"), "CustomAuth": ALL},
        looks_at={"HttpListenerOptions": ("extauth",)},
        on_virtual_host=authorize_here,
        on_route=authorize_here,
        on_destination=authorize,
        filter=NamedFilter(name=GUARD, stage=Stage.AUTHN, weight=1),
    ),
    Feature(
        name="stagedTransformations",
        on_virtual_host=guard_what_leaves,
        on_route=guard_what_leaves,
        on_destination=guard_what_leaves,
    ),
)
