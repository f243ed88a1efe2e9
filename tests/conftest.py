"""Fixtures for all tests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from tests.support.consul import ConsulServer

# Slow callbacks are about this machine, not about what a test looks for in the log.
logging.getLogger("asyncio").addFilter(lambda record: not record.getMessage().startswith("Executing "))


@pytest.fixture(scope="session")
def _shared_consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    server = ConsulServer(tmp_path_factory.mktemp("consul"))
    try:
        asyncio.run(server.start())
        yield server
    finally:
        asyncio.run(server.stop())


@pytest.fixture
def consul_server(_shared_consul: ConsulServer) -> ConsulServer:
    """A running, empty Consul (dev mode). Tests that stop or wipe one start a server of their own."""
    asyncio.run(_shared_consul.clear())
    return _shared_consul


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew")
