"""The regular expressions Envoy understands: RE2's syntax as a tree, and a bound on a program's size.

Envoy matches with RE2, which is not Python's ``re``: no look-around, no back-references, its own escapes.
A pattern RE2 refuses would make Envoy refuse every route delivered along with it, so it is found here.
Envoy has RE2 match bytes (its Latin-1 mode), so a pattern is read as its UTF-8 bytes, too.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

MAX_REPEAT = 1000
NEWLINE = 10
PREAMBLE = 5  # the unanchored prefix, the match and the failing instruction of every program


def _bytes(*ranges: str) -> frozenset[int]:
    return frozenset(code for each in ranges for code in range(ord(each[0]), ord(each[1]) + 1))


ALL = frozenset(range(256))
DIGITS, SPACES, WORDS = _bytes("09"), _bytes("\t\n", "\f\r", "  "), _bytes("09", "AZ", "__", "az")
LETTERS = _bytes("AZ", "az")
SOME = frozenset(range(0, 256, 6))  # for a Unicode property: about as many runs as any has among the bytes
PERL_CLASSES = {"d": DIGITS, "s": SPACES, "w": WORDS}
PERL_CLASSES |= {name.upper(): ALL - members for name, members in PERL_CLASSES.items()}
POSIX_CLASSES = {
    "alnum": _bytes("09", "AZ", "az"),
    "alpha": _bytes("AZ", "az"),
    "ascii": _bytes("\0\x7f"),
    "blank": _bytes("\t\t", "  "),
    "cntrl": _bytes("\0\x1f", "\x7f\x7f"),
    "digit": DIGITS,
    "graph": _bytes("!~"),
    "lower": _bytes("az"),
    "print": _bytes(" ~"),
    "punct": _bytes("!/", ":@", "[`", "{~"),
    "space": _bytes("\t\r", "  "),
    "upper": _bytes("AZ"),
    "word": WORDS,
    "xdigit": _bytes("09", "AF", "af"),
}
PROPERTIES = frozenset(
    """
    C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs
    Any Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali
    Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian
    Chakma Cham Cherokee Chorasmian Common Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret
    Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic Georgian
    Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo
    Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi Inscriptional_Parthian
    Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki Khudawadi
    Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic
    Manichaean Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive
    Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari
    New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Old_Hungarian Old_Italic
    Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic Old_Uyghur Oriya
    Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic
    Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo
    Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut
    Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi
    Zanabazar_Square
    """.split()  # noqa: SIM905
)
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
REPEATS = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}
PLAIN = re.compile(r"[^\\^$.|?*+()\[\]{}]+")
COUNT = re.compile(r"\{(\d+)(,(\d*))?\}")
NAMED = re.compile(r"\?P?<(\w+)>", re.ASCII)
FLAGS = re.compile(r"\?([imsU]*)(-[imsU]+)?([:)])")
POSIX = re.compile(r"\[:(\^?)(\w*):\]", re.ASCII)
PROPERTY_NAME = re.compile(r"[pP](?:\{\^?(\w+)\}|([A-Z]))", re.ASCII)
HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})")
OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
CONTROL = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}


class BadPattern(ValueError):
    """RE2 would refuse the pattern; the text says what and where."""


class Program(NamedTuple):
    """What RE2 makes of a pattern: about how many instructions, rather more than less, and its groups."""

    size: int
    groups: int


# A pattern's tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A part of a pattern: about how many instructions it is, and its deepest count of repetitions."""

    size: int = 1
    depth: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes(Node):
    """One byte of these. Where they stand for more than can be listed, *unlisted* says so."""

    members: Set[int]
    unlisted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Node):
    """An end of the text (``A``, ``z``), of a line (``^``, ``$``) or of a word (``b``), or none (``B``)."""

    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Node):
    """A group that captures, by its number."""

    number: int
    inner: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence(Node):
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Either(Node):
    """The first of the choices that fits."""

    choices: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat(Node):
    """So often at least and at most, -1 for any number; as often as possible, or as rarely."""

    inner: Node
    low: int
    high: int
    greedy: bool


ONE_BYTE = tuple(Bytes(members={code}) for code in range(256))


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Program:
    """Check *pattern* as RE2 would; raises ``BadPattern``."""
    tree, groups = parse(pattern)
    return Program(tree.size + PREAMBLE, groups)


@lru_cache(maxsize=64)  # who checks a pattern mostly wants its tree next
def parse(pattern: str) -> tuple[Node, int]:
    """The tree of *pattern*, and how many groups it has; raises ``BadPattern``."""
    parser = _Parser(pattern.encode(errors="surrogatepass").decode("latin-1"))
    try:
        tree = parser.alternation()
    except RecursionError:
        raise BadPattern("groups nested too deeply") from None
    if parser.at < len(parser.text):
        raise parser.bad("a ) without its (")
    return tree, parser.groups


@dataclass(slots=True)
class _Parser:
    """A recursive descent over a pattern's bytes."""

    text: str
    at: int = 0
    groups: int = 0
    flags: frozenset[str] = frozenset()
    unlisted: str = ""  # of the bytes being read

    def bad(self, problem: str, at: int | None = None) -> BadPattern:
        return BadPattern(f"{problem}, at position {self.at if at is None else at}")

    @property
    def next(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if found := pattern.match(self.text, self.at):
            self.at = found.end()
        return found

    def alternation(self) -> Node:
        choices = [self.sequence()]
        while self.next == "|":
            self.at += 1
            choices.append(self.sequence())
        if len(choices) == 1:
            return choices[0]
        return Either(
            choices=tuple(choices),
            size=sum(each.size for each in choices) + len(choices) - 1,
            depth=max(each.depth for each in choices),
        )

    def sequence(self) -> Node:
        parts: list[Node] = []
        while self.next not in ("", "|", ")"):
            if self.at_repeat():
                if not parts:
                    raise self.bad(f"nothing before {self.next} to repeat")
                parts[-1] = self.repeat(parts[-1])
            elif found := self.take(PLAIN):
                parts += self.plain(found[0])
            else:
                parts += self.items()
        if len(parts) == 1:
            return parts[0]
        return Sequence(
            parts=tuple(parts),
            size=sum(each.size for each in parts),
            depth=max((each.depth for each in parts), default=1),
        )

    def at_repeat(self) -> bool:
        return self.next in REPEATS or (self.next == "{" and COUNT.match(self.text, self.at) is not None)

    def repeat(self, node: Node) -> Node:
        start = self.at
        if counted := self.take(COUNT):
            low = int(counted[1])
            high = low if counted[2] is None else int(counted[3]) if counted[3] else -1
        else:
            low, high = REPEATS[self.next]
            self.at += 1
        lazy = self.next == "?"
        self.at += lazy
        if self.at_repeat():
            raise self.bad("two repetitions in a row (RE2 has no possessive ones)", start)
        times = max(low, high)
        if counted and 0 <= high < low:
            raise self.bad("a repetition that ends before it begins", start)
        if counted and times * node.depth > MAX_REPEAT:
            raise self.bad(f"more than {MAX_REPEAT} repetitions in all", start)
        copies = max(times, 1)
        return Repeat(
            inner=node,
            low=low,
            high=high,
            greedy=lazy == ("U" in self.flags),
            size=node.size * copies + (high - low if high >= 0 else 2),
            depth=node.depth * copies if counted else node.depth,
        )

    def items(self) -> list[Node]:
        """What comes next: mostly one, but of a quotation each byte, and nothing of a change of flags."""
        if self.next == "(":
            return self.group()
        if self.next == "[":
            return [self.char_class()]
        if self.next == "\\":
            return self.escape()
        char = self.next
        self.at += 1
        if char == ".":
            return [self.bytes(ALL if "s" in self.flags else ALL - {NEWLINE}, size=2)]
        if char == "^":
            return [Mark(place="^" if "m" in self.flags else "A")]
        if char == "$":
            return [Mark(place="$" if "m" in self.flags else "z")]
        return self.plain(char)

    def plain(self, text: str) -> list[Node]:
        """These very bytes."""
        if "i" in self.flags:
            return [self.bytes({ord(char)}) for char in text]
        return [ONE_BYTE[ord(char)] for char in text]

    def bytes(self, members: Set[int], size: int | None = None) -> Bytes:
        unlisted, self.unlisted = self.unlisted, ""
        return Bytes(
            members=self.folded(members), size=ranges(members) if size is None else size, unlisted=unlisted
        )

    def folded(self, members: Set[int]) -> Set[int]:
        """With those of the other case, if case does not matter."""
        if "i" not in self.flags:
            return members
        return members | {ord(chr(code).swapcase()) for code in members if code in LETTERS}

    def group(self) -> list[Node]:
        start, outside, number = self.at, self.flags, 0
        self.at += 1
        if self.next == "?":
            for opening, meaning in REFUSED_GROUPS.items():
                if self.text.startswith(opening, self.at):
                    raise self.bad(f"{meaning}, ({opening}, which RE2 does not have", start)
        if flags := self.take(FLAGS):
            self.flags = (self.flags | set(flags[1])) - set(flags[2] or "")
            if flags[3] == ")":
                return []
        elif self.next == "?" and not self.take(NAMED):
            raise self.bad("a group that RE2 does not have", start)
        else:
            self.groups += 1
            number = self.groups
        inner = self.alternation()
        if self.next != ")":
            raise self.bad("a ( without its )", start)
        self.at += 1
        self.flags = outside
        if not number:
            return [inner]
        return [Group(number=number, inner=inner, size=inner.size + 2, depth=inner.depth)]

    def escape(self) -> list[Node]:
        start = self.at
        self.at += 1
        if self.text.startswith("Q", self.at):
            end = self.text.find("\\E", self.at)
            quoted = self.text[self.at + 1 : end if end >= 0 else None]
            self.at = end + 2 if end >= 0 else len(self.text)
            return self.plain(quoted)
        if self.next and self.next in "bBAz":
            self.at += 1
            return [Mark(place=self.text[self.at - 1])]
        if self.next == "C":
            self.at += 1
            return [self.bytes(ALL)]
        members = self.class_escape()
        return [self.bytes({self.code_escape(start)} if members is None else members)]

    def class_escape(self) -> frozenset[int] | None:
        """The escapes that stand for several bytes, in a class and outside one."""
        if self.next and self.next in PERL_CLASSES:
            self.at += 1
            return PERL_CLASSES[self.text[self.at - 1]]
        start = self.at - 1
        if found := self.take(PROPERTY_NAME):
            if (found[1] or found[2]) not in PROPERTIES:
                raise self.bad(f"the property {found[0]}, which RE2 does not have", start)
            self.unlisted = f"\\{found[0][0]} is not supported; list the characters"
            return SOME
        return None

    def code_escape(self, start: int) -> int:
        """The escapes that stand for one character; *start* is where the backslash is."""
        if hexadecimal := self.take(HEX):
            code = int(hexadecimal[1] or hexadecimal[2], 16)
            if code in ALL:
                return code
        elif octal := self.take(OCTAL):
            if (code := int(octal[0], 8)) in ALL:
                return code
        elif self.next and self.next in CONTROL:
            self.at += 1
            return CONTROL[self.text[self.at - 1]]
        elif self.next and self.next.isascii() and not self.next.isalnum():
            self.at += 1
            return ord(self.text[self.at - 1])
        shown = self.text[start : start + 2]
        raise self.bad("a \\ at the end" if shown == "\\" else f"{shown}, which RE2 does not have", start)

    def char_class(self) -> Bytes:
        start = self.at
        self.at += 1
        negated = self.next == "^"
        self.at += negated
        members: set[int] = set()
        first = True
        while first or self.next != "]":
            if not self.next:
                raise self.bad("a [ without its ]", start)
            members |= self.class_member(start)
            first = False
        self.at += 1
        if negated:
            return self.bytes(ALL - self.folded(members), size=ranges(ALL - members))
        return self.bytes(members)

    def class_member(self, start: int) -> frozenset[int]:
        if posix := self.take(POSIX):
            if (members := POSIX_CLASSES.get(posix[2])) is None:
                raise self.bad(f"the class {posix[0]}, which RE2 does not have", start)
            return ALL - members if posix[1] else members
        if self.next == "\\":
            self.at += 1
            if (members := self.class_escape()) is not None:
                return members
            self.at -= 1
        low = self.class_char()
        if self.next != "-" or self.text[self.at + 1 : self.at + 2] in ("", "]"):
            return frozenset((low,))
        self.at += 1
        high = self.class_char()
        if high < low:
            raise self.bad("a range that ends before it begins", start)
        return frozenset(range(low, high + 1))

    def class_char(self) -> int:
        start = self.at
        self.at += 1
        if self.text[start] == "\\":
            return self.code_escape(start)
        if not self.text[start].isascii():
            char = self.text[start:].encode("latin-1").decode(errors="ignore")[:1]
            self.unlisted = self.unlisted or f"{char} cannot stand between [ and ]; write (…|{char}|…)"
        return ord(self.text[start])


def ranges(members: Set[int]) -> int:
    """Of how many runs of bytes a class consists: an instruction each."""
    return max(sum(1 for code in members if code - 1 not in members), 1)
