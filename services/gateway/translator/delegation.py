"""Delegation: the routes of a virtual service, with those of the route tables it delegates to in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

from protos import gateway, gloo
from services.gateway.translator import labels
from services.gateway.translator.matchers import (
    Inheritance,
    OutsideParent,
    default_matchers,
    inherit,
)
from services.gateway.translator.model import (
    RO,
    RT,
    RULES,
    Lent,
    Read,
    Routed,
    Rules,
    Step,
    TableTraits,
    Version,
    all_of,
    report_of,
)
from services.gateway.translator.options import (
    add_options,
    inherit_lent,
    inherit_transformations,
    merge_options,
)
from shared.errors import InvalidResource
from shared.ref import Ref, Source
from shared.report import Report, join
from shared.routes import message_key, sort_routes
from shared.store.view import ALL

MAX_DEPTH = 32
MAX_VISITS = 100_000
"""Tables that delegate twice to the next one double the routes at each level; somewhere it must end."""


class TooManyRoutes(InvalidResource):
    """Delegation multiplies routes beyond all use; it ends the translation of its virtual service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A delegating route, as the routes below it see it."""

    steps: tuple[Step, ...]
    inheritance: Inheritance
    options: gloo.RouteOptions | None
    lent: Lent
    name: str


@dataclass(slots=True, kw_only=True)
class Walk:
    """One walk from a virtual service through its route tables.

    ``host`` are the options of the virtual host, ``held`` the tables to take at their last good version.
    Afterwards ``blamed`` are the tables whose version as written has errors, ``complete`` is false when one
    of them could not be replaced.
    """

    read: Read
    host: gloo.VirtualHostOptions | None = None
    held: frozenset[Ref] = frozenset()
    reports: dict[Source, Report] = field(default_factory=dict)
    used: set[Source] = field(default_factory=set)
    blamed: set[Ref] = field(default_factory=set)
    complete: bool = True
    visits: int = 0

    def expand(
        self, routes: Sequence[gateway.Route], owner: Step, parent: Parent | None = None
    ) -> list[Routed]:
        """The routes that *routes* stand for; a wrong one is reported on its object and left out.

        *owner* is the object the routes are in, its path what goes before ``routes[0]``.
        """
        found: list[Routed] = []
        above = parent.steps if parent else ()
        for i, route in enumerate(routes):
            self._count()
            path = join(owner.path, f"routes[{i}]")
            steps = (*above, Step(owner.source, path))
            try:
                found += self._route(route, steps, parent)
            except OutsideParent as outside:
                text = f"{outside.problem}; the route is left out"
                self._warn(steps, outside.path, text, where=f" ({_place(steps[-2])})")
            except TooManyRoutes:
                raise
            except InvalidResource as invalid:
                self._error(steps, invalid)
        return found

    def _route(self, route: gateway.Route, steps: tuple[Step, ...], parent: Parent | None) -> list[Routed]:
        inheritance = _inheritance(route, parent)
        matchers = list(route.matchers)
        if inheritance is not None:
            matchers = inherit(matchers, inheritance)
        refs, here = route.options_config_refs, steps[-1].source.ref.namespace
        options, lent, used = add_options(
            route.options, refs, RO, here, self.read, partial(self._warn, steps)
        )
        self.used |= used
        if parent is not None:
            lent = {**lent, **inherit_lent(options, parent.options, parent.lent)}
            options = merge_options(options, parent.options)
        else:
            options = inherit_transformations(options, self.host)
        name = route.name or (parent.name if parent else "")
        if route.delegate_action is not None:
            below = Parent(
                steps=steps,
                inheritance=Inheritance(
                    matcher=_delegating_matcher(matchers),
                    path=inheritance.path if inheritance else bool(route.inheritable_path_matchers),
                    rest=inheritance.rest if inheritance else bool(route.inheritable_matchers),
                ),
                options=options,
                lent=lent,
                name=name,
            )
            return self._delegate(route.delegate_action, below)
        actions = (route.route_action, route.redirect_action, route.direct_response_action)
        if all(action is None for action in actions):
            raise InvalidResource(
                "", "has no action: set routeAction, redirectAction, directResponseAction or delegateAction"
            )
        return [
            Routed(
                written=route,
                matchers=matchers,
                options=options,
                name=name,
                own=options is route.options and parent is None,
                steps=steps,
                lent=lent,
            )
        ]

    def _delegate(self, action: gateway.DelegateAction, parent: Parent) -> list[Routed]:
        here = parent.steps[-1]
        rules: Rules = self.read(RULES, ALL)
        if action.selector is not None:
            _refuse_both(action, "selector")
            chosen = self._select(action.selector, here.source.ref.namespace)
            if not chosen:
                self._warn(parent.steps, "delegateAction.selector", "selects no route table")
        else:
            chosen = [(0, _single(action, here.source.ref.namespace))]
        found: list[Routed] = []
        for _, group in groupby(chosen, key=lambda pair: pair[0]):
            refs = [ref for _, ref in group]
            routes = [routed for ref in refs for routed in self._table(ref, parent)]
            if len(refs) > 1 or rules.sort_tables:
                routes = sort_routes(routes, lambda routed: message_key(routed))
            found += routes
        return found

    def _select(self, selector: gateway.RouteTableSelector, namespace: str) -> list[tuple[int, Ref]]:
        """The tables a selector chooses, with their weight, in order of weight and name."""
        labels.check(selector.expressions, "delegateAction.selector.expressions")
        everywhere, namespaces = "*" in selector.namespaces, selector.namespaces or [namespace]
        tables: Mapping[Ref, TableTraits] = self.read(all_of(RT), ALL) or {}
        return sorted(
            (traits.weight, ref)
            for ref, traits in tables.items()
            if (everywhere or ref.namespace in namespaces)
            and labels.match(traits.labels, selector.labels, selector.expressions)
        )

    def _table(self, ref: Ref, parent: Parent) -> list[Routed]:
        source = Source(RT, ref)
        chain = [step.source for step in parent.steps]
        if source in chain:
            self._cycle(parent.steps[chain.index(source) :])
            return []
        if len(chain) > MAX_DEPTH:
            raise InvalidResource("delegateAction", f"is nested deeper than {MAX_DEPTH} route tables")
        self.used.add(source)
        table = self._version(ref, parent.steps)
        if table is None:
            return []
        return self.expand(table.routes, Step(source), parent)

    def _version(self, ref: Ref, steps: tuple[Step, ...]) -> gateway.RouteTable | None:
        """The version of a table to use; which one, if it is not the one written, is said to the parent."""
        version: Version[gateway.RouteTable] | None = self.read(RT, ref)
        if version is None:
            self._warn(steps, "delegateAction", f"route table {ref} not found")
            return None
        if version.current is not None and ref not in self.held:
            return version.current
        if version.good is not None:
            self._warn(
                steps, "delegateAction", f"route table {ref} is rejected; its last good version serves"
            )
            return version.good
        self.complete = False
        self._warn(steps, "delegateAction", f"route table {ref} is rejected; its routes are left out")
        return None

    def _cycle(self, round: tuple[Step, ...]) -> None:
        """Every table of the circle is told; none of them knows who closed it."""
        names = " -> ".join(str(step.source.ref) for step in (*round, round[0]))
        for step in round:
            self._blame(step, InvalidResource("delegateAction", f"delegation goes in a circle: {names}"))

    def _error(self, steps: tuple[Step, ...], invalid: InvalidResource) -> None:
        self._blame(steps[-1], invalid)
        if len(steps) > 1:
            self._tell_service(steps, f"{join(steps[-1].path, invalid.path)}: {invalid.problem}")

    def _blame(self, step: Step, invalid: InvalidResource) -> None:
        report = report_of(self.reports, step.source)
        path = join(step.path, invalid.path)
        if all((known.path, known.text) != (path, invalid.problem) for known in report.errors):
            report.error(path, invalid.problem)
        if step.source.kind == RT:
            self.blamed.add(step.source.ref)
            self.complete = False

    def _warn(self, steps: tuple[Step, ...], path: str, text: str, where: str = "") -> None:
        """Warn on the route's object; *where* is for those who do not know from where they are looked at."""
        at = join(steps[-1].path, path)
        _warn_once(report_of(self.reports, steps[-1].source), at, text + where)
        if len(steps) > 1:
            self._tell_service(steps, f"{at}: {text}")

    def _tell_service(self, steps: tuple[Step, ...], text: str) -> None:
        """The virtual service's owner sees what happens in its tables too."""
        top, leaf = steps[0], steps[-1]
        _warn_once(report_of(self.reports, top.source), top.path, f"on {_words(leaf.source)}: {text}")

    def _count(self) -> None:
        self.visits += 1
        if self.visits > MAX_VISITS:
            raise TooManyRoutes(
                "virtualHost.routes", f"delegation makes more than {MAX_VISITS} routes of them"
            )


def _inheritance(route: gateway.Route, parent: Parent | None) -> Inheritance | None:
    """What a route inherits: as its parent says, unless it says so itself."""
    if parent is None:
        return None
    above, path, rest = parent.inheritance, route.inheritable_path_matchers, route.inheritable_matchers
    return Inheritance(
        matcher=above.matcher,
        path=above.path if path is None else path,
        rest=above.rest if rest is None else rest,
    )


def _delegating_matcher(matchers: Sequence[gloo.Matcher]) -> gloo.Matcher:
    if len(matchers) > 1:
        raise InvalidResource("matchers", f"a delegating route has one matcher, not {len(matchers)}")
    matcher = matchers[0] if matchers else default_matchers()[0]
    if matcher.prefix is None:
        raise InvalidResource("matchers[0]", "a delegating route matches by prefix")
    return matcher


def _single(action: gateway.DelegateAction, namespace: str) -> Ref:
    """The one table meant by ``ref``, or by the older ``name`` and ``namespace``."""
    if action.ref is not None:
        _refuse_both(action, "ref")
        at, name, given = "delegateAction.ref.name", action.ref.name, action.ref.namespace
    else:
        at, name, given = "delegateAction", action.name, action.namespace
    if not name:
        raise InvalidResource(at, "names no route table: set ref or selector")
    return Ref(given or namespace, name)


def _refuse_both(action: gateway.DelegateAction, member: str) -> None:
    if action.name or action.namespace:
        raise InvalidResource("delegateAction", f"has {member} beside name and namespace; keep one of them")


def _warn_once(report: Report, path: str, text: str) -> None:
    if all((known.path, known.text) != (path, text) for known in report.warnings):
        report.warn(path, text)


def _words(source: Source) -> str:
    return f"{'route table' if source.kind == RT else 'virtual service'} {source.ref}"


def _place(step: Step) -> str:
    return f"{step.path} of {_words(step.source)}"
