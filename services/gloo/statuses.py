"""What gloo says about objects: the statuses of Proxies, Upstreams and UpstreamGroups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services.gloo.proxies import proxy_findings
from services.gloo.refusals import Refusal, add_refusals
from services.gloo.translator.sources import Reports
from shared.ref import Source
from shared.report import Report
from shared.store.spec import OBSERVED
from shared.store.status import build_status

REPORTED_BY = "gloo"


def proxy_status(
    found: Reports, refusals: Iterable[Refusal], owner: Source, about: str = ""
) -> dict[str, Any]:
    """A Proxy's status; its details hand every finding to the object it belongs to.

    *about* is the fingerprint of the version that is judged.

    gateway reads the details, so that a VirtualService is told of its own mistakes and of no others.
    """
    reports = dict(found)
    add_refusals(reports, refusals, owner)
    details = details_of(reports, owner) | _observing(about)
    return build_status(proxy_findings(reports, owner), reported_by=REPORTED_BY, details=details)


def object_status(report: Report, about: str = "") -> dict[str, Any]:
    return build_status(report, reported_by=REPORTED_BY, details=_observing(about))


def _observing(about: str) -> dict[str, Any]:
    return {OBSERVED: about} if about else {}


def details_of(reports: Mapping[Source, Report], owner: Source) -> dict[str, Any]:
    listed = [
        {
            "kind": source.kind,
            "namespace": source.ref.namespace,
            "name": source.ref.name,
            "errors": [str(problem) for problem in report.errors],
            "warnings": [str(problem) for problem in report.warnings],
        }
        for source, report in sorted(reports.items())
        if source != owner and not report.clean
    ]
    return {"reports": listed} if listed else {}
