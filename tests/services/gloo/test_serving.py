"""The xDS server as the settings want it."""

from __future__ import annotations

import pytest

from protos import gloo
from services.gloo.serving import Serving
from services.gloo.xds import Cache
from services.gloo.xds.server import Silent
from shared.runtime.supervise import Supervisor
from shared.telemetry.metrics import Metrics


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("127.1", True)])
async def test_to_serve_without_tls_elsewhere_than_on_loopback_is_warned_of(
    host: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Another way to write a loopback address does for what others could reach."""
    settings = gloo.Settings(gloo=gloo.GlooOptions(xds_bind_addr=f"{host}:0"))
    serving = Serving(settings, Cache(), Silent(), lambda event, type_url, amount: None)

    async with Supervisor(Metrics()) as tasks:
        await serving.start(tasks)
        await serving.server.stop(1)

    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert any("served without TLS" in each and "settings.gloo.xds.tls" in each for each in said) is warned
