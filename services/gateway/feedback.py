"""Statuses: our own findings about an object, joined with gloo's from the statuses of the Proxies.

gloo lists its findings by source object in the Proxy's ``status.details.reports``, so what is wrong with
one object is said to that object alone. Between a write of the Proxy and gloo's word on it, the objects that
were changed keep what was said of them before, and a new one has no word from gloo yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from heapq import nsmallest
from typing import Any

from services.gateway.translator.model import GW, MATCHABLES
from shared.ref import Ref, Source
from shared.report import Report
from shared.store.objects import Stored
from shared.store.spec import OBSERVED, observed
from shared.store.status import State, Status, build_status, parse_state

REPORTED_BY = "gateway"
USED_BY = "usedBy"
MOST_USERS = 10  # that are told by name
_LISTENER = re.compile(r"^(hybridGateway\.matchedGateways\[\d+\]\.)?(http|tcp|udp)Listener\.")
WARNING = "warning: "

Verdict = Mapping[Source, Report]


class Feedback:
    """What gloo said about each Proxy. *namespace* is where the Proxies are."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._verdicts: dict[str, Verdict] = {}
        self._general: dict[str, Report] = {}
        self._unjudged: dict[str, set[Source]] = {}
        self._written: dict[str, int] = {}
        self._judged: dict[str, int] = {}

    def observe(
        self, proxy: str, index: int, status: Status | None, members: Callable[[], set[Source]]
    ) -> set[Source]:
        """Take in a Proxy's status, None when it is gone; the objects of which it may say something new.

        *members* gives all objects with a share in the Proxy.
        """
        if status is None:
            for known in (self._general, self._unjudged, self._written, self._judged):
                known.pop(proxy, None)
            return members() | set(self._verdicts.pop(proxy, {}))
        if parse_state(status) is State.PENDING or index < self._written.get(proxy, 0):
            return set()
        self._judged[proxy] = index
        before, general = self._verdicts.get(proxy), self._general.get(proxy)
        verdict = findings(status)
        self._verdicts[proxy] = verdict
        self._general[proxy] = _general(status)
        awaited = self._unjudged.pop(proxy, set())
        if before is None or general != self._general[proxy]:
            return members() | set(verdict) | awaited
        return awaited | {
            source for source in before.keys() | verdict.keys() if before.get(source) != verdict.get(source)
        }

    def written(self, proxy: str, index: int, changed: Collection[Source]) -> None:
        """The Proxy was written with *changed* objects, of which gloo has said nothing yet."""
        self._written[proxy] = index
        if self._judged.get(proxy, 0) < index:
            self._unjudged.setdefault(proxy, set()).update(changed)

    def forget(self) -> None:
        """Others may have written and judged meanwhile."""
        for known in (self._verdicts, self._general, self._unjudged, self._written, self._judged):
            known.clear()

    def status(
        self,
        stored: Stored,
        own: Report,
        proxies: Collection[str],
        foreign: Collection[str] = (),
        users: Collection[Source] = (),
    ) -> dict[str, Any]:
        """The status of an object that has a share in *proxies*, and is used by *users*.

        It says that it is about this version of the object when nobody has yet to speak: when gloo has
        judged all Proxies, or when the object never came to them.
        """
        joined, subresources, awaited = Report(), dict[str, Status](), False
        joined.add(own)
        written = stored.status(self._namespace)
        known = written.get("subresourceStatuses") or {}
        for proxy in sorted(proxies):
            name = f"*v1.Proxy.{Ref(self._namespace, proxy)}"
            if proxy in foreign:
                if stored.kind.name == GW:
                    joined.error("proxyNames", f"there is a proxy {proxy} already that gateway did not make")
                continue
            said = self._said(proxy, stored.source)
            if said is not None:
                subresources[name] = build_status(self._with_general(proxy, said), reported_by="gloo")
                joined.add(said)
                continue
            awaited = True
            if isinstance(before := known.get(name), Mapping):
                subresources[name] = before
                joined.add(_told_before(before, written))
        about = observed(written) if awaited and not own.errors else stored.fingerprint
        details = ({OBSERVED: about} if about else {}) | ({USED_BY: _names(users)} if users else {})
        return build_status(
            joined, reported_by=REPORTED_BY, subresources=subresources, details=details or None
        )

    def _said(self, proxy: str, source: Source) -> Report | None:
        """gloo's findings about *source*, None while it has not judged the newest version."""
        verdict = self._verdicts.get(proxy)
        if verdict is None or source in self._unjudged.get(proxy, ()):
            return None
        return verdict.get(source, Report())

    def _with_general(self, proxy: str, said: Report) -> Report:
        both = Report()
        both.add(self._general[proxy])
        both.add(said)
        return both


def findings(status: Status) -> dict[Source, Report]:
    """The findings in a Proxy's status, by object."""
    found: dict[Source, Report] = {}
    for told in _reports(status) or ():
        source = Source(
            str(told.get("kind", "")), Ref(str(told.get("namespace", "")), str(told.get("name", "")))
        )
        report = found.setdefault(source, Report())
        for text in told.get("errors") or ():
            report.error("", _in_the_objects_words(source, str(text)))
        for text in told.get("warnings") or ():
            report.warn("", _in_the_objects_words(source, str(text)))
    return found


def _in_the_objects_words(source: Source, text: str) -> str:
    """A path in a listener as it is called in a Gateway."""
    return _LISTENER.sub(r"\1\2Gateway.", text) if source.kind in (GW, *MATCHABLES) else text


def _names(users: Collection[Source]) -> list[str]:
    more = len(users) - MOST_USERS
    return [*map(str, nsmallest(MOST_USERS, users)), *([f"and {more} more"] if more > 0 else ())]


def _told_before(sub: Status, whole: Status) -> Report:
    """The findings of a sub-status that were the object's own: those that the whole status repeats."""
    found, lines = report_of_reason(sub), str(whole.get("reason") or "").split("\n")
    return Report(
        [problem for problem in found.errors if str(problem) in lines],
        [problem for problem in found.warnings if f"{WARNING}{problem}" in lines],
    )


def _general(status: Status) -> Report:
    """What a Proxy's status says without saying whom it concerns: shown to all, laid to nobody."""
    return Report() if _reports(status) is not None else report_of_reason(status)


def _reports(status: Status) -> list[Mapping[str, Any]] | None:
    details = status.get("details")
    reports = details.get("reports") if isinstance(details, Mapping) else None
    return [told for told in reports if isinstance(told, Mapping)] if isinstance(reports, list) else None


def report_of_reason(status: Status) -> Report:
    """A status read back as the findings it was made of."""
    report, state = Report(), parse_state(status)
    reason = str(status.get("reason") or "")
    lines = [line for line in reason.split("\n") if line.strip()]
    if state is State.WARNING:
        for line in lines or ["gloo gives no reason"]:
            report.warn("", line.removeprefix(WARNING))
    elif state is State.REJECTED:
        for line in lines or ["gloo gives no reason"]:
            (report.warn if line.startswith(WARNING) else report.error)("", line.removeprefix(WARNING))
    return report
