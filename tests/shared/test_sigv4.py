"""AWS's signature, held to what AWS has published of it."""

from __future__ import annotations

from datetime import UTC, datetime

from shared.sigv4 import Key, sign_post

KEY = Key(id="AKIDEXAMPLE", secret="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
THEN = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


def test_a_post_is_signed_as_in_the_published_examples() -> None:
    signed = sign_post(
        "https://example.amazonaws.com/", {}, b"", key=KEY, region="us-east-1", service="service", now=THEN
    )

    assert signed == {
        "host": "example.amazonaws.com",
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 "
        "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, "
        "Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    }


def test_headers_body_and_session_count() -> None:
    def signature(headers: dict[str, str], body: bytes = b"", key: Key = KEY) -> str:
        url = "https://example.amazonaws.com"
        done = sign_post(url, headers, body, key=key, region="us-east-1", service="service", now=THEN)
        return done["authorization"]

    temporary = Key(id=KEY.id, secret=KEY.secret, session_token="t")
    found = {
        signature({}),
        signature({"Content-Type": "a"}),
        signature({"Content-Type": "b"}),
        signature({}, b"x"),
        signature({}, key=temporary),
    }
    assert len(found) == 5
    assert "SignedHeaders=content-type;host;x-amz-date," in signature({"Content-Type": "a"})


def test_a_key_is_in_the_environment_whole_or_not_at_all() -> None:
    assert Key.of({"AWS_ACCESS_KEY_ID": "a"}) is None
    found = Key.of({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_SESSION_TOKEN": "t"})
    assert found == Key(id="a", secret="hush", session_token="t")
    assert "hush" not in repr(found)
