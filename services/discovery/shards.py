"""Which Upstreams this replica writes: replicas share the work and take over from each other.

For a moment two of them may think that an Upstream is theirs; that does no harm, since each write names the
version that it was made for.
"""

from __future__ import annotations

import os
import secrets
import socket

from shared.consul.client import Consul
from shared.consul.members import Members
from shared.ref import Ref


def replicas(consul: Consul, root: str, value: bytes = b"") -> Members:
    """The discovery processes on one Consul, of which we are to be one; *value* is what we say of us."""
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    return Members(consul, f"{root}/_members/discovery/", name, value=value)


def is_mine(members: Members, ref: Ref) -> bool:
    """Whether *ref* is ours to write."""
    return members.owns(str(ref))


def has_joined(members: Members) -> bool:
    """Whether the others count on us."""
    return members.name in members.current
