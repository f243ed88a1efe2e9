"""Filters of access logs: which requests are told of."""

from __future__ import annotations

from collections.abc import Sequence

from protos import gloo
from protos.envoy import access_log, core
from services.gloo import checks
from services.gloo.plugin import ALL, Scope, within
from services.gloo.values import fraction, header_matcher

FLAGS = (
    *("DC", "DF", "DI", "DO", "DPE", "DR", "DT", "FI", "IH", "LH", "LR", "NC", "NFCF", "NR", "OM", "RFCF"),
    *("RL", "RLSE", "SI", "UAEX", "UC", "UDO", "UF", "UH", "UMSDR", "UO", "UPE", "UR", "URX", "UT"),
)
READS = dict.fromkeys(
    (
        *("AccessLogFilter", "ComparisonFilter", "RuntimeUInt32", "FractionalPercent", "StatusCodeFilter"),
        *("DurationFilter", "NotHealthCheckFilter", "TraceableFilter", "RuntimeFilter", "AndFilter"),
        *("OrFilter", "HeaderFilter", "ResponseFlagFilter", "GrpcStatusFilter"),
    ),
    ALL,
)


def translate_filter(given: gloo.AccessLogFilter, scope: Scope) -> access_log.AccessLogFilter:
    if given.status_code_filter is not None:
        compared = comparison(given.status_code_filter.comparison, within(scope, "statusCodeFilter"))
        return access_log.AccessLogFilter(status_code_filter=access_log.StatusCodeFilter(comparison=compared))
    if given.duration_filter is not None:
        compared = comparison(given.duration_filter.comparison, within(scope, "durationFilter"))
        return access_log.AccessLogFilter(duration_filter=access_log.DurationFilter(comparison=compared))
    if given.not_health_check_filter is not None:
        return access_log.AccessLogFilter(not_health_check_filter=access_log.NotHealthCheckFilter())
    if given.traceable_filter is not None:
        return access_log.AccessLogFilter(traceable_filter=access_log.TraceableFilter())
    if given.runtime_filter is not None:
        drawn = by_chance(given.runtime_filter, within(scope, "runtimeFilter"))
        return access_log.AccessLogFilter(runtime_filter=drawn)
    if given.and_filter is not None:
        members = several(given.and_filter.filters, within(scope, "andFilter"))
        return access_log.AccessLogFilter(and_filter=access_log.AndFilter(filters=members))
    if given.or_filter is not None:
        members = several(given.or_filter.filters, within(scope, "orFilter"))
        return access_log.AccessLogFilter(or_filter=access_log.OrFilter(filters=members))
    if given.header_filter is not None:
        header = given.header_filter.header or gloo.HeaderMatcher()
        matched = header_matcher(header, within(scope, "headerFilter.header"))
        return access_log.AccessLogFilter(header_filter=access_log.HeaderFilter(header=matched))
    if given.response_flag_filter is not None:
        flags = list(given.response_flag_filter.flags)
        for i, flag in enumerate(flags):
            if flag not in FLAGS:
                where = f"responseFlagFilter.flags[{i}]"
                scope.error(where, f"{checks.shown(flag)} is none of {', '.join(FLAGS)}")
        return access_log.AccessLogFilter(response_flag_filter=access_log.ResponseFlagFilter(flags=flags))
    if given.grpc_status_filter is not None:
        statuses = [access_log.GrpcStatusFilterStatus(each) for each in given.grpc_status_filter.statuses]
        by_status = access_log.GrpcStatusFilter(statuses=statuses, exclude=given.grpc_status_filter.exclude)
        return access_log.AccessLogFilter(grpc_status_filter=by_status)
    scope.error("", "no filter; one of statusCodeFilter, durationFilter, andFilter, orFilter, …")
    return access_log.AccessLogFilter()


def comparison(given: gloo.ComparisonFilter | None, scope: Scope) -> access_log.ComparisonFilter:
    if given is None or given.value is None:
        scope.error("comparison.value", "required")
        return access_log.ComparisonFilter()
    if not given.value.runtime_key:
        scope.error("comparison.value.runtimeKey", "required: a key of Envoy's runtime, such as log.least")
    value = core.RuntimeUInt32(default_value=given.value.default_value, runtime_key=given.value.runtime_key)
    return access_log.ComparisonFilter(op=access_log.ComparisonFilterOp(given.op), value=value)


def by_chance(given: gloo.RuntimeFilter, scope: Scope) -> access_log.RuntimeFilter:
    if not given.runtime_key:
        scope.error("runtimeKey", "required: a key of Envoy's runtime, such as log.share")
    return access_log.RuntimeFilter(
        runtime_key=given.runtime_key,
        percent_sampled=fraction(given.percent_sampled) if given.percent_sampled is not None else None,
        use_independent_randomness=given.use_independent_randomness,
    )


def several(given: Sequence[gloo.AccessLogFilter], scope: Scope) -> list[access_log.AccessLogFilter]:
    if len(given) < 2:
        scope.error("filters", "needs two or more")
    return [translate_filter(each, within(scope, f"filters[{i}]")) for i, each in enumerate(given)]
