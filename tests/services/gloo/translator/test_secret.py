"""Names of secrets: found again in whatever was encoded, and told apart."""

from __future__ import annotations

import yaml

from protos import gloo
from protos.envoy import core, http_protocol, tls
from services.gloo.translator.secret import (
    asked_for,
    names_asked_for,
    pair_files_name,
    pair_name,
    ref_of,
    secret_of_files,
    signed_by,
    signing_by_name,
    signing_name,
    trusted_file_name,
    trusted_name,
)
from shared.codec.documents import to_document
from shared.codec.encode import encode
from shared.ref import Ref
from tests.services.gloo.translator.test_golden import HERE
from tests.support.golden import translate_world


def test_every_name_is_found_in_the_bytes_of_what_asks_for_it() -> None:
    given = yaml.safe_load((HERE / "translator" / "golden" / "listeners_tls.in.yaml").read_text())
    world, _ = translate_world(given)

    found = {
        each.name: names_asked_for(each.body) for part in ("listeners", "clusters") for each in world[part]
    }

    assert found == {
        "listener-::-8443": {
            *("secret:ns/both", "secret-ca:ns/both", "file-ca:/etc/dogs/ca.pem"),
            "files:/etc/dogs/cert.pem:/etc/dogs/key.pem:/etc/dogs/staple",
        },
        "by-hand": {"secret:ns/pair"},
        "both_ns": {"secret:ns/both", "secret-ca:ns/both"},
        "trusted_ns": {"secret-ca:ns/trusted"},
        "sds": set(),
        "sds_ns": set(),
    }


def test_names_of_all_lengths_are_found() -> None:
    for length in (1, 9, 10, 100, 115, 116, 117, 118, 119, 120, 121, 127, 128, 300):
        name = pair_name(Ref("n" * length, "x"))
        context = tls.CommonTlsContext(
            tls_certificate_sds_secret_configs=[asked_for(name)],
            validation_context_sds_secret_config=asked_for(trusted_name(Ref("n", "y" * length))),
        )
        body = b"envoy.transport_sockets.tls" + encode(tls.UpstreamTlsContext(common_tls_context=context))

        assert names_asked_for(body) == {name, trusted_name(Ref("n", "y" * length))}


def test_filters_that_sign_are_found_by_their_names() -> None:
    given = yaml.safe_load((HERE / "translator" / "golden" / "aws_lambda.in.yaml").read_text())
    world, _ = translate_world(given)

    found = {each.name: names_asked_for(each.body) for each in world["clusters"]}

    name = "aws:ns/aws:eu-central-1:lambda.eu-central-1.amazonaws.com"
    assert found == {
        "fn_ns": {name},
        "other-account_ns": {"file-ca:/etc/ssl/certs/ca-certificates.crt"},
        "through-proxy_ns": {name},
        "through-proxy_ns_original": set(),
    }
    assert ref_of(name) == Ref("ns", "aws")


def test_names_of_filters_of_all_lengths_are_found() -> None:
    for length in (1, 9, 10, 42, 100, 117, 127, 128, 300):
        name = signing_name(Ref("n" * length, "x-1.y_z"), "eu-central-1", "[::1]:8080")
        options = http_protocol.HttpProtocolOptions(http_filters=[signed_by(name), signed_by(f"{name}0")])

        assert names_asked_for(encode(options)) == {name, f"{name}0"}


def test_a_filter_that_signs_says_where_and_with_what() -> None:
    name = signing_name(Ref("ns", "aws"), "eu-central-1", "[::1]:8080")
    made = signing_by_name(name, gloo.AwsSecret(access_key="a", secret_key="s", session_token="t"))

    found = to_document(core.TypedExtensionConfig.parse(made.body))["typedConfig"]
    assert (made.name, found["region"], found["hostRewrite"]) == (name, "eu-central-1", "[::1]:8080")
    key = {"accessKeyId": "a", "secretAccessKey": "s", "sessionToken": "t"}
    assert found["credentialProvider"] == {"inlineCredential": key}


def test_a_name_leads_back_to_its_secret_or_its_files() -> None:
    ref = Ref("a.b", "c")
    assert ref_of(pair_name(ref)) == ref_of(trusted_name(ref)) == ref
    assert pair_name(ref) != pair_name(Ref("a", "b.c"))

    name = pair_files_name("/a b:c%", "/k", "")
    made = secret_of_files(name)
    assert made is not None
    assert ref_of(name) is None
    pair = tls.Secret.parse(made.body).tls_certificate
    assert pair is not None
    assert pair.certificate_chain is not None
    assert pair.certificate_chain.filename == "/a b:c%"
    assert secret_of_files(trusted_file_name("/ca")) is not None
    assert secret_of_files(pair_name(ref)) is None


def test_a_further_attempt_is_another_way_to_the_same_files() -> None:
    name = pair_files_name("/etc/cert.pem", "key.pem", "")
    bodies = []
    for attempt in range(3):
        made = secret_of_files(name, attempt)
        assert made is not None
        pair = tls.Secret.parse(made.body).tls_certificate
        assert pair is not None
        assert pair.certificate_chain is not None
        assert pair.private_key is not None
        assert pair.ocsp_staple is None
        assert pair.certificate_chain.filename in ("/etc/cert.pem", "//etc/cert.pem")
        assert pair.private_key.filename in ("key.pem", "./key.pem")
        bodies.append(made.body)

    assert bodies[0] == bodies[2] != bodies[1]
