"""Reading documents: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import gateway, gloo
from protos._generated.message_pool import default_message_pool
from protos._generated.schema import ENUMS, MESSAGES
from shared.codec.decode import check, decode
from shared.codec.documents import to_document
from shared.codec.encode import encode
from shared.codec.wellknown import dict_of
from shared.report import Report


def read(message_class: Any, document: object, *, unknown: Any = "error") -> Any:
    """The message; the test fails on any error."""
    report = Report()
    message = decode(message_class, document, report, unknown=unknown)
    assert [str(problem) for problem in report.errors] == []
    return message


def errors(message_class: Any, document: object, path: str = "") -> list[str]:
    """What ``decode`` says, which ``check`` must say too."""
    report, checked = Report(), Report()
    assert decode(message_class, document, report, path) is None
    assert not check(
        default_message_pool.type_to_url[message_class].rpartition("/")[2], document, checked, path
    )
    assert checked == report
    return [str(problem) for problem in report.errors]


def route_options(document: object) -> list[str]:
    return errors(gloo.RouteOptions, document)


# Accepted


def test_camel_case_and_snake_case_are_one() -> None:
    camel = read(gateway.VirtualService, {"virtualHost": {"routes": [{"routeAction": {"single": {}}}]}})
    snake = read(gateway.VirtualService, {"virtual_host": {"routes": [{"route_action": {"single": {}}}]}})

    assert camel == snake
    assert camel.virtual_host.routes[0].route_action.single == gloo.Destination()


def test_null_is_absent() -> None:
    message = read(
        gateway.VirtualService, {"virtualHost": None, "displayName": None, "status": {"state": None}}
    )

    assert message == gateway.VirtualService(status=gloo.Status())


def test_a_message_read_is_one_that_was_built() -> None:
    message = read(
        gloo.Upstream, {"metadata": {"name": "a"}, "static": {"hosts": [{"addr": "b", "port": 80}]}}
    )

    built = gloo.Upstream(
        metadata=gloo.Metadata(name="a"),
        static=gloo.StaticUpstreamSpec(hosts=[gloo.StaticHost(addr="b", port=80)]),
    )
    assert message == built
    assert bytes(message) == bytes(built)
    assert vars(message).keys() == vars(built).keys()


def test_two_messages_share_no_list() -> None:
    one, other = read(gateway.VirtualHost, {}), read(gateway.VirtualHost, {})

    one.domains.append("a")

    assert other.domains == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("15s", timedelta(seconds=15)),
        ("1.5s", timedelta(seconds=1.5)),
        ("0.250s", timedelta(milliseconds=250)),
        ("0s", timedelta(0)),
        ("-1.5s", timedelta(seconds=-1.5)),
        ("-0.25s", timedelta(seconds=-0.25)),
        ("1h2m3s", timedelta(hours=1, minutes=2, seconds=3)),
        ("250ms", timedelta(milliseconds=250)),
        ("1m", timedelta(minutes=1)),
        ("0.000000001s", timedelta(microseconds=1)),
        ("86400000.000001s", timedelta(days=1000, microseconds=1)),
        ({"seconds": 1, "nanos": 500_000_000}, timedelta(seconds=1.5)),
        ({"seconds": "-1", "nanos": -500_000_000}, timedelta(seconds=-1.5)),
        ({}, timedelta(0)),
    ],
)
def test_durations(written: object, meant: timedelta) -> None:
    assert read(gloo.RouteOptions, {"timeout": written}).timeout == meant


@pytest.mark.parametrize(
    ("written", "meant"), [("yes", True), ("Off", False), ("true", True), (False, False)]
)
def test_the_words_of_yaml_for_true_and_false(written: object, meant: bool) -> None:
    assert read(gloo.Upstream, {"useHttp2": written}).use_http2 is meant


def test_numbers_as_text_and_whole_floats() -> None:
    upstream = read(gloo.Upstream, {"static": {"hosts": [{"port": "8080"}, {"port": 80.0}]}})

    assert [host.port for host in upstream.static.hosts] == [8080, 80]
    assert read(gloo.Metadata, {"generation": "12"}).generation == 12


def test_keys_of_maps_become_text() -> None:
    assert read(gloo.Metadata, {"labels": {2: "a", True: "b", "c": "d"}}).labels == {
        "2": "a",
        "true": "b",
        "c": "d",
    }


def test_wrappers_are_written_as_plain_values() -> None:
    assert read(gloo.RouteOptions, {"prefixRewrite": ""}).prefix_rewrite == ""
    assert read(gloo.RouteOptions, {}).prefix_rewrite is None
    assert read(gloo.WeightedDestination, {"weight": 0}).weight == 0


def test_enums_by_name_and_number() -> None:
    by_name = read(gloo.Status, {"state": "Rejected"})

    assert by_name == read(gloo.Status, {"state": 2}) == read(gloo.Status, {"state": "2"})
    assert by_name.state is gloo.StatusState.Rejected


def test_structs_keep_what_they_are_given() -> None:
    given_ = {"reports": [{"kind": "a", "errors": ["b"], "n": 1.5, "t": True, "z": None, "e": {}, "l": []}]}

    assert dict_of(read(gloo.Status, {"details": given_}).details) == given_


@pytest.mark.parametrize("written", ["aGk/+w==", "aGk_-w", "aGk/\n+w=="])
def test_bytes_are_base64_of_either_alphabet(written: str) -> None:
    field, message = next(
        (name, name_of)
        for name_of, fields in MESSAGES.items()
        for name, spec in fields.items()
        if spec[1:] == ("scalar", "bytes", "", "one")
    )[0:2]
    message_class = default_message_pool.url_to_type[f"type.googleapis.com/{message}"]
    attribute = MESSAGES[message][field][0]

    assert getattr(read(message_class, {field: written}), attribute) == b"hi?\xfb"


def test_an_any_travels_as_envoys_typed_struct() -> None:
    url = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer"
    document = {"name": "buffer", "config": {"@type": url, "maxRequestBytes": 10}}

    message = read(gloo.CustomEnvoyFilter, document)

    assert message.config.type_url == "type.googleapis.com/xds.type.v3.TypedStruct"
    assert to_document(message) == document


def test_special_floats() -> None:
    (message, field) = next(
        (message, field)
        for message, fields in MESSAGES.items()
        for field, spec in fields.items()
        if spec[1:] == ("wrapper", "double", "", "one")
    )
    message_class = default_message_pool.url_to_type[f"type.googleapis.com/{message}"]
    attribute = MESSAGES[message][field][0]

    assert math.isnan(getattr(read(message_class, {field: "NaN"}), attribute))
    assert getattr(read(message_class, {field: "-Infinity"}), attribute) == -math.inf
    assert getattr(read(message_class, {field: "1e3"}), attribute) == 1000.0


# Old names


@pytest.mark.parametrize(
    ("message_class", "old", "new"),
    [
        (
            gateway.VirtualService,
            {"virtualHost": {"virtualHostPlugins": {"retries": {"retryOn": "5xx"}}}},
            {"virtualHost": {"options": {"retries": {"retryOn": "5xx"}}}},
        ),
        (
            gateway.Route,
            {"matcher": {"prefix": "/"}, "route_plugins": {"prefix_rewrite": "/"}},
            {"matchers": [{"prefix": "/"}], "options": {"prefixRewrite": "/"}},
        ),
        (gloo.Route, {"matcher": {"exact": "/"}}, {"matchers": [{"exact": "/"}]}),
        (gateway.Gateway, {"plugins": {}}, {"options": {}}),
        (gloo.Listener, {"listenerPlugins": {}}, {"options": {}}),
        (gloo.HttpListener, {"httpListenerPlugins": {}}, {"options": {}}),
        (gateway.HttpGateway, {"plugins": {}}, {"options": {}}),
        (gloo.WeightedDestination, {"weightedDestinationPlugins": {}}, {"options": {}}),
        (
            gloo.Upstream,
            {"upstreamSpec": {"static": {"hosts": [{"addr": "a"}]}, "useHttp2": True}},
            {"static": {"hosts": [{"addr": "a"}]}, "useHttp2": True},
        ),
        (
            gloo.Settings,
            {"bindAddr": "0.0.0.0:9977", "gloo": {"disableKubernetesDestinations": True}},
            {"gloo": {"xdsBindAddr": "0.0.0.0:9977", "disableKubernetesDestinations": True}},
        ),
        (
            gloo.Settings,
            {"bindAddr": "a:1", "gloo": {"xdsBindAddr": "b:2"}},
            {"gloo": {"xdsBindAddr": "b:2"}},
        ),
    ],
)
def test_names_of_releases_before_1_0_are_read_with_a_warning(message_class: Any, old: Any, new: Any) -> None:
    report = Report()

    message = decode(message_class, old, report)

    assert message == read(message_class, new)
    assert report.warnings


def test_the_warning_names_the_new_form() -> None:
    report = Report()

    decode(gateway.Route, {"matcher": {"prefix": "/"}}, report, "routes[3]")

    assert [str(w) for w in report.warnings] == [
        "routes[3].matcher: is the old name of matchers; please rename it"
    ]


def test_an_old_name_beside_its_new_one_is_refused() -> None:
    assert errors(gateway.Route, {"routePlugins": {}, "options": {}}) == [
        "options: set twice, under two spellings of its name"
    ]


# Refused


def test_an_unknown_field_is_named_with_its_path() -> None:
    document: Any = {"virtualHost": {"routes": [{}, {}, {"options": {"faults": {"abrot": {}}}}]}}

    assert errors(gateway.VirtualService, document) == [
        "virtualHost.routes[2].options.faults.abrot: unknown field, did you mean abort?"
    ]


def test_an_unknown_field_can_be_a_warning() -> None:
    report = Report()

    message = decode(gloo.Settings, {"refreshrate": "1s", "devMode": True}, report, unknown="warn")

    assert message == gloo.Settings(dev_mode=True)
    assert [str(w) for w in report.warnings] == ["refreshrate: unknown field, did you mean refreshRate?"]


@pytest.mark.parametrize(
    ("document", "wanted"),
    [
        ({"zzz": 1}, "zzz: unknown field"),
        ({1: 1}, "[1]: unknown field"),
        ({"prefix_rewrit": ""}, "prefix_rewrit: unknown field, did you mean prefixRewrite?"),
        ({"timeout": "15"}, "timeout: expected a duration such as 15s or 1.5s, got text '15'"),
        ({"timeout": 15}, "timeout: expected a duration such as 15s or 1.5s, got the number 15"),
        ({"timeout": "1s 2s"}, "timeout: expected a duration such as 15s or 1.5s, got text '1s 2s'"),
        ({"timeout": {"second": 1}}, "timeout.second: unknown field, a duration has seconds and nanos"),
        ({"timeout": "99999999999999s"}, "timeout: longer than the ten thousand years a duration can last"),
        ({"retries": {"numRetries": "abc"}}, "retries.numRetries: expected a number, got text 'abc'"),
        ({"retries": {"numRetries": "010"}}, "retries.numRetries: expected a number, got text '010'"),
        ({"retries": {"numRetries": True}}, "retries.numRetries: expected a number, got true"),
        ({"retries": {"numRetries": 1.5}}, "retries.numRetries: expected a whole number, got the number 1.5"),
        (
            {"retries": {"numRetries": -1}},
            "retries.numRetries: expected a number from 0 to 4294967295, got -1",
        ),
        (
            {"retries": {"numRetries": 2**32}},
            "retries.numRetries: expected a number from 0 to 4294967295, got 4294967296",
        ),
        (
            {"retries": {"retryOn": 5}},
            "retries.retryOn: expected text, got the number 5; put it in quotes",
        ),
        ({"retries": {"retryOn": ["5xx"]}}, "retries.retryOn: expected text, got a list"),
        ({"retries": "5xx"}, "retries: expected a mapping, got text '5xx'"),
        ({"autoHostRewrite": "maybe"}, "autoHostRewrite: expected true or false, got text 'maybe'"),
        ({"envoyMetadata": []}, "envoyMetadata: expected a mapping, got a list"),
        ({"envoyMetadata": {"a.b": 1}}, "envoyMetadata['a.b']: expected a mapping, got the number 1"),
        (
            {"prefixRewrite": "x" * 50, "prefix_rewrite": "y"},
            "prefix_rewrite: set twice, under two spellings of its name",
        ),
    ],
)
def test_a_mistake_is_told_in_the_authors_words(document: object, wanted: str) -> None:
    assert route_options(document) == [wanted]


def test_more_refusals() -> None:
    assert errors(gateway.VirtualHost, {"domains": "a"}) == ["domains: expected a list, got text 'a'"]
    assert errors(gateway.VirtualHost, {"domains": ["a", None]}) == ["domains[1]: expected text, got nothing"]
    assert errors(gloo.Metadata, {"labels": {"a": None}}) == ["labels.a: expected text, got nothing"]
    assert errors(gloo.Status, {"state": "accepted"}) == [
        "state: expected one of Pending, Accepted, Rejected, Warning, got text 'accepted'"
    ]
    assert errors(gloo.Status, {"state": 9})[0].endswith("got the number 9")
    assert errors(gloo.CustomEnvoyFilter, {"config": {"a": 1}}) == [
        "config.@type: expected a type URL such as type.googleapis.com/envoy.…"
    ]
    assert errors(gloo.Upstream, {"upstreamSpec": 1}) == [
        "upstreamSpec: expected a mapping, got the number 1"
    ]
    assert errors(gloo.Upstream, []) == ["expected a mapping, got a list"]
    assert errors(gloo.Upstream, None, "spec") == ["spec: expected a mapping, got nothing"]


def test_half_a_character_is_refused_wherever_it_stands() -> None:
    half = "a\udc00"
    said = "half of a surrogate pair is no character"

    assert errors(gateway.VirtualHost, {"domains": ["\N{GRINNING FACE}", half]}) == [f"domains[1]: {said}"]
    assert errors(gloo.Metadata, {"labels": {half: "a"}}) == [f"labels['a\\udc00']: {said}"]
    assert errors(gloo.RouteOptions, {"prefixRewrite": half}) == [f"prefixRewrite: {said}"]
    assert errors(gloo.Metadata, {half: "a"}) == ["['a\\udc00']: unknown field"]
    struct = {"a": [1, {"b": half}], half: 1}
    assert errors(gloo.RouteOptions, {"envoyMetadata": {"n": struct}}) == [
        f"envoyMetadata.n.a[1].b: {said}",
        f"envoyMetadata.n['a\\udc00']: {said}",
    ]
    config = {"@type": "type.googleapis.com/a", "b": half}
    assert errors(gloo.CustomEnvoyFilter, {"config": config}) == [f"config.b: {said}"]


def test_two_members_of_a_oneof_exclude_each_other() -> None:
    document: Any = {"routeAction": {"single": {}, "multi": {"destinations": []}}}

    assert errors(gateway.Route, document) == ["routeAction: single and multi exclude each other"]
    assert read(gateway.Route, {"routeAction": {"single": {}, "multi": None}})


def test_all_mistakes_are_found_at_once() -> None:
    document = {
        "domains": 1,
        "routes": [{"a": 1}, {"matchers": [{"exact": 1}]}, 5],
        "options": {"timeout": 1},
    }

    assert len(errors(gateway.VirtualHost, document)) == 5


def test_the_path_of_the_whole_leads() -> None:
    assert errors(gloo.RouteOptions, {"timeout": 1}, "virtualHost.options")[0].startswith(
        "virtualHost.options.timeout:"
    )


# As a whole


def test_checking_loads_no_message_class() -> None:
    program = (
        "import sys; from shared.codec.decode import check; from shared.report import Report; r = Report();"
        "ok = check('gateway.solo.io.VirtualService', {'virtualHost': {'routes': [{'options':"
        " {'timeout': '1s'}, 'metadata': 1}]}}, r);"
        "print(ok, [str(e) for e in r.errors], sorted({'betterproto2', 'orjson', 'yaml'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "False ['virtualHost.routes[0].metadata: unknown field'] []\n"


def test_every_message_of_the_contract_can_be_read() -> None:
    for name in MESSAGES:
        report = Report()
        assert check(name, {}, report)
        assert decode(default_message_pool.url_to_type[f"type.googleapis.com/{name}"], {}, report) is not None


TEXT = st.text(max_size=8)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "bool": st.booleans(),
    "bytes": st.sampled_from(["", "aGk=", "/w=="]),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1).map(str),
    "uint64": st.integers(0, 2**64 - 1).map(str),
    "float": st.sampled_from([0, 1, -2, 0.5, "Infinity"]),
    "double": st.sampled_from([0, 1, -2, 0.1, 1e300, "-Infinity"]),
}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.sampled_from([0.5, -1.25]) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
DURATIONS = st.sampled_from(["0s", "15s", "-1.500s", "-0.250s", "0.000001s", "1000000s"])


@st.composite
def documents(draw: Any, name: str, depth: int = 0) -> dict[str, Any]:
    """A document of the message *name*, in the form we write."""
    fields = MESSAGES[name]
    if not fields or depth > 4:
        return {}
    document, oneofs = {}, set()
    for field in draw(st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True)):
        _, kind, type_name, oneof, shape = fields[field]
        if oneof in oneofs:
            continue
        value = value_of(kind, type_name, depth)
        if shape == "list":
            value = st.lists(value, min_size=1, max_size=2)
        elif shape == "map":
            value = st.dictionaries(TEXT, value, min_size=1, max_size=2)
        item = draw(value)
        if (
            shape == "one"
            and not oneof
            and kind in ("scalar", "enum")
            and item in (*ZEROS, zero_of(type_name))
        ):
            continue
        document[field] = item
        oneofs |= {oneof} - {""}
    return document


ZEROS = (0, "", "0", False)


def zero_of(enum: str) -> str | None:
    return next((name for name, number in ENUMS.get(enum, {}).items() if number == 0), None)


def value_of(kind: str, type_name: str, depth: int) -> st.SearchStrategy[Any]:
    match kind:
        case "message":
            return documents(type_name, depth + 1)
        case "enum":
            return st.sampled_from(sorted(ENUMS[type_name]))
        case "scalar" | "wrapper":
            return SCALARS[type_name]
    return {
        "duration": DURATIONS,
        "struct": st.dictionaries(TEXT, PLAIN, max_size=3),
        "empty": st.just({}),
        "any": st.just({"@type": "type.googleapis.com/envoy.A", "b": [1]}),
    }[kind]


KINDS = [
    "gateway.solo.io.Gateway",
    "gateway.solo.io.VirtualService",
    "gateway.solo.io.RouteTable",
    "gloo.solo.io.Proxy",
    "gloo.solo.io.Upstream",
    "gloo.solo.io.UpstreamGroup",
    "gloo.solo.io.Settings",
    "gloo.solo.io.Secret",
]


@given(st.sampled_from(KINDS).flatmap(lambda name: st.tuples(st.just(name), documents(name))))
@settings(max_examples=300, deadline=None)
def test_what_we_write_is_read_as_it_was(case: tuple[str, dict[str, Any]]) -> None:
    name, document = case
    message_class: Any = default_message_pool.url_to_type[f"type.googleapis.com/{name}"]

    message = read(message_class, document)

    assert to_document(message) == document
    assert list(to_document(read(message_class, to_document(message)))) == list(to_document(message))
    assert to_document(message_class.parse(encode(message))) == document


@given(
    st.sampled_from(KINDS).flatmap(
        lambda name: st.tuples(
            st.just(name), st.dictionaries(st.sampled_from([*MESSAGES[name], "x"]), PLAIN, max_size=4)
        )
    )
)
@settings(max_examples=200, deadline=None)
def test_any_document_gets_an_answer_and_check_agrees(case: tuple[str, Any]) -> None:
    name, document = case
    decoded, checked = Report(), Report()

    message = decode(default_message_pool.url_to_type[f"type.googleapis.com/{name}"], document, decoded)

    assert check(name, document, checked) == (message is not None)
    assert checked == decoded
