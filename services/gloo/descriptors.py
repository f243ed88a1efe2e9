"""gRPC services by their descriptors: what Envoy would find wrong with them, known before it is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import betterproto2
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from protos.envoy import google_api
from shared.codec.encode import encode, length_delimited

HTTP = 72295728  # the option google.api.http of a method
WRITER = "protoc --include_imports --descriptor_set_out writes one"

_LITERAL = r"[^/*{}:][^/{}:]*"
_STEP = rf"(?:\*\*|\*|{_LITERAL})"
_FIELD = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_SEGMENT = rf"(?:{_STEP}|\{{{_FIELD}(?:={_STEP}(?:/{_STEP})*)?\}})"
_TEMPLATE = re.compile(rf"/|(?:/{_SEGMENT})+(?::{_LITERAL})?")
VARIABLE = re.compile(rf"\{{({_FIELD})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The gRPC services of an encoded FileDescriptorSet, or the *problem* with it."""

    pool: DescriptorPool
    names: frozenset[str] = frozenset()
    problem: str = ""

    def methods(self, service: str) -> list[MethodDescriptor]:
        return list(self.pool.FindServiceByName(service).methods)


@lru_cache(maxsize=64)
def services_of(raw: bytes) -> Services:
    """What is in *raw*. Like Envoy it takes the files one by one, each with what came before."""
    pool, names = DescriptorPool(), list[str]()
    try:
        files = FileDescriptorSet.FromString(raw).file
        for file in files:
            pool.AddSerializedFile(file.SerializeToString())
            names += (f"{file.package}.{each.name}".lstrip(".") for each in file.service)
    except DecodeError:
        return Services(pool=pool, problem=f"no FileDescriptorSet; {WRITER}")
    except TypeError as error:
        _, _, why = str(error).rpartition("descriptor pool: ")
        return Services(pool=pool, problem=f"{file.name}: {why}; {WRITER} that is complete")
    return Services(pool=pool, names=frozenset(names), problem="" if names else f"no services; {WRITER}")


@lru_cache(maxsize=256)
def problem_of(raw: bytes, service: str, offers_all: bool) -> str:
    """What keeps *service* from being called by HTTP, its annotations among it; empty: nothing."""
    services = services_of(raw)
    if service not in services.names:
        return f"no such service; there are {', '.join(sorted(services.names))}"
    rules = [(method, rule) for method in services.methods(service) for rule in rules_of(method)]
    problems = (f"{method.name}: {text}" for method, rule in rules if (text := rule_problem(rule, method)))
    if not rules and not offers_all:
        return "none of its methods has a google.api.http annotation; autoMapping goes without"
    return next(problems, "")


def rules_of(method: MethodDescriptor) -> Iterator[google_api.HttpRule]:
    """The HTTP requests by which a method says it is called."""
    options = betterproto2.parse_fields(method.GetOptions().SerializeToString())
    for found in [each.value for each in options if each.number == HTTP]:
        rule = google_api.HttpRule.parse(found)
        yield from (rule, *rule.additional_bindings)


def rule_problem(rule: google_api.HttpRule, method: MethodDescriptor) -> str:
    name, pattern = betterproto2.which_one_of(rule, "pattern")
    path = pattern.path if isinstance(pattern, google_api.CustomHttpPattern) else pattern
    if name and not is_template(path or ""):
        return f"{path!r} is no template of a path"
    if rule.body not in ("", "*") and not has_field(method.input_type, rule.body):
        return f"the body's field {rule.body!r} is not in {method.input_type.full_name}"
    if rule.response_body and not has_field(method.output_type, rule.response_body):
        return f"the answer's field {rule.response_body!r} is not in {method.output_type.full_name}"
    return ""


def is_template(path: str) -> bool:
    """Whether Envoy can match paths by *path*: ``/books/{id}``, ``/files/{name=**}``."""
    return _TEMPLATE.fullmatch(path) is not None and path.count("**") <= 1


def has_field(message: Descriptor, path: str) -> bool:
    """Whether *path*, names with dots between them, leads to a field."""
    at: Any = message
    for name in path.split("."):
        found = at.fields_by_name.get(name) if at is not None else None
        if found is None:
            return False
        at = found.message_type
    return True


@lru_cache(maxsize=256)
def called_by(raw: bytes, service: str, method: str, path: str) -> bytes:
    """The descriptors with but one *method* left of *service*; it is called by requests to *path*."""
    files = FileDescriptorSet.FromString(raw)
    for file in files.file:
        for each in file.service:
            if f"{file.package}.{each.name}".lstrip(".") == service:
                kept = next(one for one in each.method if one.name == method)
                kept.options.Clear()
                kept.options.MergeFromString(length_delimited(HTTP, encode(any_request(path))))
                each.ClearField("method")
                each.method.append(kept)
    made: bytes = files.SerializeToString(deterministic=True)
    return made


def any_request(path: str) -> google_api.HttpRule:
    """Whatever HTTP request to *path*; of those that have a body all of it is JSON."""
    return google_api.HttpRule(
        post=path,
        body="*",
        additional_bindings=[
            google_api.HttpRule(put=path, body="*"),
            google_api.HttpRule(patch=path, body="*"),
            google_api.HttpRule(delete=path),
            google_api.HttpRule(get=path),
        ],
    )
