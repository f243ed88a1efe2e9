"""Outlier detection: instances that fail real requests get none for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from protos import gloo
from protos.envoy import cluster
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, Patch, Scope

LONGEST_EJECTION = timedelta(seconds=300)  # where Envoy is not told another one
SHARES = {
    "maxEjectionPercent": "max_ejection_percent",
    "enforcingConsecutive5xx": "enforcing_consecutive_5xx",
    "enforcingSuccessRate": "enforcing_success_rate",
    "enforcingConsecutiveGatewayFailure": "enforcing_consecutive_gateway_failure",
    "enforcingConsecutiveLocalOriginFailure": "enforcing_consecutive_local_origin_failure",
    "enforcingLocalOriginSuccessRate": "enforcing_local_origin_success_rate",
}
COUNTS = {
    "consecutive5xx": "consecutive_5xx",
    "consecutiveGatewayFailure": "consecutive_gateway_failure",
    "consecutiveLocalOriginFailure": "consecutive_local_origin_failure",
    "successRateMinimumHosts": "success_rate_minimum_hosts",
    "successRateRequestVolume": "success_rate_request_volume",
    "successRateStdevFactor": "success_rate_stdev_factor",
}
LOCAL = (
    *("consecutiveLocalOriginFailure", "enforcingConsecutiveLocalOriginFailure"),
    "enforcingLocalOriginSuccessRate",
)


def detect_outliers(given: gloo.OutlierDetection, scope: Scope) -> Patch:
    fields: dict[str, Any] = {
        "interval": given.interval,
        "base_ejection_time": given.base_ejection_time,
        "split_external_local_origin_errors": given.split_external_local_origin_errors,
        "always_eject_one_host": True,
    }
    if given.interval is None:
        scope.error("interval", "required")
    elif problem := checks.duration(given.interval, positive=True):
        scope.error("interval", problem)
    if given.base_ejection_time is not None:
        if problem := checks.duration(given.base_ejection_time, positive=True):
            scope.error("baseEjectionTime", problem)
        elif given.base_ejection_time > LONGEST_EJECTION:
            fields["max_ejection_time"] = given.base_ejection_time
    for name, attribute in (SHARES | COUNTS).items():
        value = getattr(given, attribute)
        if value is None:
            continue
        fields[attribute] = value
        if name in SHARES and value > 100:
            scope.error(name, f"{value} is no percentage; 0 to 100")
        if name in LOCAL and not given.split_external_local_origin_errors:
            scope.warn(name, "has no effect without splitExternalLocalOriginErrors")
    return Patch(fields={"outlier_detection": cluster.OutlierDetection(**fields)})


FEATURES = (Feature(name="outlierDetection", reads={"OutlierDetection": ALL}, on_upstream=detect_outliers),)
