"""Options: what a route takes over from the one that delegates to it, and from options that are objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from protos import gateway, gloo
from services.gateway.translator.model import Lent, Read, Version
from shared.codec.overlay import overlay, taken
from shared.errors import InvalidResource
from shared.ref import Ref, Source

Stage = gloo.RequestResponseTransformations
Options = TypeVar("Options", gloo.RouteOptions, gloo.VirtualHostOptions)


def merge_options(
    own: gloo.RouteOptions | None, parent: gloo.RouteOptions | None
) -> gloo.RouteOptions | None:
    """The child's options over the parent's: what the child sets is its own, whole."""
    return overlay(inherit_transformations(own, parent), parent)


def inherit_lent(own: gloo.RouteOptions | None, parent: gloo.RouteOptions | None, lent: Lent) -> Lent:
    """Who lends what the child takes over of the parent's options, of which some are *lent*."""
    return {name: lent[name] for name in taken(own, parent) if name in lent} if lent else {}


def inherit_transformations(
    own: gloo.RouteOptions | None, parent: gloo.RouteOptions | gloo.VirtualHostOptions | None
) -> gloo.RouteOptions | None:
    """*own* options with the parent's staged transformations after their own, if they ask for them.

    Of each stage the first that fits a request counts, so their own come before those of the parent.
    """
    stages = own.staged_transformations if own is not None else None
    above = parent.staged_transformations if parent is not None else None
    if own is None or stages is None or above is None or not stages.inherit_transformation:
        return own
    escape = stages.escape_characters
    merged = dataclasses.replace(
        stages,
        early=_appended(stages.early, above.early),
        regular=_appended(stages.regular, above.regular),
        post_routing=_appended(stages.post_routing, above.post_routing),
        inherit_transformation=False,  # it is done
        escape_characters=above.escape_characters if escape is None else escape,
    )
    return dataclasses.replace(own, staged_transformations=merged)


def _appended(own: Stage | None, above: Stage | None) -> Stage | None:
    if own is None or above is None:
        return above if own is None else own
    return Stage(
        request_transforms=[*own.request_transforms, *above.request_transforms],
        response_transforms=[*own.response_transforms, *above.response_transforms],
    )


def add_options(
    own: Options | None,
    refs: gateway.DelegateOptionsRefs | None,
    kind: str,
    namespace: str,
    read: Read,
    warn: Callable[[str, str], None],
) -> tuple[Options | None, Lent, frozenset[Source]]:
    """*own* options over those of the objects that *refs* name, and earlier ones over later ones; who lends
    what, and all that was referred to.

    As in Gloo, one that is not there is a warning: what is written together may arrive one by one. References
    without a namespace are to *namespace*.
    """
    lent: dict[str, Source] = {}
    used: set[Source] = set()
    for i, named in enumerate(refs.delegate_options if refs is not None else ()):
        at, ref = f"optionsConfigRefs.delegateOptions[{i}]", Ref(named.namespace or namespace, named.name)
        version: Version[Any] | None = read(kind, ref)
        used.add(Source(kind, ref))
        if version is None:
            warn(at, f"{kind} {ref} not found")
            continue
        found = version.current
        if found is None and version.good is not None:
            warn(at, f"{kind} {ref} is rejected; its last good version serves")
            found = version.good
        if found is None:
            raise InvalidResource(at, f"{kind} {ref} is rejected, and there is no last good version")
        lent |= dict.fromkeys(taken(own, found.options), Source(kind, ref))
        own = overlay(own, found.options)
    return own, lent, frozenset(used)
