"""Inja templates, parsed to nested lists: the part of the language that Gloo documents.

A template is a list of texts and nodes, ``["=", expression]``, ``["if", branches, otherwise]``,
``["for", names, expression, template]`` and ``["set", name, expression]``; an expression is a list whose
first member tells what it is. ``runtime.lua`` evaluates both.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

Expression = list[Any]
Nodes = list[Any]

DEEPEST = 30
DEEPEST_NODES = 100  # the runtime reads twice that
OPENING = re.compile(r"\{\{-?|\{%-?|\{#-?")
CLOSING = {"{{": re.compile(r"-?\}\}"), "{%": re.compile(r"-?%\}"), "{#": re.compile(r"-?#\}")}
LINE_STATEMENT = re.compile(r"^[ \t]*##", re.MULTILINE)
TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
    | (?P<name>[A-Za-z_][A-Za-z0-9_./-]*)
    | (?P<sign>==|!=|<=|>=|[-+*/%^<>()\[\]{},:=])
    )""",
    re.VERBOSE | re.ASCII,
)
CONSTANTS = {"true": True, "false": False, "null": None}
KEYWORDS = ("and", "or", "not", "in", *CONSTANTS)
LEVELS: tuple[tuple[str, ...], ...] = (
    ("or",),
    ("and",),
    ("in", "==", "!=", "<", "<=", ">", ">="),
    ("+", "-"),
    ("*", "/", "%"),
    ("^",),
)
FUNCTIONS = {  # with the fewest and the most arguments
    **dict.fromkeys(("at", "existsIn", "join"), (2, 2)),
    **dict.fromkeys(("base64_encode", "base64_decode", "base64url_encode", "base64url_decode"), (1, 1)),
    **dict.fromkeys(("body", "context"), (0, 0)),
    **dict.fromkeys(("exists", "extraction", "header", "request_header"), (1, 1)),
    **dict.fromkeys(("first", "last", "length", "upper", "lower", "int", "float"), (1, 1)),
    **dict.fromkeys(("isArray", "isBoolean", "isNumber", "isObject", "isString"), (1, 1)),
    "default": (2, 2),
    "dynamic_metadata": (1, 2),
    "range": (1, 1),
    "raw_string": (1, 1),
    "round": (2, 2),
    "substring": (2, 3),
}
NOT_HERE = {
    "env": "Envoy's environment is not for templates",
    "host_metadata": "the destination is not known yet",
    "cluster_metadata": "the destination is not known yet",
}


class BadTemplate(ValueError):
    """The template cannot be understood; the text says where and why."""


class Template(NamedTuple):
    """A parsed template, and what must be at hand to render it."""

    nodes: Nodes
    reads_body: bool
    request_headers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the templates of one transformation can refer to."""

    advanced: bool
    response: bool
    extractors: frozenset[str]


@lru_cache(maxsize=1024)  # routes like to have the same ones
def parse_template(text: str, around: Surroundings) -> Template:
    """Parse *text*; raises ``BadTemplate``."""
    if found := LINE_STATEMENT.search(text):
        raise bad(text, found.end() - 2, "a line that begins with ## is a statement to Inja; write {% … %}")
    parser = _Parser(text=text, around=around)
    nodes, _ = parser.nodes(())
    if depth_of(nodes) > DEEPEST_NODES:
        raise bad(text, 0, "too many operators in a row, or too much within each other")
    return Template(
        nodes=nodes,
        reads_body=parser.reads_body,
        request_headers=frozenset(parser.request_headers),
    )


def depth_of(nodes: Nodes) -> int:
    depth, level = 0, [nodes]
    while level:
        depth, level = depth + 1, [each for one in level for each in one if isinstance(each, list)]
    return depth


def bad(text: str, at: int, problem: str) -> BadTemplate:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return BadTemplate(f"line {line}, column {column}: {problem}")


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


@dataclass(slots=True, kw_only=True)
class _Parser:
    """A recursive descent: ``nodes`` for the text, the rest for what stands between the braces."""

    text: str
    around: Surroundings
    at: int = 0
    depth: int = 0
    reads_body: bool = False
    request_headers: set[str] = field(default_factory=set)
    tokens: list[_Token] = field(default_factory=list)  # of the tag at hand, the next one last

    def bad(self, problem: str, at: int | None = None) -> BadTemplate:
        return bad(self.text, self.tokens[-1].at if at is None else at, problem)

    # Texts and tags

    def nodes(self, ends: tuple[str, ...], opened: int = 0) -> tuple[Nodes, str]:
        """Nodes up to a statement of *ends*, whose tag is then at hand, or else to the text's end.

        *opened* is where the statement is that they are the inside of.
        """
        nodes: Nodes = []
        while opening := OPENING.search(self.text, self.at):
            self.add_text(nodes, self.text[self.at : opening.start()], trim_end=opening[0].endswith("-"))
            start = opening.start()
            self.open_tag(opening)
            if opening[0].startswith("{#"):
                continue
            if opening[0].startswith("{{"):
                nodes.append(["=", self.expression()])
                self.end_tag()
                continue
            keyword = self.take("name", "a statement: if, for or set").text
            if keyword in ends:
                return nodes, keyword
            nodes.append(self.statement(keyword, start))
        if ends:
            raise bad(self.text, opened, f"no {{% {ends[-1]} %}}")
        self.add_text(nodes, self.text[self.at :])
        self.at = len(self.text)
        return nodes, ""

    def add_text(self, nodes: Nodes, text: str, *, trim_end: bool = False) -> None:
        if self.at > 2 and self.text[self.at - 3] == "-" and self.text[self.at - 1] == "}":
            text = text.lstrip()
        if text := text.rstrip() if trim_end else text:
            nodes.append(text)

    def open_tag(self, opening: re.Match[str]) -> None:
        """Take the tag's tokens; the text goes on behind it."""
        closing, at, tokens = CLOSING[opening[0][:2]], opening.end(), []
        if opening[0].startswith("{#"):
            if (end := closing.search(self.text, at)) is None:
                raise bad(self.text, opening.start(), "no #}")
            self.at = end.end()
            return
        while not (end := re.compile(r"\s*(" + closing.pattern + ")").match(self.text, at)):
            if (found := TOKEN.match(self.text, at)) is None:
                rest = self.text[at:]
                at += len(rest) - len(rest.lstrip())
                if at == len(self.text):
                    raise bad(self.text, opening.start(), f"{opening[0]} is not closed")
                raise bad(self.text, at, f"{self.text[at]} is not understood here")
            kind = found.lastgroup or ""
            at = found.end()
            tokens.append(_Token(kind, found[kind], found.start(kind)))
        tokens.append(_Token("end", end[1], end.start(1)))
        self.tokens, self.at = tokens[::-1], end.end()

    def end_tag(self) -> None:
        if self.tokens[-1].kind != "end":
            raise self.bad(f"{self.tokens[-1].text} is one too many")

    def statement(self, keyword: str, start: int) -> Nodes:
        if keyword == "if":
            return self.if_statement(start)
        if keyword == "for":
            return self.for_statement(start)
        if keyword == "set":
            name = self.own_name()
            self.take_sign("=")
            value = self.expression()
            self.end_tag()
            return ["set", name, value]
        raise bad(
            self.text, start, f"{keyword} is no statement that can stand here; there are if, for and set"
        )

    def if_statement(self, start: int) -> Nodes:
        branches: list[Any] = []
        otherwise: Nodes = []
        keyword = "if"
        while keyword == "if":
            condition = self.expression()
            self.end_tag()
            nodes, keyword = self.inner(("else", "endif"), start)
            branches.append([condition, nodes])
            if keyword == "else":
                if self.tokens[-1].text == "if":
                    keyword = self.tokens.pop().text
                else:
                    self.end_tag()
                    otherwise, _ = self.inner(("endif",), start)
        self.end_tag()
        return ["if", branches, otherwise]

    def for_statement(self, start: int) -> Nodes:
        names = [self.own_name()]
        if self.tokens[-1].text == ",":
            self.tokens.pop()
            names.append(self.own_name())
        if self.tokens[-1].text != "in":
            raise self.bad("expected in")
        self.tokens.pop()
        values = self.expression()
        self.end_tag()
        nodes, _ = self.inner(("endfor",), start)
        self.end_tag()
        return ["for", names, values, nodes]

    def inner(self, ends: tuple[str, ...], opened: int) -> tuple[Nodes, str]:
        self.deeper()
        found = self.nodes(ends, opened)
        self.depth -= 1
        return found

    def own_name(self) -> str:
        at = self.tokens[-1].at
        name = self.take("name", "a name").text
        if name in KEYWORDS or not name.isidentifier():
            raise self.bad(f"{name} is no name for a value of one's own", at)
        return name

    # Expressions

    def take(self, kind: str, wanted: str) -> _Token:
        if self.tokens[-1].kind != kind:
            raise self.bad(f"expected {wanted}")
        return self.tokens.pop()

    def take_sign(self, sign: str) -> None:
        if self.tokens[-1].text != sign or self.tokens[-1].kind != "sign":
            raise self.bad(f"expected {sign}")
        self.tokens.pop()

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.bad(f"nested more than {DEEPEST} deep")

    def expression(self, level: int = 0) -> Expression:
        if level == len(LEVELS):
            return self.operand()
        left = self.expression(level + 1)
        while self.tokens[-1].kind in ("sign", "name") and self.tokens[-1].text in LEVELS[level]:
            left = ["op", self.tokens.pop().text, left, self.expression(level + 1)]
        return left

    def operand(self) -> Expression:
        self.deeper()
        token = self.tokens.pop() if self.tokens[-1].kind != "end" else self.tokens[-1]
        found = self.operand_of(token)
        self.depth -= 1
        return found

    def operand_of(self, token: _Token) -> Expression:
        if token.kind == "number":
            if math.isinf(float(token.text)):
                raise self.bad("a number too large", token.at)
            return ["value", json.loads(token.text)]
        if token.kind == "string":
            return ["value", self.string(token)]
        if token.text == "not":
            return ["not", self.expression(2)]
        if token.text == "(":
            found = self.expression()
            self.take_sign(")")
            return found
        if token.text == "[":
            return ["list", self.listed("]")]
        if token.text == "{":
            return self.object()
        if token.kind == "name" and token.text in CONSTANTS:
            return ["value", CONSTANTS[token.text]]
        if token.kind != "name" or token.text in KEYWORDS:
            raise self.bad("expected a value", token.at)
        if self.tokens[-1].text == "(":
            self.tokens.pop()
            return self.call(token)
        return ["name", self.path(token)]

    def string(self, token: _Token) -> str:
        try:
            value = str(json.loads(token.text))
            value.encode()
        except ValueError:
            raise self.bad("a text with an escape that JSON does not have", token.at) from None
        return value

    def listed(self, end: str) -> list[Expression]:
        found: list[Expression] = []
        while self.tokens[-1].text != end:
            if found:
                self.take_sign(",")
            found.append(self.expression())
        self.tokens.pop()
        return found

    def object(self) -> Expression:
        members: list[Any] = []
        while self.tokens[-1].text != "}":
            if members:
                self.take_sign(",")
            key = self.string(self.take("string", "a name in quotes"))
            self.take_sign(":")
            members.append([key, self.expression()])
        self.tokens.pop()
        return ["object", members]

    def path(self, token: _Token) -> list[str]:
        """The way to a value: by dots, and with advanced templates by slashes, as in a JSON pointer."""
        if self.around.advanced:
            return token.text.split("/")
        if "/" in token.text:
            raise self.bad("/ goes deeper with advancedTemplates only; here . does", token.at)
        return token.text.split(".")

    def call(self, function: _Token) -> Expression:
        name, arguments = function.text, self.listed(")")
        if name not in FUNCTIONS:
            why = NOT_HERE.get(name) or f"there are {', '.join(sorted(FUNCTIONS))}"
            raise self.bad(f"unknown function {name}; {why}", function.at)
        fewest, most = FUNCTIONS[name]
        if not fewest <= len(arguments) <= most:
            wanted = fewest if fewest == most else f"{fewest} or {most}"
            raise self.bad(f"{name} takes {wanted} arguments, not {len(arguments)}", function.at)
        self.reads_body |= name == "body"
        if name == "exists":
            return ["exists", self.literal(function, arguments).split(".")]
        if (
            name == "extraction"
            and (wanted := self.literal(function, arguments)) not in self.around.extractors
        ):
            raise self.bad(f"there is no extractor {wanted}", function.at)
        if name in ("header", "request_header") and arguments[0][0] == "value":
            arguments = [["value", self.literal(function, arguments).lower()]]
        if name == "request_header" and self.around.response:
            self.request_headers.add(self.literal(function, arguments))
        elif name == "request_header":
            name = "header"
        return ["call", name, arguments]

    def literal(self, function: _Token, arguments: list[Expression]) -> str:
        """The one argument of a function that must be known beforehand."""
        kind, value = arguments[0][0], arguments[0][1]
        if kind != "value" or not isinstance(value, str):
            raise self.bad(f"{function.text} takes a name in quotes", function.at)
        return value
