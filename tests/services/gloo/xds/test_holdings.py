"""Who holds most of what there is only so much of."""

from __future__ import annotations

from services.gloo.xds.holdings import Holdings
from services.gloo.xds.line import Peer


def test_there_is_room_up_to_the_limit_and_who_holds_most_is_known() -> None:
    holdings, one, other = Holdings(5), Peer(), Peer()
    assert holdings.most() is None

    holdings.change(one, 3)
    holdings.change(other, 2)
    assert holdings.room()
    assert not holdings.room(1)
    assert holdings.most() is one

    holdings.change(one, -3)
    assert holdings.of(one) == 0
    assert holdings.room(3)
    assert holdings.most() is other
