"""The default Gateways."""

from __future__ import annotations

from services.gateway.defaults import create_default_gateways
from shared.ref import Ref
from shared.store.keys import GATEWAY, key
from shared.store.memory import MemoryKV
from shared.store.objects import decode_value
from shared.store.store import Store

ROOT, NAMESPACE = "gloo", "gloo-system"


async def test_both_are_made_and_decode() -> None:
    kv = MemoryKV()

    await create_default_gateways(Store(kv, ROOT), NAMESPACE)

    found = {row.key: decode_value(ROOT, row.key, row.value, row.index) for row in kv.rows.values()}
    assert [each.ref.name for each in found.values() if each and each.message] == [
        "gateway-proxy",
        "gateway-proxy-ssl",
    ]


async def test_one_that_is_there_is_left_alone() -> None:
    at = key(ROOT, GATEWAY, Ref(NAMESPACE, "gateway-proxy"))
    kv = MemoryKV({at: b"mine"})

    await create_default_gateways(Store(kv, ROOT), NAMESPACE)

    assert kv.rows[at].value == b"mine"
    assert len(kv.rows) == 2
