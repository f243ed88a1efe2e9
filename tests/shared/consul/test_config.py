"""Where Consul is, by settings and environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from protos.gloo import Settings, SettingsConsulConfiguration
from shared.consul.config import ConsulConfig
from shared.errors import InvalidSettings


def of(environ: dict[str, str] | None = None, **consul: object) -> ConsulConfig:
    settings = Settings(consul=SettingsConsulConfiguration(**consul)) if consul else None  # type: ignore[arg-type]
    return ConsulConfig.of(settings, environ or {})


@pytest.mark.parametrize(
    ("address", "means"),
    [
        ("", "http://127.0.0.1:8500"),
        ("consul", "http://consul:8500"),
        ("consul:9000", "http://consul:9000"),
        ("http://consul", "http://consul:80"),
        ("https://consul", "https://consul:443"),
        ("https://consul:8501/", "https://consul:8501"),
        ("[::1]:8500", "http://[::1]:8500"),
        ("unix:///run/consul.sock", "unix:///run/consul.sock"),
        ("/run/consul.sock", "unix:///run/consul.sock"),
    ],
)
def test_an_address_is_read_as_consul_reads_it(address: str, means: str) -> None:
    assert of({"CONSUL_HTTP_ADDR": address}).address == means
    assert not address or of(address=address).address == means


@pytest.mark.parametrize(
    "address", ["ftp://consul", "consul:port", "http://", "unix://run", "consul:8500/v1", ":8500", "con sul"]
)
def test_an_unusable_address_names_its_source(address: str) -> None:
    with pytest.raises(InvalidSettings, match=r"^CONSUL_HTTP_ADDR: '"):
        of({"CONSUL_HTTP_ADDR": address})
    with pytest.raises(InvalidSettings, match=r"^settings: consul\.address: '"):
        of(address=address)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InvalidSettings, match=r"consul\.password") as caught:
        of(address="http://ann:hush@consul:8500/v1")

    assert "hush" not in str(caught.value)


def test_settings_win_over_the_environment() -> None:
    config = of(
        {"CONSUL_HTTP_ADDR": "elsewhere:1", "CONSUL_HTTP_TOKEN": "theirs", "CONSUL_HTTP_SSL_VERIFY": "false"},
        http_address="https://consul:8501",
        address="ignored:1",
        datacenter="dc2",
        token="mine",
        username="ann",
        password="secret",
        insecure_skip_verify=False,
        wait_time=timedelta(seconds=5),
    )

    assert config == ConsulConfig(
        scheme="https",
        host="consul",
        port=8501,
        datacenter="dc2",
        token="mine",
        username="ann",
        password="secret",
        verify=True,
        wait=5.0,
    )


def test_the_environment_fills_what_the_settings_leave_out(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    environ = {
        "CONSUL_HTTP_ADDR": "consul:8501",
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_HTTP_SSL_VERIFY": "0",
        "CONSUL_HTTP_TOKEN_FILE": str(tmp_path / "token"),
        "CONSUL_HTTP_AUTH": "ann:a:b",
        "CONSUL_CACERT": "ca.pem",
        "CONSUL_CAPATH": "ca",
        "CONSUL_CLIENT_CERT": "cert.pem",
        "CONSUL_CLIENT_KEY": "key.pem",
        "CONSUL_TLS_SERVER_NAME": "server.dc1.consul",
        "CONSUL_NAMESPACE": "team",
    }

    config = of(environ, datacenter="dc2")

    assert config == ConsulConfig(
        scheme="https",
        host="consul",
        port=8501,
        datacenter="dc2",
        namespace="team",
        token="from-file",
        username="ann",
        password="a:b",
        ca_file="ca.pem",
        ca_path="ca",
        cert_file="cert.pem",
        key_file="key.pem",
        server_name="server.dc1.consul",
        verify=False,
    )


def test_secrets_are_not_printed() -> None:
    assert "hush" not in repr(ConsulConfig(token="hush", password="hush"))


@pytest.mark.parametrize(
    "environ", [{"CONSUL_HTTP_SSL": "perhaps"}, {"CONSUL_HTTP_TOKEN_FILE": "/does/not/exist"}]
)
def test_an_unusable_variable_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match=next(iter(environ))):
        of(environ)


def test_unusable_tls_files_are_named() -> None:
    with pytest.raises(InvalidSettings, match=r"TLS files /does/not/exist"):
        ConsulConfig(scheme="https", ca_file="/does/not/exist").ssl_context()
    assert ConsulConfig().ssl_context() is None


def test_the_wait_stays_within_what_consul_takes() -> None:
    assert of(wait_time=timedelta(hours=1)).wait == 600
    assert of(hold_lost=timedelta(hours=1)).hold_lost == 3600
    assert of(hold_lost=timedelta(0)).hold_lost == 0
    assert of().hold_lost == float("inf")
    assert of(wait_time=timedelta(milliseconds=10)).wait == 1
