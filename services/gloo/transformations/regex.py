"""Regular expressions as programs for ``runtime.lua``, which runs them in time proportional to the text.

The semantics are RE2's over bytes, so what Envoy would match is matched here; ``re2.py`` has checked the
syntax before. What follows is Thompson's construction: an instruction is

    47                 this byte                   [x, y]   go on at x, or else at y
    [[low, high, …]]   a byte of these ranges      [x]      go on at x
    "(" and ")"        the wanted group's ends     "^" "$" "A" "z" "b" "B"   assertions
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from services.gloo import re2

LARGEST = 1000
NEWLINE = 10
REPEATS = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}
Program = list[Any]


class TooMuch(ValueError):
    """RE2 takes the expression, but it has no program here; the text says why."""


def regex_program(pattern: str, group: int = 0) -> Program:
    """The program of *pattern*, a valid one; it marks where *group* was. Raises ``TooMuch``."""
    parser = _Parser(text=pattern, wanted=group)
    program: Program = []
    try:
        parser.alternation()(program)
    except RecursionError:
        raise TooMuch("nested too deeply") from None
    return program


# A node appends its instructions to a program.
Node = Any


def byte_node(members: Set[int], program: Program) -> None:
    runs: list[int] = []
    for code in sorted(members):
        if runs and runs[-1] == code - 1:
            runs[-1] = code
        else:
            runs += (code, code)
    append(program, runs[0] if len(runs) == 2 and runs[0] == runs[1] else [runs])


def append(program: Program, instruction: Any) -> None:
    if len(program) >= LARGEST:
        raise TooMuch(f"too large: more than {LARGEST} steps")
    program.append(instruction)


def mark_node(mark: str, program: Program) -> None:
    append(program, mark)


def sequence_node(nodes: list[Node], program: Program) -> None:
    for node in nodes:
        node(program)


def either_node(left: Node, right: Node, program: Program) -> None:
    fork = len(program)
    append(program, None)
    left(program)
    jump = len(program)
    append(program, None)
    program[fork] = [fork + 1, len(program)]
    right(program)
    program[jump] = [len(program)]


def repeat_node(node: Node, low: int, high: int, greedy: bool, program: Program) -> None:
    for _ in range(low):
        node(program)
    forks = []
    for _ in range(max(high - low, 1 if high < 0 else 0)):
        forks.append(len(program))
        append(program, None)
        node(program)
    if high < 0:
        append(program, [forks[0]])
    for fork in forks:
        ways = [fork + 1, len(program)]
        program[fork] = ways if greedy else ways[::-1]


@dataclass(slots=True, kw_only=True)
class _Parser:
    """A recursive descent over a pattern that is known to be valid."""

    text: str
    wanted: int
    at: int = 0
    groups: int = 0
    flags: frozenset[str] = field(default_factory=frozenset)

    @property
    def next(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, pattern: Any) -> Any:
        if found := pattern.match(self.text, self.at):
            self.at = found.end()
        return found

    def alternation(self) -> Node:
        node = self.sequence()
        if self.next == "|":
            self.at += 1
            return partial(either_node, node, self.alternation())
        return node

    def sequence(self) -> Node:
        nodes: list[Node] = []
        while self.next not in ("", "|", ")"):
            if self.next in REPEATS or re2.COUNT.match(self.text, self.at):
                nodes.append(self.repeat(nodes.pop()))
            else:
                nodes += self.items()
        return partial(sequence_node, nodes)

    def repeat(self, node: Node) -> Node:
        if counted := self.take(re2.COUNT):
            low = int(counted[1])
            high = low if counted[2] is None else int(counted[3]) if counted[3] else -1
        else:
            low, high = REPEATS[self.next]
            self.at += 1
        lazy = self.next == "?"
        self.at += lazy
        return partial(repeat_node, node, low, high, lazy == ("U" in self.flags))

    def items(self) -> list[Node]:
        char = self.next
        self.at += 1
        if char == "(":
            return self.group()
        if char == "[":
            return [self.bytes_of(self.char_class())]
        if char == ".":
            return [self.bytes_of(re2.ALL if "s" in self.flags else re2.ALL - {NEWLINE})]
        if char == "^":
            return [partial(mark_node, "^" if "m" in self.flags else "A")]
        if char == "$":
            return [partial(mark_node, "$" if "m" in self.flags else "z")]
        if char == "\\":
            return self.escape()
        return [self.char(char)]

    def char(self, char: str) -> Node:
        codes = char.encode(errors="surrogatepass")
        return partial(sequence_node, [self.bytes_of({code}) for code in codes])

    def bytes_of(self, members: Set[int]) -> Node:
        return partial(byte_node, self.folded(members))

    def folded(self, members: Set[int]) -> Set[int]:
        if "i" not in self.flags:
            return members
        return {ord(each) for code in members for each in cases(code)}

    def group(self) -> list[Node]:
        outside = self.flags
        marked = False
        if flags := self.take(re2.FLAGS):
            self.flags = (self.flags | set(flags[1])) - set(flags[2] or "")
            if flags[3] == ")":
                return []
        else:
            self.take(re2.NAMED)
            self.groups += 1
            marked = self.groups == self.wanted
        node = self.alternation()
        self.at += 1
        self.flags = outside
        if not marked:
            return [node]
        marks = partial(mark_node, "("), partial(mark_node, ")")
        return [partial(sequence_node, [marks[0], node, marks[1]])]

    def escape(self) -> list[Node]:
        if self.next == "Q":
            quoted, _, rest = self.text[self.at + 1 :].partition("\\E")
            self.at = len(self.text) - len(rest)
            return [self.char(char) for char in quoted]
        if self.next in ("A", "b", "B", "z"):
            self.at += 1
            return [partial(mark_node, self.text[self.at - 1])]
        if self.next == "C":
            self.at += 1
            return [self.bytes_of(re2.ALL)]
        return [self.bytes_of(self.class_escape() or {self.code_escape()})]

    def class_escape(self) -> Set[int] | None:
        if self.next in ("p", "P"):
            raise TooMuch(f"\\{self.next} is not supported; list the characters")
        if (members := re2.PERL_CLASSES.get(self.next)) is not None:
            self.at += 1
        return members

    def code_escape(self) -> int:
        if hexadecimal := self.take(re2.HEX):
            return int(hexadecimal[1] or hexadecimal[2], 16)
        if octal := self.take(re2.OCTAL):
            return int(octal[0], 8)
        self.at += 1
        return re2.CONTROL.get(self.text[self.at - 1], ord(self.text[self.at - 1]))

    def char_class(self) -> Set[int]:
        negated = self.next == "^"
        self.at += negated
        members: set[int] = set()
        first = True
        while first or self.next != "]":
            members |= self.class_member()
            first = False
        self.at += 1
        return re2.ALL - self.folded(members) if negated else members

    def class_member(self) -> Set[int]:
        if posix := self.take(re2.POSIX):
            members = re2.POSIX_CLASSES[posix[2]]
            return re2.ALL - members if posix[1] else members
        if self.next == "\\":
            self.at += 1
            if (found := self.class_escape()) is not None:
                return found
            self.at -= 1
        low = self.class_char()
        if self.next != "-" or self.text[self.at + 1 : self.at + 2] in ("", "]"):
            return {low}
        self.at += 1
        return set(range(low, self.class_char() + 1))

    def class_char(self) -> int:
        char = self.next
        self.at += 1
        if char == "\\":
            return self.code_escape()
        if not char.isascii():
            raise TooMuch(f"{char} cannot stand between [ and ]; write (…|{char}|…)")
        return ord(char)


def cases(code: int) -> str:
    char = chr(code)
    return char + char.swapcase() if char.isascii() else char
