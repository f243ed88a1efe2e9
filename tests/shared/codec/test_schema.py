"""The fields of message classes."""

from __future__ import annotations

from datetime import timedelta

from protos import gloo
from protos._generated.google import protobuf
from protos.envoy import route
from shared.codec.schema import class_of, fields_of, full_name


def test_fields_go_by_number_with_their_classes() -> None:
    fields = {field.name: field for field in fields_of(gloo.Status)}

    numbers = [field.number for field in fields_of(gloo.Status)]
    assert numbers == sorted(numbers)
    assert fields["state"].target is gloo.StatusState
    assert fields["details"].target is protobuf.Struct
    assert fields["subresource_statuses"].entry is not None
    assert fields["subresource_statuses"].entry[1].target is gloo.Status


def test_presence_and_wrappers() -> None:
    fields = {field.name: field for field in fields_of(route.RouteAction)}

    assert fields["timeout"].target is timedelta
    assert fields["timeout"].wrapper is protobuf.Duration
    assert fields["cluster"].has_presence
    assert fields["cluster"].group == "cluster_specifier"
    assert not fields["prefix_rewrite"].has_presence


def test_names_and_classes_find_each_other() -> None:
    assert full_name(gloo.Status) == "gloo.solo.io.Status"
    assert class_of("type.googleapis.com/gloo.solo.io.Status") is gloo.Status
    assert class_of("type.googleapis.com/no.Such") is None
