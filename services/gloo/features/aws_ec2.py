"""EC2: instances found by their tags as the hosts of an upstream."""

from __future__ import annotations

from dataclasses import dataclass

from protos import gloo
from services.gloo import checks
from services.gloo.features.aws_lambda import REGION, REQUIRED
from services.gloo.plugin import Feature, Patch, Scope
from services.gloo.translator.secret import look_up_key

FLEET = "Fleet"  # what is read of an Upstream's instances, by its own reference
DEFAULT_PORT = 80
MAX_TAGS = 50  # EC2 takes 200 values of filters; an instance has no more tags than this


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The addresses of an Upstream's instances; with a *problem*, as of before. *asked*: EC2 has answered."""

    addresses: tuple[str, ...] = ()
    problem: str = ""
    asked: bool = False


def check(spec: gloo.AwsEc2UpstreamSpec, scope: Scope) -> Patch:
    if not REGION.fullmatch(spec.region):
        scope.error("region", f"{checks.shown(spec.region)} is no region" if spec.region else REQUIRED)
    if spec.port and (problem := checks.port(spec.port)):
        scope.error("port", problem)
    if len(spec.filters) > MAX_TAGS:
        scope.error("filters", f"more than {MAX_TAGS}, and no instance has so many tags")
    for i, each in enumerate(spec.filters):
        if not (each.kv_pair.key if each.kv_pair is not None else each.key):
            at = "kvPair.key" if each.kv_pair is not None else "key"
            scope.error(f"filters[{i}].{at}", REQUIRED)
    if spec.secret_ref is not None:
        look_up_key(spec.secret_ref, scope)
    return Patch()


FEATURES = (
    Feature(
        name="awsEc2",
        reads={
            "AwsEc2UpstreamSpec": ("region", "secretRef", "filters", "publicIp", "port"),
            "TagFilter": ("key", "kvPair"),
            "TagFilter.KvPair": ("key", "value"),
        },
        on_upstream=check,
    ),
)
