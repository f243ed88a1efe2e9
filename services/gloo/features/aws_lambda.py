"""AWS Lambda: functions as upstreams, by filters that every Envoy has.

The cluster is AWS's API, where a call is a POST. Behind the router every request to it is made the call that
its route asks for, and signed; one that no route made a call is answered there. So nothing else is ever
signed, whatever leads to the cluster. In front of the router a listener's filter makes the event and the
answer where a route wants that, once for all tries.
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import SplitResult, quote, urlsplit

import betterproto2

from protos import gloo
from protos.envoy import core, hcm, lua
from services.gloo import checks
from services.gloo.features.router import BEHIND
from services.gloo.plugin import Feature, NamedFilter, Patch, Scope, Stage, within
from services.gloo.transformations import source
from services.gloo.translator.names import ref_of
from services.gloo.translator.scripts import script
from services.gloo.translator.secret import (
    SIGNING_FILTER,
    look_up_key,
    signed_by,
    signing_filter,
    signing_name,
)
from shared.codec.encode import pack
from shared.codec.wellknown import struct_of

FILTER = "gloo.lambda"
CALL = "gloo.lambda.call"
REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")
FUNCTION = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.:$-]{1,170}")
QUALIFIER = re.compile(r"[A-Za-z0-9_$-]{1,128}")
ACCOUNT = re.compile(r"[0-9]{12}")
REQUIRED = "required"
NO_KEY = "required, unless settings.gloo.awsOptions.enableCredentialsDiscovey has Envoy look for a key"


def check(spec: gloo.AwsUpstreamSpec, scope: Scope) -> Patch:
    """The filters behind the router: those of all upstreams, the call, its signature."""
    if not REGION.fullmatch(spec.region):
        scope.error("region", f"{checks.shown(spec.region)} is no region" if spec.region else REQUIRED)
    if spec.aws_account_id and not ACCOUNT.fullmatch(spec.aws_account_id):
        scope.error("awsAccountId", f"{checks.shown(spec.aws_account_id)} is no account: 12 digits")
    names = set[str]()
    for i, each in enumerate(spec.lambda_functions):
        check_function(each, within(scope, f"lambdaFunctions[{i}]"), names)
    if spec.destination_overrides is not None and spec.destination_overrides.logical_name:
        scope.error("destinationOverrides.logicalName", "goes with a route; it says which function is called")
    *others, codec = BEHIND
    return Patch(protocol={"http_filters": [*others, CALLING, *signature(spec, scope), codec]})


def check_function(given: gloo.LambdaFunctionSpec, scope: Scope, names: set[str]) -> None:
    if not given.logical_name:
        scope.error("logicalName", REQUIRED)
    elif given.logical_name in names:
        scope.error("logicalName", f"{checks.shown(given.logical_name)} is another function's, too")
    names.add(given.logical_name)
    for name, value, pattern in (
        ("lambdaFunctionName", given.lambda_function_name, FUNCTION),
        ("qualifier", given.qualifier or "1", QUALIFIER),
    ):
        if not pattern.fullmatch(value):
            scope.error(name, f"{checks.shown(value)} is none that AWS takes" if value else REQUIRED)


def signature(spec: gloo.AwsUpstreamSpec, scope: Scope) -> list[hcm.HttpFilter]:
    """The filter that signs: by its name where the key is a Secret, which may change."""
    host = endpoint_of(spec, scope).netloc
    if spec.secret_ref is not None:
        ref = look_up_key(spec.secret_ref, scope)
        return [signed_by(signing_name(ref, spec.region, host))] if ref is not None else []
    if not scope.policy.aws.enable_credentials_discovey:
        scope.error("secretRef", NO_KEY)
    return [hcm.HttpFilter(name=SIGNING_FILTER, typed_config=pack(signing_filter(spec.region, host)))]


def endpoint_of(spec: gloo.AwsUpstreamSpec, scope: Scope) -> SplitResult:
    """Where functions of the region are called; AWS's own endpoint in place of one that cannot be."""
    region = spec.region if REGION.fullmatch(spec.region) else "none"
    china = ".cn" if region.startswith("cn-") else ""
    given = parse_endpoint(scope.policy.aws.lambda_endpoint.replace("{region}", region))
    return given or urlsplit(f"https://lambda.{region}.amazonaws.com{china}")


def parse_endpoint(given: str) -> SplitResult | None:
    """A scheme, a host and perhaps a port, None for anything else."""
    try:
        found = urlsplit(given)
        port = found.port or 443
    except ValueError:
        return None
    beside = found.username is not None or found.path.strip("/") or found.query or found.fragment
    wrong = beside or checks.host_name(found.hostname or "") or checks.port(port)
    return None if wrong or found.scheme not in ("http", "https") else found


def as_static(upstream: gloo.Upstream, spec: gloo.AwsUpstreamSpec, scope: Scope) -> gloo.Upstream:
    """The Upstream as one whose only host is AWS's API."""
    found, given = endpoint_of(spec, scope), scope.policy.aws.lambda_endpoint
    if given and parse_endpoint(given.replace("{region}", "none")) is None:
        text = "needs http:// or https:// and a host, with a port if need be"
        replace(scope, path="settings.gloo.awsOptions").error("lambdaEndpoint", text)
    secure = found.scheme == "https"
    host = gloo.StaticHost(addr=found.hostname or "", port=found.port or (443 if secure else 80))
    return replace(upstream, static=gloo.StaticUpstreamSpec(hosts=[host], use_tls=secure))


def filters_to(to: gloo.Destination, scope: Scope) -> dict[str, betterproto2.Message] | None:
    """The filters that have requests to a destination call a function; None where there are none to call."""
    wanted = to.destination_spec.aws if to.destination_spec is not None else None
    upstream = scope.read("Upstream", ref_of(to.upstream)) if to.upstream is not None else None
    if upstream is not None and upstream.aws is not None:
        return call(wanted, upstream.aws, scope)
    if wanted is not None and (upstream is not None or to.upstream is None):
        scope.error("destinationSpec.aws", "goes with an upstream of functions: aws")
    return None if wanted is None else {}


def call(
    given: gloo.AwsDestinationSpec | None, spec: gloo.AwsUpstreamSpec, scope: Scope
) -> dict[str, betterproto2.Message]:
    """The settings of both filters that make a route's requests calls of a function."""
    wanted = given or gloo.AwsDestinationSpec()
    common = spec.destination_overrides or gloo.AwsDestinationSpec()
    function = function_of(wanted.logical_name, spec, scope)
    if function is None:
        return {}
    name = function.lambda_function_name
    if spec.aws_account_id and not name.startswith("arn:"):
        name = f"{spec.aws_account_id}:function:{name}"
    question = f"?Qualifier={quote(function.qualifier)}" if function.qualifier else ""
    later = gloo.AwsDestinationSpecInvocationStyle.ASYNC in (wanted.invocation_style, common.invocation_style)
    terms = {
        "path": f"/2015-03-31/functions/{name}/invocations{question}",
        "type": "Event" if later else "RequestResponse",
    }
    either = (wanted, common)
    changes = {
        "wrap": any(each.request_transformation for each in either),
        "unwrap": any(
            each.response_transformation or each.unwrap_as_alb or each.unwrap_as_api_gateway
            for each in either
        ),
        "originals": bool(scope.policy.aws.propagate_original_routing),
    }
    return {
        FILTER: lua.LuaPerRoute(filter_context=struct_of({name: True for name, on in changes.items() if on})),
        CALL: lua.LuaPerRoute(filter_context=struct_of(terms)),
    }


def function_of(name: str, spec: gloo.AwsUpstreamSpec, scope: Scope) -> gloo.LambdaFunctionSpec | None:
    known = {each.logical_name: each for each in spec.lambda_functions}
    if not name and scope.policy.aws.fallback_to_first_function and known:
        return spec.lambda_functions[0]
    if name not in known:
        problem = f"the upstream has no function {checks.shown(name)}" if name else REQUIRED
        names = ", ".join(sorted(known)) or "none"
        scope.error("destinationSpec.aws.logicalName", f"{problem}; its functions are {names}")
    return known.get(name)


SCRIPTS = {FILTER: script(FILTER, source("json.lua", "lambda.lua"))}
CALLING = hcm.HttpFilter(
    name=CALL,
    typed_config=pack(
        lua.Lua(
            default_source_code=core.DataSource(inline_string=source("lambda_call.lua")),
            clear_route_cache=False,
        )
    ),
)
FEATURES = (
    Feature(
        name="aws",
        reads={
            "AwsUpstreamSpec": (
                "region",
                "secretRef",
                "lambdaFunctions",
                "awsAccountId",
                "destinationOverrides",
            ),
            "LambdaFunctionSpec": ("logicalName", "lambdaFunctionName", "qualifier"),
            "AwsDestinationSpec": (
                *("logicalName", "invocationStyle", "requestTransformation", "responseTransformation"),
                *("unwrapAsAlb", "unwrapAsApiGateway"),
            ),
        },
        on_upstream=check,
        filter=NamedFilter(name=FILTER, stage=Stage.OUT_AUTH),
    ),
)
