"""The order of routes by specificity, as Gloo sorts them: for merged hosts, pooled tables and ``route sort``.

Routes are compared by their smallest matcher, matchers by method count (more first), then by kind of path
(exact, regex, prefix), then by path in descending byte order, so that ``/foo/bar`` comes before ``/foo``.
Headers and query parameters play no part. The sort is stable: equal routes keep their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")
Key = tuple[int, int, str]

EXACT, REGEX, PREFIX = 1, 2, 3  # a matcher without any of them counts as the smallest
_INVERTED = bytes(255 - byte for byte in range(256))
_END = "\u0100"  # greater than every inverted byte: a longer path comes before its own beginning


class PathMatcher(Protocol):
    """The parts of a matcher that take part in the order; ``protos.gloo.Matcher`` has them."""

    @property
    def prefix(self) -> str | None: ...
    @property
    def exact(self) -> str | None: ...
    @property
    def regex(self) -> str | None: ...
    @property
    def methods(self) -> Sequence[str]: ...


class MatchedRoute(Protocol):
    """Anything with matchers: a route of a VirtualService, of a RouteTable or of a Proxy."""

    @property
    def matchers(self) -> Sequence[PathMatcher]: ...


def matcher_key(
    *, prefix: str | None = None, exact: str | None = None, regex: str | None = None, methods: int = 0
) -> Key:
    """The place of one matcher in the order; *methods* is how many it lists."""
    for kind, path in ((EXACT, exact), (REGEX, regex), (PREFIX, prefix)):
        if path is not None:
            inverted = path.encode(errors="surrogatepass").translate(_INVERTED).decode("latin-1")
            return -methods, kind, inverted + _END
    return -methods, 0, ""


DEFAULT_KEY = matcher_key(prefix="/")


def route_key(keys: Iterable[Key]) -> Key:
    """The place of a route, from those of its matchers; without matchers it stands for the prefix ``/``."""
    return min(keys, default=DEFAULT_KEY)


def message_key(route: MatchedRoute) -> Key:
    """The place of a decoded route."""
    return route_key(
        matcher_key(prefix=each.prefix, exact=each.exact, regex=each.regex, methods=len(each.methods))
        for each in route.matchers
    )


def document_key(route: Mapping[str, object]) -> Key:
    """The place of a route that was not decoded: a mapping with Gloo's JSON names."""
    matchers = route.get("matchers")
    return route_key(_document_keys(matchers if isinstance(matchers, list) else []))


def _document_keys(matchers: Iterable[object]) -> Iterable[Key]:
    for matcher in matchers:
        if isinstance(matcher, Mapping):
            paths = {kind: matcher.get(kind) for kind in ("prefix", "exact", "regex")}
            methods = matcher.get("methods")
            yield matcher_key(
                **{kind: path for kind, path in paths.items() if isinstance(path, str)},
                methods=len(methods) if isinstance(methods, list) else 0,
            )


def sort_routes(routes: Sequence[T], key: Callable[[T], Key]) -> list[T]:
    """The routes by specificity; *key* is ``message_key`` or ``document_key``."""
    return sorted(routes, key=key)
