"""Transformations: requests and answers changed by templates, in a Lua filter for each stage.

The filters' code is the same everywhere and stands in the listeners; a route's configuration is data for it.
That of the last stage stands behind the router, which sends a request through it once for each try.
"""

from __future__ import annotations

import betterproto2

from protos import gloo
from protos.envoy import lua, route
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage, within
from services.gloo.transformations import source
from services.gloo.transformations.programs import Data, plain_program, stage_program, to_json
from services.gloo.translator.scripts import Script, script, script_filter
from shared.codec.wellknown import struct_of

RUNTIME = source("json.lua", "runtime.lua")
EARLY, REGULAR = "gloo.transformation.early", "gloo.transformation.regular"
POST_ROUTING = "gloo.transformation.post_routing"
OFF = route.FilterConfig(disabled=True)


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
    for name, at, stage in (
        (EARLY, "early", staged.early),
        (REGULAR, "regular", staged.regular),
        (POST_ROUTING, "postRouting", staged.post_routing),
    ):
        if stage is not None:
            filters[name] = per_route(stage_program(stage, bool(staged.escape_characters), within(scope, at)))
    if staged.post_routing is not None:
        for i, each in enumerate(staged.post_routing.request_transforms):
            if each.clear_route_cache:
                scope.error(
                    f"postRouting.requestTransforms[{i}].clearRouteCache", "too late to choose a route"
                )
    return Patch(filters=filters)


def transform(given: gloo.Transformations, scope: Scope) -> Patch:
    """The older option, for the regular stage."""
    others = {} if scope.options.staged_transformations else {EARLY: OFF, POST_ROUTING: OFF}
    return Patch(filters={**others, REGULAR: per_route(plain_program(given, scope))})


def per_route(program: Data) -> lua.LuaPerRoute:
    return lua.LuaPerRoute(filter_context=struct_of({"program": to_json(program)}))


def waiting_filter(name: str, stage: Stage) -> HttpFilter:
    """The filter of a stage."""
    return HttpFilter(name=name, stage=stage, weight=1, config=lua.Lua())


def runtime(name: str) -> Script:
    """The filter *name*, which is also where it keeps what its answers need."""
    return script(name, f'local FILTER = "{name}"\n{RUNTIME}')


SCRIPTS = {name: runtime(name) for name in (EARLY, REGULAR, POST_ROUTING)}
BEHIND_ROUTER = script_filter(POST_ROUTING)


READS = {
    "TransformationStages": ("early", "regular", "postRouting", "escapeCharacters"),
    "RequestResponseTransformations": ALL,
    "RequestMatch": ALL,
    "ResponseMatch": ("matchers", "responseTransformation"),
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
        filter=waiting_filter(EARLY, Stage.FAULT),
    ),
    Feature(
        name="transformations",
        on_route=transform,
        on_virtual_host=transform,
        on_destination=transform,
        filter=waiting_filter(REGULAR, Stage.AUTHZ),
    ),
)
