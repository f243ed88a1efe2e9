"""The regular expressions Envoy understands: a check of RE2's syntax and a bound on a program's size.

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
PREAMBLE = 5  # the unanchored prefix, the match and the failing instruction of every program


def _bytes(*ranges: str) -> frozenset[int]:
    return frozenset(code for each in ranges for code in range(ord(each[0]), ord(each[1]) + 1))


ALL = frozenset(range(256))
DIGITS, SPACES, WORDS = _bytes("09"), _bytes("\t\n", "\f\r", "  "), _bytes("09", "AZ", "__", "az")
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


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Program:
    """Check *pattern* as RE2 would; raises ``BadPattern``."""
    parser = _Parser(pattern.encode(errors="surrogatepass").decode("latin-1"))
    try:
        size, _ = parser.alternation()
    except RecursionError:
        raise BadPattern("groups nested too deeply") from None
    if parser.at < len(parser.text):
        raise parser.bad("a ) without its (")
    return Program(size + PREAMBLE, parser.groups)


@dataclass(slots=True)
class _Parser:
    """A recursive descent; the rules give (instructions, deepest count of repetitions)."""

    text: str
    at: int = 0
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
        return (2 if char == "." else 1), 1

    def group(self) -> tuple[int, int] | None:
        start = self.at
        self.at += 1
        captures = 2
        if self.next == "?":
            for opening, meaning in REFUSED_GROUPS.items():
                if self.text.startswith(opening, self.at):
                    raise self.bad(f"{meaning}, ({opening}, which RE2 does not have", start)
            if flags := self.take(FLAGS):
                if flags[3] == ")":
                    return None
                captures = 0
            elif not self.take(NAMED):
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
            return len(quoted)
        if self.next and self.next in "bBAzC":
            self.at += 1
            return 1
        if (members := self.class_escape()) is not None:
            return ranges(members)
        self.code_escape(start)
        return 1

    def class_escape(self) -> frozenset[int] | None:
        """The escapes that stand for several bytes, in a class and outside one."""
        if self.next and self.next in PERL_CLASSES:
            self.at += 1
            return PERL_CLASSES[self.text[self.at - 1]]
        start = self.at - 1
        if found := self.take(PROPERTY_NAME):
            if (found[1] or found[2]) not in PROPERTIES:
                raise self.bad(f"the property {found[0]}, which RE2 does not have", start)
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

    def char_class(self) -> int:
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
        return ranges(ALL - members if negated else members)

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
        return ord(self.text[start])


def ranges(members: Set[int]) -> int:
    """Of how many runs of bytes a class consists: an instruction each."""
    return max(sum(1 for code in members if code - 1 not in members), 1)
