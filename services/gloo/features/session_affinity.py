"""Session affinity: requests of a session go to the instance that answered the first.

Envoy tells the client the instance's address, in a cookie or a header that the client brings along.
"""

from __future__ import annotations

from datetime import timedelta

import betterproto2

from protos import gloo
from protos.envoy import core, http_type, route, session_cookie, session_header, stateful_session
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage
from shared.codec.encode import pack

FILTER = "envoy.filters.http.stateful_session"
COOKIE, HEADER = "envoy.http.stateful_session.cookie", "envoy.http.stateful_session.header"
SECOND = timedelta(seconds=1)


def keep_sessions(wanted: gloo.SessionAffinity, scope: Scope) -> Patch:
    if wanted.cookie is not None:
        return keeping(COOKIE, cookie(wanted.cookie, scope), wanted)
    if wanted.header is not None:
        if problem := checks.header_name(wanted.header):
            scope.error("header", problem)
        return keeping(HEADER, session_header.HeaderBasedSessionState(name=wanted.header), wanted)
    if wanted.strict:
        scope.error("strict", "says nothing without a cookie or header")
    if wanted.disabled is None:
        scope.error("", "no kind; one of cookie, header, disabled")
    return Patch(filters={FILTER: route.FilterConfig(disabled=True)}) if wanted.disabled else Patch()


def keeping(name: str, state: betterproto2.Message, wanted: gloo.SessionAffinity) -> Patch:
    kept = core.TypedExtensionConfig(name=name, typed_config=pack(state))
    found = stateful_session.StatefulSession(session_state=kept, strict=wanted.strict)
    return Patch(filters={FILTER: stateful_session.StatefulSessionPerRoute(stateful_session=found)})


def cookie(given: gloo.SessionCookie, scope: Scope) -> session_cookie.CookieBasedSessionState:
    if not given.name:
        scope.error("cookie.name", "required")
    elif not checks.TOKEN.fullmatch(given.name):
        scope.error("cookie.name", f"{checks.shown(given.name)} is no cookie name")
    if given.ttl is not None:
        if problem := checks.duration(given.ttl):
            scope.error("cookie.ttl", problem)
        elif given.ttl % SECOND:
            scope.error("cookie.ttl", "must be of whole seconds")
    if given.path and not given.path.startswith("/"):
        scope.error("cookie.path", "must begin with /")
    elif problem := checks.text_value(given.path):
        scope.error("cookie.path", problem)
    elif ";" in given.path:
        scope.error("cookie.path", "must not contain ;")
    return session_cookie.CookieBasedSessionState(
        cookie=http_type.Cookie(name=given.name, ttl=given.ttl, path=given.path or "/")
    )


FEATURES = (
    Feature(
        name="sessionAffinity",
        reads={"SessionAffinity": ALL, "SessionCookie": ALL},
        on_virtual_host=keep_sessions,
        on_route=keep_sessions,
        filter=HttpFilter(
            name=FILTER, stage=Stage.ROUTE, weight=1, config=stateful_session.StatefulSession()
        ),
    ),
)
