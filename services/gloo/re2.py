"""The regular expressions Envoy understands: a check of RE2's syntax and a bound on a program's size.

Envoy matches with RE2, which is not Python's ``re``: no look-around, no back-references, its own escapes.
A pattern RE2 refuses would make Envoy refuse every route delivered along with it, so it is found here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

MAX_REPEAT = 1000
PREAMBLE = 5  # the unanchored prefix, the match and the failing instruction of every program
ANY_RUNE = 12  # a class that takes nearly all of UTF-8's sequences
PROPERTY = 120  # a Unicode property: many ranges; how many is not worth knowing exactly
CLASS_SIZES = {"d": 1, "s": 5, "w": 7, "D": ANY_RUNE + 2, "S": ANY_RUNE + 6, "W": ANY_RUNE + 8}
REFUSED_GROUPS = {
    "?=": "look-ahead",
    "?!": "look-ahead",
    "?<=": "look-behind",
    "?<!": "look-behind",
    "?>": "an atomic group",
    "?#": "a comment",
    "?(": "a condition",
    "?P=": "a back-reference",
    "?P>": "recursion",
    "?|": "a branch reset",
}
COUNT = re.compile(r"\{(\d+)(,(\d*))?\}")
NAMED = re.compile(r"\?P?<(\w+)>")
FLAGS = re.compile(r"\?([imsU]*)(-[imsU]+)?([:)])")
POSIX = re.compile(
    r"\[:\^?(alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit)?(\w*):\]"
)
PROPERTY_NAME = re.compile(r"[pP](?:\{\^?(\w+)\}|([A-Z]))")
HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})")
OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
CONTROL = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}


class BadPattern(ValueError):
    """RE2 would refuse the pattern; the text says what and where."""


class Program(NamedTuple):
    """What RE2 makes of a pattern: about how many instructions, rather more than less, and its groups."""

    size: int
    groups: int


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Program:
    """Check *pattern* as RE2 would; raises ``BadPattern``."""
    parser = _Parser(pattern)
    try:
        size, _ = parser.alternation()
    except RecursionError:
        raise BadPattern("groups nested too deeply") from None
    if parser.at < len(pattern):
        raise parser.bad("a ) without its (")
    return Program(size + PREAMBLE, parser.groups)


@dataclass(slots=True)
class _Parser:
    """A recursive descent; the rules give (instructions, deepest count of repetitions)."""

    text: str
    at: int = 0
    names: set[str] = field(default_factory=set)
    groups: int = 0

    def bad(self, problem: str, at: int | None = None) -> BadPattern:
        return BadPattern(f"{problem}, at position {self.at if at is None else at}")

    @property
    def next(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if found := pattern.match(self.text, self.at):
            self.at = found.end()
        return found

    def alternation(self) -> tuple[int, int]:
        size, depth = self.sequence()
        while self.next == "|":
            self.at += 1
            more, deeper = self.sequence()
            size, depth = size + more + 1, max(depth, deeper)
        return size, depth

    def sequence(self) -> tuple[int, int]:
        parts: list[tuple[int, int]] = []
        while self.next not in ("", "|", ")"):
            if self.at_repeat():
                if not parts:
                    raise self.bad(f"nothing before {self.next} to repeat")
                parts[-1] = self.repeat(*parts[-1])
            elif part := self.item():
                parts.append(part)
        return sum(size for size, _ in parts), max((depth for _, depth in parts), default=1)

    def at_repeat(self) -> bool:
        return self.next in ("*", "+", "?") or COUNT.match(self.text, self.at) is not None

    def repeat(self, size: int, depth: int) -> tuple[int, int]:
        start = self.at
        if counted := self.take(COUNT):
            low = int(counted[1])
            high = low if counted[2] is None else int(counted[3]) if counted[3] else -1
        else:
            low, high = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}[self.next]
            self.at += 1
        if self.next == "?":
            self.at += 1
        if self.at_repeat():
            raise self.bad("two repetitions in a row (RE2 has no possessive ones)", start)
        times = max(low, high)
        if counted and 0 <= high < low:
            raise self.bad("a repetition that ends before it begins", start)
        if counted and times * depth > MAX_REPEAT:
            raise self.bad(f"more than {MAX_REPEAT} repetitions in all", start)
        copies = max(times, 1)
        return size * copies + (high - low if high >= 0 else 2), depth * copies if counted else depth

    def item(self) -> tuple[int, int] | None:
        if self.next == "(":
            return self.group()
        if self.next == "[":
            return self.char_class(), 1
        if self.next == "\\":
            return self.escape(), 1
        char = self.next
        self.at += 1
        return (ANY_RUNE if char == "." else len(char.encode())), 1

    def group(self) -> tuple[int, int] | None:
        start = self.at
        self.at += 1
        captures = 2
        if self.next == "?":
            for opening, meaning in REFUSED_GROUPS.items():
                if self.text.startswith(opening, self.at):
                    raise self.bad(f"{meaning}, ({opening}, which RE2 does not have", start)
            if named := self.take(NAMED):
                if named[1] in self.names:
                    raise self.bad(f"the group name {named[1]} twice", start)
                self.names.add(named[1])
            elif flags := self.take(FLAGS):
                if flags[3] == ")":
                    return None
                captures = 0
            else:
                raise self.bad("a group that RE2 does not have", start)
        self.groups += captures // 2
        size, depth = self.alternation()
        if self.next != ")":
            raise self.bad("a ( without its )", start)
        self.at += 1
        return size + captures, depth

    def escape(self) -> int:
        start = self.at
        self.at += 1
        if self.text.startswith("Q", self.at):
            end = self.text.find("\\E", self.at)
            quoted = self.text[self.at + 1 : end if end >= 0 else None]
            self.at = end + 2 if end >= 0 else len(self.text)
            return len(quoted.encode())
        if self.next and self.next in "bBAzC":
            self.at += 1
            return 1
        if (size := self.class_escape()) is not None:
            return size
        return len(chr(self.code_escape(start)).encode(errors="surrogatepass"))

    def class_escape(self) -> int | None:
        """The escapes that stand for several characters, in a class and outside one."""
        if self.next and self.next in CLASS_SIZES:
            self.at += 1
            return CLASS_SIZES[self.text[self.at - 1]]
        return PROPERTY if self.take(PROPERTY_NAME) else None

    def code_escape(self, start: int) -> int:
        """The escapes that stand for one character; *start* is where the backslash is."""
        if hexadecimal := self.take(HEX):
            code = int(hexadecimal[1] or hexadecimal[2], 16)
            if code <= 0x10FFFF:
                return code
        elif octal := self.take(OCTAL):
            return int(octal[0], 8)
        elif self.next and self.next in CONTROL:
            self.at += 1
            return CONTROL[self.text[self.at - 1]]
        elif self.next.isascii() and self.next.isprintable() and not self.next.isalnum() and self.next:
            self.at += 1
            return ord(self.text[self.at - 1])
        shown = self.text[start : start + 2]
        raise self.bad("a \\ at the end" if shown == "\\" else f"{shown}, which RE2 does not have", start)

    def char_class(self) -> int:
        start = self.at
        self.at += 1
        negated = self.next == "^"
        self.at += negated
        size, first = 0, True
        while first or self.next != "]":
            if not self.next:
                raise self.bad("a [ without its ]", start)
            size += self.class_member(start)
            first = False
        self.at += 1
        return size + ANY_RUNE if negated else max(2 * size - 1, 1)

    def class_member(self, start: int) -> int:
        if posix := self.take(POSIX):
            if posix[1] is None or posix[2]:
                raise self.bad(f"the class {posix[0]}, which RE2 does not have", start)
            return 4
        if self.next == "\\":
            self.at += 1
            if (size := self.class_escape()) is not None:
                return size
            self.at -= 1
        low = self.class_char()
        if self.next == "-" and self.text[self.at + 1 : self.at + 2] not in ("", "]"):
            self.at += 1
            high = self.class_char()
            if high < low:
                raise self.bad("a range that ends before it begins", start)
            return 1 if high < 0x80 else ANY_RUNE
        return len(chr(low).encode(errors="surrogatepass"))

    def class_char(self) -> int:
        start = self.at
        self.at += 1
        if self.text[start] == "\\":
            return self.code_escape(start)
        return ord(self.text[start])
