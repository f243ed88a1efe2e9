"""Transformations as the data that ``runtime.lua`` runs, and what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from protos import gloo
from services.gloo import checks
from services.gloo.plugin import Scope, within
from services.gloo.re2 import compile_pattern
from services.gloo.transformations.regex import Program, TooMuch, regex_program
from services.gloo.transformations.template import BadTemplate, Surroundings, Template, parse_template
from services.gloo.translator.match import translate_matcher
from shared.report import Report, join

Data = dict[str, Any]

JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
UNSET: tuple[Any, ...] = (None, False, [])
TEMPLATES = ("body", "template")  # an empty one stands for an empty text

PSEUDO = {False: (":authority", ":method", ":path"), True: (":status",)}  # by whether it is an answer
DETAILS = "x-gloo-response-code-details"  # where the router tells Envoy's reason for an answer
FRAMING = ("content-length", "transfer-encoding")
MODES = {
    gloo.ExtractionMode.EXTRACT: "extract",
    gloo.ExtractionMode.SINGLE_REPLACE: "one",
    gloo.ExtractionMode.REPLACE_ALL: "all",
}


def plain_program(given: gloo.Transformations, scope: Scope) -> Data:
    """What the older option does, to all requests and answers."""
    keep: set[str] = set()
    choice = gloo.RequestMatch(
        clear_route_cache=given.clear_route_cache,
        request_transformation=given.request_transformation,
        response_transformation=given.response_transformation,
    )
    return {"requests": [choice_program(choice, scope, keep)], "keep": sorted(keep)}


def stage_program(stage: gloo.RequestResponseTransformations, escape: bool, scope: Scope) -> Data:
    """What one stage does: the first of ``requests`` and of ``responses`` that fits counts."""
    keep: set[str] = set()
    requests = [
        choice_program(choice, within(scope, f"requestTransforms[{i}]"), keep, escape)
        for i, choice in enumerate(stage.request_transforms)
    ]
    responses = [
        answer_program(answer, within(scope, f"responseTransforms[{i}]"), keep, escape)
        for i, answer in enumerate(stage.response_transforms)
    ]
    return {"requests": requests, "responses": responses, "keep": sorted(keep)}


def choice_program(choice: gloo.RequestMatch, scope: Scope, keep: set[str], escape: bool = False) -> Data:
    if choice.request_transformation is None and choice.response_transformation is None:
        scope.error("", "nothing to do; requestTransformation, responseTransformation or both")
    return {
        "matcher": matcher_program(choice.matcher, "matcher", scope),
        "clear": choice.clear_route_cache,
        "request": transformation(choice.request_transformation, "requestTransformation", escape, scope),
        "response": transformation(
            choice.response_transformation, "responseTransformation", escape, scope, keep
        ),
    }


def answer_program(answer: gloo.ResponseMatch, scope: Scope, keep: set[str], escape: bool) -> Data:
    if answer.response_transformation is None:
        scope.error("responseTransformation", "required")
    wanted = gloo.Matcher(prefix="/", headers=list(answer.matchers))
    check_matcher(wanted, "", scope, headers="matchers")
    headers = values_program(answer.matchers, "matchers", scope)
    if answer.response_code_details:
        details = re.sub(r"\s", "_", answer.response_code_details)  # as Envoy writes them
        headers.append({"name": DETAILS, "value": details})
    return {
        "headers": headers,
        "response": transformation(
            answer.response_transformation, "responseTransformation", escape, scope, keep
        ),
    }


def transformation(
    given: gloo.Transformation | None, at: str, escape: bool, scope: Scope, keep: set[str] | None = None
) -> Data | None:
    """One change; *keep*, for those of answers, collects the request's headers that will be asked for."""
    if given is None:
        return None
    inner = within(scope, at)
    if given.header_body_transform is not None:
        about = given.header_body_transform.add_request_metadata
        if about and keep is not None:
            inner.error("headerBodyTransform.addRequestMetadata", "goes with requestTransformation only")
        return {"all": True, "about_request": about, "buffer": True}
    if given.transformation_template is None:
        inner.error("", "nothing to do; one of transformationTemplate, headerBodyTransform")
        return None
    template = given.transformation_template
    inner = within(inner, "transformationTemplate")
    return _Translation(template=template, escape=escape, response=keep is not None, scope=inner).program(
        keep
    )


@dataclass(slots=True, kw_only=True)
class _Translation:
    """The translation of one template and what was found out on the way."""

    template: gloo.TransformationTemplate
    escape: bool
    response: bool
    scope: Scope
    around: Surroundings = field(init=False)
    reads_body: bool = False
    request_headers: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.around = Surroundings(
            advanced=self.template.advanced_templates,
            response=self.response,
            extractors=frozenset(self.template.extractors),
        )

    def program(self, keep: set[str] | None) -> Data:
        given = self.template
        found: Data = {
            "advanced": given.advanced_templates,
            "escape": self.escape if given.escape_characters is None else given.escape_characters,
            "extractors": [self.extractor(name, given.extractors[name]) for name in sorted(given.extractors)],
            "set": [
                {
                    "name": self.header(name, f"headers[{name}]"),
                    "template": self.text(text, f"headers[{name}]"),
                }
                for name, text in sorted(given.headers.items())
            ],
            "append": list(self.appended()),
            "remove": [
                self.header(name, f"headersToRemove[{i}]", removed=True)
                for i, name in enumerate(given.headers_to_remove)
            ],
            "metadata": list(self.metadata()),
            **self.body(),
        }
        if given.passthrough is None:
            found["parse"] = (
                given.parse_body_behavior == gloo.TransformationTemplateRequestBodyParse.ParseAsJson
            )
            found["ignore"] = given.ignore_error_on_parse
            found["buffer"] = found["parse"] or self.reads_body or bool(found.keys() & {"body", "merge"})
        elif self.reads_body:
            self.scope.error("passthrough", "with it the body is not there for body() and extractors")
        if keep is not None:
            keep |= self.request_headers
        return found

    def body(self) -> Data:
        given = self.template
        if given.body is not None:
            return {"body": self.text(given.body, "body")}
        if given.merge_extractors_to_body is not None:
            return {"merge": "extractors"}
        if given.merge_json_keys is None:
            return {}
        keys = []
        for name, each in sorted(given.merge_json_keys.json_keys.items()):
            at = f"mergeJsonKeys.jsonKeys[{name}]"
            if each.tmpl is None:
                self.scope.error(f"{at}.tmpl", "required")
            template = self.text(each.tmpl or gloo.InjaTemplate(), f"{at}.tmpl")
            keys.append({"path": self.way(name, at), "template": template, "override": each.override_empty})
        return {"merge": "keys", "keys": keys}

    def way(self, name: str, at: str) -> list[str]:
        """Where in the body a name with dots is."""
        way = name.split(".")
        if not all(way):
            self.scope.error(at, "a name, or several with . between them")
        return way

    def extractor(self, name: str, given: gloo.Extraction) -> Data:
        at = f"extractors[{name}]"
        if given.header is None and given.body is None:
            self.scope.error(at, "no source; one of header, body")
        if given.header is not None and (problem := checks.header_name(given.header, pseudo=True)):
            self.scope.error(f"{at}.header", problem)
        if problem := checks.regex(given.regex, self.scope.policy.regex_max_program_size):
            self.scope.error(f"{at}.regex", problem)
        elif given.subgroup > (groups := compile_pattern(given.regex).groups):
            self.scope.error(f"{at}.subgroup", f"{given.subgroup} is too many; the regex has {groups}")
        self.reads_body |= given.body is not None
        found = {
            "name": name,
            "path": self.way(name, at),
            "header": None if given.header is None else given.header.lower(),
            "regex": expression(given.regex, f"{at}.regex", self.scope, given.subgroup),
            "group": given.subgroup > 0,
            "mode": MODES[given.mode],
        }
        if given.mode == gloo.ExtractionMode.EXTRACT:
            if given.replacement_text is not None:
                self.scope.error(f"{at}.replacementText", "goes with a mode that replaces")
            return found
        if given.replacement_text is None:
            self.scope.error(f"{at}.replacementText", f"required with {given.mode.name}")
        text = given.replacement_text or ""
        if given.mode == gloo.ExtractionMode.REPLACE_ALL:
            if given.subgroup:
                self.scope.error(f"{at}.subgroup", "must be 0 with REPLACE_ALL, which replaces whole matches")
            if "$" in text:
                self.scope.error(f"{at}.replacementText", "$ is not supported with REPLACE_ALL")
        return {**found, "text": text}

    def header(self, name: str, at: str, *, removed: bool = False) -> str:
        lower = name.lower()
        if name.startswith(":") and not removed:
            if lower not in PSEUDO[self.response]:
                allowed = ", ".join(PSEUDO[self.response])
                self.scope.error(at, f"cannot be changed here; of this kind, {allowed} can")
        elif lower == "host":
            self.scope.error(at, "write :authority")
        elif lower in FRAMING:
            self.scope.error(at, "follows from the body")
        elif problem := checks.mutable_header(name):
            self.scope.error(at, problem)
        return lower

    def appended(self) -> Iterable[Data]:
        for i, each in enumerate(self.template.headers_to_append):
            at = f"headersToAppend[{i}]"
            if problem := checks.mutable_header(each.key):
                self.scope.error(f"{at}.key", problem)
            name = each.key if problem else self.header(each.key, f"{at}.key")
            yield {"name": name, "template": self.text(each.value or gloo.InjaTemplate(), f"{at}.value")}

    def metadata(self) -> Iterable[Data]:
        for i, each in enumerate(self.template.dynamic_metadata_values):
            at = f"dynamicMetadataValues[{i}]"
            if not each.key:
                self.scope.error(f"{at}.key", "required")
            yield {
                "namespace": each.metadata_namespace or None,
                "key": each.key,
                "template": self.text(each.value or gloo.InjaTemplate(), f"{at}.value"),
                "json": each.json_to_proto,
            }

    def text(self, given: gloo.InjaTemplate, at: str) -> list[Any]:
        try:
            parsed: Template = parse_template(given.text, self.around)
        except BadTemplate as bad:
            self.scope.error(f"{at}.text", str(bad))
            return []
        self.reads_body |= parsed.reads_body
        self.request_headers |= parsed.request_headers
        return parsed.nodes


def expression(pattern: str, at: str, scope: Scope, group: int = 0) -> Program:
    """The program of a pattern that ``checks.regex`` has nothing against; else none."""
    if checks.regex(pattern, scope.policy.regex_max_program_size):
        return []
    try:
        return regex_program(pattern, group)
    except TooMuch as problem:
        scope.error(at, f"{checks.shown(pattern)}: {problem}")
        return []


def check_matcher(given: gloo.Matcher, at: str, scope: Scope, headers: str = "headers") -> None:
    """Hold *given* to the rules of a route's matcher; *headers* is what its headers are called here."""
    inner = Report()
    translate_matcher(given, "", scope.policy, inner)
    for problems, tell in ((inner.errors, scope.error), (inner.warnings, scope.warn)):
        for problem in problems:
            tell(join(at, problem.path.removeprefix(".").replace("headers[", f"{headers}[", 1)), problem.text)


def matcher_program(given: gloo.Matcher | None, at: str, scope: Scope) -> Data | None:
    if given is None:
        return None
    check_matcher(given, at, scope)
    if given.connect_matcher is not None:
        scope.error(f"{at}.connectMatcher", "not supported here; one of prefix, exact, regex")
    lower = given.case_sensitive is False and given.regex is None
    found: Data = {
        "lower": lower,
        "headers": values_program(given.headers, f"{at}.headers", scope),
        "query": values_program(given.query_parameters, f"{at}.queryParameters", scope),
        "methods": list(given.methods) or None,
    }
    for name, text in (("prefix", given.prefix), ("exact", given.exact)):
        if text is not None:
            found[name] = text.lower() if lower else text
    if given.regex is not None:
        found["regex"] = expression(given.regex, f"{at}.regex", scope)
    return found


def values_program(
    wanted: Sequence[gloo.HeaderMatcher | gloo.QueryParameterMatcher], at: str, scope: Scope
) -> list[Data]:
    return [
        {
            "name": each.name.lower() if isinstance(each, gloo.HeaderMatcher) else each.name,
            "invert": isinstance(each, gloo.HeaderMatcher) and each.invert_match,
            "regex": expression(each.value, f"{at}[{i}].value", scope) if each.regex and each.value else None,
            "value": each.value,
        }
        for i, each in enumerate(wanted)
    ]


def to_json(program: Data) -> str:
    """The document ``runtime.lua`` reads; what is not set, False or empty, is not in it."""
    return JSON.encode(_set_members(program))


def _set_members(program: Data) -> Data:
    found: Data = {}
    for name, value in program.items():
        if isinstance(value, dict):
            found[name] = _set_members(value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            found[name] = [_set_members(each) for each in value]
        elif value not in UNSET or name in TEMPLATES:
            found[name] = value
    return found
