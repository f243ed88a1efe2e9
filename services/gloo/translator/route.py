"""Routes: matchers and an action to Envoy's routes, one for each matcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from protos import gloo
from protos.envoy import core, grpc_json, route
from services.gloo import checks
from services.gloo.features.grpc_json import FILTER as TRANSCODER
from services.gloo.plugin import Policy, Reader, Scope
from services.gloo.translator.destination import Found, translate_action
from services.gloo.translator.forward_proxy import forward
from services.gloo.translator.match import DEFAULT, translate_matcher
from services.gloo.translator.names import FALLBACK_CLUSTER, route_name
from services.gloo.translator.patches import Joined, join_patches
from services.gloo.translator.supported import refuse_unread
from services.gloo.values import rewrite
from shared.report import Report

MAX_BODY = 4096  # of a direct response, unless the listener's routeOptions say otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is the same for all routes of a virtual host."""

    virtual_host: str
    routes: str  # the name of the route configuration
    read: Reader
    policy: Policy
    max_body: int = MAX_BODY
    host: gloo.VirtualHostOptions = field(default_factory=gloo.VirtualHostOptions)
    listener: gloo.HttpListenerOptions = field(default_factory=gloo.HttpListenerOptions)

    def scope(
        self, path: str, report: Report, matchers: Sequence[gloo.Matcher] = (), *, forwards: bool = True
    ) -> Scope:
        return Scope(
            path=path,
            report=report,
            policy=self.policy,
            read=self.read,
            matchers=matchers,
            forwards=forwards,
            host=self.host,
            listener=self.listener,
        )


def translate_route(
    given: gloo.Route, index: int, around: Surroundings, found: Found
) -> tuple[list[route.Route], Report]:
    """One of Envoy's routes for each valid matcher. With an error in the report they are not to be served."""
    report = Report()
    refuse_unread(given, report)
    matchers = given.matchers or [DEFAULT]
    scope = around.scope("options", report, matchers, forwards=given.route_action is not None)
    joined = join_patches("on_route", given.options, scope)
    action = translate_any_action(given, joined, around, report, found)
    found.clusters |= joined.clusters
    routes = []
    for i, each in enumerate(matchers):
        errors = len(report.errors)
        match = translate_matcher(each, f"matchers[{i}]", around.policy, report)
        if len(report.errors) == errors:
            out = route.Route(
                name=route_name(around.virtual_host, index, given.name, i), match=match, **action
            )
            joined.write(out)
            routes.append(out)
    return routes, report


def translate_any_action(
    given: gloo.Route, joined: Joined, around: Surroundings, report: Report, found: Found
) -> dict[str, Any]:
    if given.route_action is not None and given.route_action.dynamic_forward_proxy is not None:
        scope = around.scope("routeAction.dynamicForwardProxy", report)
        to, filters = forward(given.route_action.dynamic_forward_proxy, around.routes, scope)
        joined.filters.update(filters)
        found.clusters.add(to["cluster"])
        return {"route": route.RouteAction(**to, **joined.action)}
    if given.route_action is not None:
        scope = Scope(path="routeAction", report=report, policy=around.policy, read=around.read)
        to = translate_action(given.route_action, scope, found, joined.filters)
        check_rewrites(joined, report)
        return {"route": route.RouteAction(**to, **joined.action)}
    for option in joined.forwarding:
        report.warn(option, "has no effect on a route that answers by itself")
    if given.redirect_action is not None:
        return {"redirect": redirect(given.redirect_action, given, around.policy, report)}
    if given.direct_response_action is not None:
        return {"direct_response": direct_response(given.direct_response_action, around.max_body, report)}
    report.error("", "no action; one of routeAction, redirectAction, directResponseAction")
    return {}


def check_rewrites(joined: Joined, report: Report) -> None:
    """Where a request calls a method of gRPC, its path is no longer the one that it came with."""
    called = joined.filters.get(TRANSCODER)
    if isinstance(called, grpc_json.GrpcJsonTranscoder) and called.match_incoming_request_route:
        for option, field_name in (("prefixRewrite", "prefix_rewrite"), ("regexRewrite", "regex_rewrite")):
            if field_name in joined.action:
                report.error(f"options.{option}", "would rewrite the path of the gRPC method that is called")


def redirect(
    action: gloo.RedirectAction, given: gloo.Route, policy: Policy, report: Report
) -> route.RedirectAction:
    at = "redirectAction"
    if action.host_redirect and (problem := checks.authority(action.host_redirect)):
        report.error(f"{at}.hostRedirect", problem)
    for name, value in (("pathRedirect", action.path_redirect), ("prefixRewrite", action.prefix_rewrite)):
        if value is not None and (problem := checks.text_value(value, checks.MAX_PATH)):
            report.error(f"{at}.{name}", problem)
    if action.port_redirect is not None and (problem := checks.port(action.port_redirect)):
        report.error(f"{at}.portRedirect", problem)
    if action == gloo.RedirectAction(response_code=action.response_code):
        report.error(at, "says nothing of where to, so a request would be sent round in circles")
    scope = Scope(path=f"{at}.regexRewrite", report=report, policy=policy)
    if action.prefix_rewrite is not None and any(each.regex is not None for each in given.matchers):
        report.warn(f"{at}.prefixRewrite", "replaces the whole path, because the matcher is a regex")
    return route.RedirectAction(
        host_redirect=action.host_redirect,
        path_redirect=action.path_redirect,
        prefix_rewrite=action.prefix_rewrite,
        regex_rewrite=rewrite(action.regex_rewrite, scope) if action.regex_rewrite is not None else None,
        response_code=route.RedirectActionRedirectResponseCode(action.response_code),
        https_redirect=action.https_redirect or None,
        strip_query=action.strip_query,
        port_redirect=action.port_redirect or 0,
    )


def direct_response(
    action: gloo.DirectResponseAction, max_body: int, report: Report
) -> route.DirectResponseAction:
    at = "directResponseAction"
    if not 200 <= action.status <= 599:
        report.error(f"{at}.status", f"{action.status} is no status of an answer; 200 to 599")
    if (size := len(action.body.encode(errors="surrogatepass"))) > max_body:
        limit = "the listener's routeOptions.maxDirectResponseBodySizeBytes"
        report.error(f"{at}.body", f"{size} bytes; {max_body} are allowed ({limit})")
    body = core.DataSource(inline_string=action.body) if action.body else None
    return route.DirectResponseAction(status=action.status, body=body)


def fallback_route(broken: route.Route) -> route.Route:
    """The same match, answered by the fallback cluster."""
    return route.Route(
        name=broken.name, match=broken.match, route=route.RouteAction(cluster=FALLBACK_CLUSTER)
    )
