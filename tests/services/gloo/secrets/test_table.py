"""What translation and Envoys know of secrets, whatever becomes of them."""

from __future__ import annotations

from typing import Any

from services.gloo.secrets.source import Answer, answer_of
from services.gloo.secrets.table import SecretTable
from services.gloo.translator.secret import Known, pair_name, signing_name
from shared.ref import Ref
from shared.sigv4 import Key
from tests.support.certificates import any_pair

AWS = Ref("ns", "aws")
NAME = signing_name(AWS, "eu-central-1", "lambda")
CERTIFICATE, PRIVATE, _ = any_pair()
KEY = {"aws": {"accessKey": "a", "secretKey": "s", "sessionToken": "t"}}
TLS = {"tls": {"certChain": CERTIFICATE, "privateKey": PRIVATE}}
HEADER = {"header": {"headers": {"a": "b"}}}


def bodies(table: SecretTable) -> dict[str, bytes]:
    return {each.name: each.body for each in table.resources({NAME: (), pair_name(AWS): ()})}


def take(table: SecretTable, document: Any) -> Known:
    table.take(AWS, answer_of(document, "v"))
    return table.known[AWS]


def test_a_key_is_a_filter_and_no_certificate() -> None:
    table = SecretTable()

    assert take(table, KEY) == Known(keys=True)
    assert table.key(AWS) == Key(id="a", secret="s", session_token="t")
    assert bodies(table).keys() == {NAME}

    before = bodies(table)
    assert not table.take(AWS, answer_of({"aws": {"accessKey": "a", "secretKey": "x"}}, "v"))
    assert bodies(table) != before

    table.keep(frozenset())
    assert (bodies(table), table.key(AWS)) == ({}, None)


def test_a_secret_of_another_kind_keeps_its_last_good_version() -> None:
    table = SecretTable()
    assert take(table, HEADER) == Known(problem="is of kind header; tls or aws is needed")

    take(table, KEY)
    good = bodies(table)
    for other in (TLS, HEADER, {}):
        found = take(table, other)
        assert (found.keys, found.problem.endswith("; aws is needed")) == (True, True), found
        assert bodies(table) == good
    assert take(table, KEY) == Known(keys=True)

    table = SecretTable()
    take(table, TLS)
    good = bodies(table)
    assert take(table, KEY) == Known(pair=True, problem="is of kind aws; tls is needed")
    assert (bodies(table), table.key(AWS)) == (good, None)


def test_a_key_that_lacks_something_is_told_without_a_word_of_it() -> None:
    for key, problem in (
        ({"accessKey": "hush"}, "aws.secretKey is missing"),
        ({"secretKey": "hush"}, "aws.accessKey is missing"),
        ({"accessKey": "a", "secretKey": "hush\n"}, "aws has a character that no key has"),
        ({"accessKey": "a", "secretKey": {"hush": 1}}, "cannot be decoded as a Secret: aws.secretKey"),
    ):
        assert answer_of({"aws": key}, "v") == Answer(problem=problem, version="v")
