"""Header manipulation: headers added to and removed from requests and responses."""

from __future__ import annotations

from collections.abc import Sequence

from protos import gloo
from protos.envoy import core
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, Patch, Scope

APPEND = core.HeaderValueOptionHeaderAppendAction.APPEND_IF_EXISTS_OR_ADD
OVERWRITE = core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


def manipulate(headers: gloo.HeaderManipulation, scope: Scope) -> Patch:
    """Routes, virtual hosts and weighted clusters have the same four fields in Envoy."""
    fields = {
        "request_headers_to_add": added(headers.request_headers_to_add, "requestHeadersToAdd", scope),
        "request_headers_to_remove": removed(
            headers.request_headers_to_remove, "requestHeadersToRemove", scope
        ),
        "response_headers_to_add": added(headers.response_headers_to_add, "responseHeadersToAdd", scope),
        "response_headers_to_remove": removed(
            headers.response_headers_to_remove, "responseHeadersToRemove", scope
        ),
    }
    return Patch(fields={name: value for name, value in fields.items() if value})


def added(
    options: Sequence[gloo.HeaderValueOption], where: str, scope: Scope
) -> list[core.HeaderValueOption]:
    """Without ``append`` a header is added to what is there, as Gloo has it."""
    found = []
    for i, option in enumerate(options):
        header = option.header if option.header is not None else gloo.HeaderValue()
        if problem := checks.mutable_header(header.key):
            scope.error(f"{where}[{i}].header.key", problem)
        if problem := checks.format_string(header.value):
            scope.error(f"{where}[{i}].header.value", problem)
        found.append(
            core.HeaderValueOption(
                header=core.HeaderValue(key=header.key, value=header.value),
                append_action=OVERWRITE if option.append is False else APPEND,
                keep_empty_value=not header.value,
            )
        )
    return found


def removed(names: Sequence[str], where: str, scope: Scope) -> list[str]:
    for i, name in enumerate(names):
        if problem := checks.mutable_header(name):
            scope.error(f"{where}[{i}]", problem)
    return list(names)


FEATURES = (
    Feature(
        name="headerManipulation",
        reads={"HeaderManipulation": ALL, "HeaderValueOption": ("header", "append"), "HeaderValue": ALL},
        on_route=manipulate,
        on_virtual_host=manipulate,
        on_destination=manipulate,
    ),
)
