"""Transformations: requests and answers changed by templates, in a Lua filter for each stage.

The filters' code is the same everywhere and stands in the listeners; a route's configuration is data for it.
That of the last stage stands behind the router, which sends a request through it once for each try.
"""

from __future__ import annotations

from typing import Any

import betterproto2

from protos import gloo
from protos.envoy import core, lua, route
from services.gloo.plugin import ALL, Feature, NamedFilter, Patch, Scope, Stage, within
from services.gloo.transformations import source
from services.gloo.transformations.programs import DETAILS, Data, plain_program, stage_program, to_json
from services.gloo.translator.scripts import Script, script
from shared.codec.wellknown import struct_of

RUNTIME = source("json.lua", "runtime.lua")
EARLY, REGULAR = "gloo.transformation.early", "gloo.transformation.regular"
POST_ROUTING = "gloo.transformation.post_routing"
OFF = route.FilterConfig(disabled=True)
TELL_DETAILS = core.HeaderValueOption(
    header=core.HeaderValue(key=DETAILS, value="%RESPONSE_CODE_DETAILS%"),
    append_action=core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
)


def transform_in_stages(staged: gloo.TransformationStages, scope: Scope) -> Patch:
    """The innermost options count alone: a stage they say nothing of is off, whatever those around say.

    Envoy decides which filters a request passes by its first route; so where another route may be chosen
    after the early stage, the regular filter only has nothing to do.
    """
    filters: dict[str, betterproto2.Message] = {EARLY: OFF, POST_ROUTING: OFF}
    if scope.options.transformations is None:
        early = staged.early or gloo.RequestResponseTransformations()
        leaves = any(each.clear_route_cache for each in early.request_transforms)
        filters[REGULAR] = per_route({}) if leaves else OFF
    stages = (
        (EARLY, "early", staged.early),
        (REGULAR, "regular", staged.regular),
        (POST_ROUTING, "postRouting", staged.post_routing),
    )
    programs = {
        name: stage_program(stage, bool(staged.escape_characters), within(scope, at))
        for name, at, stage in stages
        if stage is not None
    }
    fields: dict[str, Any] = {}
    if asking := [name for name, _, stage in stages[:2] if stage is not None and asks_for_details(stage)]:
        programs[asking[0]]["hide"] = DETAILS  # the last on an answer's way
        fields = {"response_headers_to_add": [TELL_DETAILS]}
    filters |= {name: per_route(program) for name, program in programs.items()}
    if staged.post_routing is not None:
        check_post_routing(staged.post_routing, within(scope, "postRouting"))
    return Patch(fields=fields, filters=filters)


def asks_for_details(stage: gloo.RequestResponseTransformations) -> bool:
    return any(each.response_code_details for each in stage.response_transforms)


def check_post_routing(stage: gloo.RequestResponseTransformations, scope: Scope) -> None:
    """Behind the router the route is chosen, and nothing is known yet of how the answer comes about."""
    for i, request in enumerate(stage.request_transforms):
        if request.clear_route_cache:
            scope.error(f"requestTransforms[{i}].clearRouteCache", "too late to choose a route")
    for i, answer in enumerate(stage.response_transforms):
        if answer.response_code_details:
            scope.error(
                f"responseTransforms[{i}].responseCodeDetails", "not known there; use regular or early"
            )


def transform(given: gloo.Transformations, scope: Scope) -> Patch:
    """The older option, for the regular stage."""
    others = {} if scope.options.staged_transformations else {EARLY: OFF, POST_ROUTING: OFF}
    return Patch(filters={**others, REGULAR: per_route(plain_program(given, scope))})


def per_route(program: Data) -> lua.LuaPerRoute:
    return lua.LuaPerRoute(filter_context=struct_of({"program": to_json(program)}))


def runtime(name: str) -> Script:
    """The filter *name*, which is also where it keeps what its answers need."""
    return script(name, f'local FILTER = "{name}"\n{RUNTIME}')


SCRIPTS = {name: runtime(name) for name in (EARLY, REGULAR, POST_ROUTING)}


READS = {
    "TransformationStages": ("early", "regular", "postRouting", "escapeCharacters"),
    "RequestResponseTransformations": ALL,
    "RequestMatch": ALL,
    "ResponseMatch": ALL,
    "Transformations": ALL,
    "Transformation": ("transformationTemplate", "headerBodyTransform"),
    "TransformationTemplate": (
        *("advancedTemplates", "extractors", "headers", "headersToAppend", "headersToRemove", "body"),
        *("passthrough", "mergeExtractorsToBody", "mergeJsonKeys", "parseBodyBehavior", "ignoreErrorOnParse"),
        *("dynamicMetadataValues", "escapeCharacters"),
    ),
    "TransformationTemplate.HeaderToAppend": ALL,
    "TransformationTemplate.DynamicMetadataValue": ALL,
    "Extraction": ALL,
    "InjaTemplate": ALL,
    "Passthrough": ALL,
    "MergeExtractorsToBody": ALL,
    "MergeJsonKeys": ALL,
    "MergeJsonKeys.OverridableTemplate": ALL,
    "HeaderBodyTransform": ALL,
}
FEATURES = (
    Feature(
        name="stagedTransformations",
        reads=READS,
        on_route=transform_in_stages,
        on_virtual_host=transform_in_stages,
        on_destination=transform_in_stages,
        filter=NamedFilter(name=EARLY, stage=Stage.FAULT, weight=1),
    ),
    Feature(
        name="transformations",
        on_route=transform,
        on_virtual_host=transform,
        on_destination=transform,
        filter=NamedFilter(name=REGULAR, stage=Stage.AUTHZ, weight=1),
    ),
)
