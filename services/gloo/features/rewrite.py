"""Rewrites: the path and the host that the upstream gets to see."""

from __future__ import annotations

from protos import gloo
from services.gloo import checks, values
from services.gloo.plugin import Feature, Patch, Scope


def rewrite_prefix(prefix: str, scope: Scope) -> Patch:
    if problem := checks.text_value(prefix, checks.MAX_PATH):
        scope.error("", problem)
    if not prefix:
        scope.warn("", "empty, so the path stays as it is; write / to strip the prefix")
        return Patch()
    if any(matcher.regex is not None for matcher in scope.matchers):
        scope.warn("", "replaces the whole path, because the matcher is a regex")
    return Patch(action={"prefix_rewrite": prefix})


def rewrite_path(rewrite: gloo.RegexMatchAndSubstitute, scope: Scope) -> Patch:
    if scope.options.prefix_rewrite:
        scope.error("", "contradicts prefixRewrite; one of the two")
    return Patch(action={"regex_rewrite": values.rewrite(rewrite, scope)})


def rewrite_host(host: str, scope: Scope) -> Patch:
    if not host:
        scope.warn("", "empty, so the host stays as it is")
        return Patch()
    if problem := checks.authority(host):
        scope.error("", problem)
    return Patch(action={"host_rewrite_literal": host})


def rewrite_host_to_upstreams(wanted: bool, scope: Scope) -> Patch:
    return Patch(action={"auto_host_rewrite": wanted})


def rewrite_host_from_path(rewrite: gloo.RegexMatchAndSubstitute, scope: Scope) -> Patch:
    return Patch(action={"host_rewrite_path_regex": values.rewrite(rewrite, scope)})


def rewrite_host_from_header(header: str, scope: Scope) -> Patch:
    if problem := checks.header_name(header):
        scope.error("", problem)
    return Patch(action={"host_rewrite_header": header})


def keep_host(wanted: bool, scope: Scope) -> Patch:
    options = scope.options
    rewrites = (options.host_rewrite, options.host_rewrite_path_regex, options.host_rewrite_header)
    if wanted and not options.auto_host_rewrite and all(each is None for each in rewrites):
        scope.warn("", "has no effect, for the host is not rewritten")
    return Patch(action={"append_x_forwarded_host": wanted})


FEATURES = (
    Feature(name="prefixRewrite", on_route=rewrite_prefix),
    Feature(name="regexRewrite", on_route=rewrite_path),
    Feature(name="hostRewrite", on_route=rewrite_host),
    Feature(name="autoHostRewrite", on_route=rewrite_host_to_upstreams),
    Feature(name="hostRewritePathRegex", on_route=rewrite_host_from_path),
    Feature(name="hostRewriteHeader", on_route=rewrite_host_from_header),
    Feature(name="appendXForwardedHost", on_route=keep_host),
)
