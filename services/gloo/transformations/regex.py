"""Regular expressions as programs for ``runtime.lua``, which runs them in time proportional to the text.

The semantics are RE2's over bytes, so what Envoy would match is matched here. What follows is Thompson's
construction: an instruction is

    47                 this byte                   [x, y]   go on at x, or else at y
    [[low, high, …]]   a byte of these ranges      [x]      go on at x
    "(" and ")"        the wanted group's ends     "^" "$" "A" "z" "b" "B"   assertions
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache
from typing import Any

from services.gloo.re2 import BadPattern, Bytes, Either, Group, Mark, Node, Repeat, Sequence, parse

LARGEST = 1000
Program = list[Any]


class TooMuch(ValueError):
    """RE2 takes the expression, but it has no program here; the text says why."""


@lru_cache(maxsize=256)  # routes like to have the same ones
def regex_program(pattern: str, group: int = 0) -> Program:
    """The program of *pattern*, a valid one; it marks where *group* was. Raises ``TooMuch``."""
    program: Program = []
    try:
        write(parse(pattern)[0], group, program)
    except (BadPattern, RecursionError):
        raise TooMuch("nested too deeply") from None
    return program


def write(node: Node, group: int, program: Program) -> None:
    match node:
        case Bytes():
            if node.unlisted:
                raise TooMuch(node.unlisted)
            append(program, byte_of(node.members))
        case Mark():
            append(program, node.place)
        case Group() if node.number == group:
            append(program, "(")
            write(node.inner, group, program)
            append(program, ")")
        case Group():
            write(node.inner, group, program)
        case Sequence():
            for part in node.parts:
                write(part, group, program)
        case Either():
            write_either(node, group, program)
        case Repeat():
            write_repeat(node, group, program)


def append(program: Program, instruction: Any) -> None:
    if len(program) >= LARGEST:
        raise TooMuch(f"too large: more than {LARGEST} steps")
    program.append(instruction)


def byte_of(members: Set[int]) -> Any:
    runs: list[int] = []
    for code in sorted(members):
        if runs and runs[-1] == code - 1:
            runs[-1] = code
        else:
            runs += (code, code)
    return runs[0] if len(runs) == 2 and runs[0] == runs[1] else [runs]


def write_either(node: Either, group: int, program: Program) -> None:
    jumps = []
    *others, last = node.choices
    for each in others:
        fork = len(program)
        append(program, None)
        write(each, group, program)
        jumps.append(len(program))
        append(program, None)
        program[fork] = [fork + 1, len(program)]
    write(last, group, program)
    for jump in jumps:
        program[jump] = [len(program)]


def write_repeat(node: Repeat, group: int, program: Program) -> None:
    for _ in range(node.low):
        write(node.inner, group, program)
    forks = []
    for _ in range(max(node.high - node.low, 1 if node.high < 0 else 0)):
        forks.append(len(program))
        append(program, None)
        write(node.inner, group, program)
    if node.high < 0:
        append(program, [forks[0]])
    for fork in forks:
        ways = [fork + 1, len(program)]
        program[fork] = ways if node.greedy else ways[::-1]
