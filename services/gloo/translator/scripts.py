"""Lua filters, which listeners and clusters know by name: their code comes apart (ECDS), once it is used.

Each filter chain has filters of its own, and Envoy a Lua machine for each of them and for each worker. With
the code in it a listener of a thousand TLS names, as many chains, had 118 MB, and an Envoy 2.5 GB. So what
stands there is a name, and what Envoy gets for it does nothing until a route of the Proxy has settings for
it. Then it gets the code, before the route, and no listener differs for that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from protos._generated.google import protobuf
from protos.envoy import core, hcm, header_mutation, lua
from services.gloo.resources import Resource, resource
from services.gloo.translator.ads import ADS
from shared.codec.encode import encode, pack

PREFIX = "gloo."
NOTHING = pack(header_mutation.HeaderMutation())
"""What stands in for code that nobody uses; it may stand behind the router, too."""
_SETTINGS = pack(lua.LuaPerRoute()).type_url.encode()
_USED = re.compile(
    rb"(%s[a-z_.-]+)\x12.{1,4}?\x0a%c%s" % (re.escape(PREFIX.encode()), len(_SETTINGS), re.escape(_SETTINGS)),
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Script:
    """A filter as it stands everywhere, off until a route has settings for it, and what an Envoy gets for its
    name when it is used and when not."""

    filter: hcm.HttpFilter
    used: Resource
    unused: Resource


def script(name: str, code: str, *, without: protobuf.Any = NOTHING) -> Script:
    """The filter *name*, which does *without* its code as long as that is not used."""
    program = pack(lua.Lua(default_source_code=core.DataSource(inline_string=code), clear_route_cache=False))
    asked = core.ExtensionConfigSource(
        config_source=ADS, type_urls=[program.type_url, without.type_url], default_config=without
    )
    return Script(
        filter=hcm.HttpFilter(name=name, config_discovery=asked, disabled=True),
        used=_served(name, program),
        unused=replace(_served(name, without), late=True),
    )


def _served(name: str, config: protobuf.Any) -> Resource:
    return resource(name, encode(core.TypedExtensionConfig(name=name, typed_config=config)))


def scripts_in(body: bytes) -> frozenset[str]:
    """The scripts that an encoded virtual host has settings for."""
    return frozenset(each[1].decode() for each in _USED.finditer(body))
