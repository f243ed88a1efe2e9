"""Faults: answer a share of a route's requests with an error, or late, instead of at once."""

from __future__ import annotations

from protos import gloo
from protos.envoy import fault, fault_common
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage
from services.gloo.values import percentage

FILTER = "envoy.filters.http.fault"


def inject(faults: gloo.RouteFaults, scope: Scope) -> Patch:
    if faults.abort is None and faults.delay is None:
        return Patch()
    out = fault.HttpFault(abort=abort(faults.abort, scope), delay=delay(faults.delay, scope))
    return Patch(filters={FILTER: out})


def abort(wanted: gloo.RouteAbort | None, scope: Scope) -> fault.FaultAbort | None:
    if wanted is None:
        return None
    if not 200 <= wanted.http_status <= 599:
        scope.error("abort.httpStatus", f"{wanted.http_status} is no status of an answer; 200 to 599")
    share = percentage(wanted.percentage, "abort.percentage", scope)
    return fault.FaultAbort(http_status=wanted.http_status, percentage=share)


def delay(wanted: gloo.RouteDelay | None, scope: Scope) -> fault_common.FaultDelay | None:
    if wanted is None:
        return None
    if wanted.fixed_delay is None:
        scope.error("delay.fixedDelay", "required")
        return None
    if problem := checks.duration(wanted.fixed_delay, positive=True):
        scope.error("delay.fixedDelay", problem)
    share = percentage(wanted.percentage, "delay.percentage", scope)
    return fault_common.FaultDelay(fixed_delay=wanted.fixed_delay, percentage=share)


FEATURES = (
    Feature(
        name="faults",
        reads={"RouteFaults": ALL, "RouteAbort": ALL, "RouteDelay": ALL},
        on_route=inject,
        filter=HttpFilter(name=FILTER, stage=Stage.FAULT, config=fault.HttpFault()),
    ),
)
