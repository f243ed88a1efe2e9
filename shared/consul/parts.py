"""Cutting a large prefix into parts, each watched by itself.

Every wakeup of a recursive read costs the whole prefix, but Consul's prefixes are plain strings: ``…/vs-0``
and ``…/vs-1`` can be watched one by one, and only the one that was touched wakes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """All keys that begin with *text*, or the one key *text* when *exact*."""

    text: str
    exact: bool = False

    def covers(self, key: str) -> bool:
        return key == self.text if self.exact else key.startswith(self.text)


def partition(
    prefix: str, sizes: Mapping[str, int], *, target: int, most: int
) -> Mapping[Part, Collection[str]]:
    """Disjoint parts that cover the keys of *sizes*, cut where keys differ until each is below *target*.

    There are at most *most* of them, so some may stay larger.
    """
    parts: dict[Part, list[str]] = {Part(prefix): list(sizes)}
    whole = set[Part]()
    while True:
        weights = {part: sum(sizes[key] for key in keys) for part, keys in parts.items() if part not in whole}
        part = max(weights, key=lambda part: (weights[part], part.text), default=None)
        if part is None or weights[part] <= target:
            return parts
        cut = _cut(parts[part])
        if len(parts) - 1 + len(cut) > most or len(cut) < 2:
            whole.add(part)
        else:
            del parts[part]
            parts.update(cut)


def part_beside(prefix: str, key: str, parts: Iterable[Part]) -> Part:
    """The widest part for a *key* that none of *parts* covers, overlapping none of them."""
    texts = [part.text for part in parts]
    for end in range(len(prefix) + 1, len(key) + 1):
        if not any(text.startswith(key[:end]) for text in texts):
            return Part(key[:end])
    return Part(key, exact=True)


def _cut(keys: list[str]) -> dict[Part, list[str]]:
    low, high = min(keys), max(keys)
    stem = next(
        (end for end, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low)
    )
    cut: defaultdict[Part, list[str]] = defaultdict(list)
    for key in keys:
        cut[Part(key[: stem + 1]) if len(key) > stem else Part(key, exact=True)].append(key)
    return dict(cut)
