"""HTTP/3: what answers tell of it. The listener of it is another one, beside that of TCP."""

from __future__ import annotations

from datetime import timedelta

from protos import gloo
from protos.envoy import core, header_mutation, mutation_rules
from services.gloo import checks
from services.gloo.plugin import ALL, Feature, HttpFilter, Patch, Scope, Stage

ALT_SVC = "gloo.alt_svc"
REPLACE = core.HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
A_DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


def check(wanted: gloo.Http3, scope: Scope) -> Patch:
    if wanted.advertised_port is not None and (problem := checks.port(wanted.advertised_port)):
        scope.error("advertisedPort", problem)
    if wanted.advertised_for is not None:
        if problem := checks.duration(wanted.advertised_for):
            scope.error("advertisedFor", problem)
        elif wanted.advertised_for % SECOND:
            scope.error("advertisedFor", "must be of whole seconds")
    return Patch()


def told(wanted: gloo.Http3, port: int) -> Patch:
    """Have all answers of a listener on *port* tell of HTTP/3; the filter stands in no other listener."""
    age = A_DAY if wanted.advertised_for is None else wanted.advertised_for
    value = f'h3=":{wanted.advertised_port or port}"; ma={age // SECOND}'
    header = core.HeaderValueOption(
        header=core.HeaderValue(key="alt-svc", value=value), append_action=REPLACE
    )
    changes = header_mutation.Mutations(response_mutations=[mutation_rules.HeaderMutation(append=header)])
    config = header_mutation.HeaderMutation(mutations=changes)
    first = HttpFilter(name=ALT_SVC, stage=Stage.FAULT, weight=-1, config=config)
    return Patch(waiting=(first,), filters={ALT_SVC: config})


FEATURES = (Feature(name="http3", reads={"Http3": ALL}, on_listener=check),)
