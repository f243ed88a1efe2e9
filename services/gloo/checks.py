"""Rules that Envoy holds its configuration to, checked before it can refuse anything.

Each check gives the problem as text, or None; where it stands is the caller's knowledge.
"""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_address

from protos.envoy import matcher
from services.gloo.commands import problem_with
from services.gloo.re2 import BadPattern, compile_pattern

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
PSEUDO_HEADER = re.compile(r":[a-z]+")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
BACKSLASH = re.compile(r"\\([0-9\\]?)")
LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
HOST_AND_PORT = re.compile(r"[^\s/?#@\\\x00-\x20\x7f]+")
MAX_HEADER = 16384
MAX_PATH = 65536
MAX_HOST_NAME = 253
PROGRAM_SIZE = 75  # Envoy takes 100 without being told a larger limit, and ours is an estimate
LONGEST = timedelta(days=365 * 100)


def header_name(name: str, *, pseudo: bool = False) -> str | None:
    """Whether *name* can be a header's; *pseudo* ones like ``:method`` are for matching only."""
    if not name:
        return "a header needs a name"
    if len(name) > MAX_HEADER:
        return f"longer than {MAX_HEADER} characters"
    if TOKEN.fullmatch(name) or (pseudo and PSEUDO_HEADER.fullmatch(name)):
        return None
    return f"{shown(name)} is no header name"


def mutable_header(name: str) -> str | None:
    """Whether a header of this name may be added or removed."""
    if name.startswith(":") or name.lower() == "host":
        return f"{name} cannot be changed this way; hostRewrite and prefixRewrite do that"
    return header_name(name)


def text_value(value: str, limit: int = MAX_HEADER) -> str | None:
    """Whether *value* can stand in a header, a host or a path."""
    if len(value.encode(errors="surrogatepass")) > limit:
        return f"longer than {limit} bytes"
    if found := CONTROL.search(value):
        return f"contains the control character {found[0]!r}"
    return None


def regex(pattern: str, limit: int) -> str | None:
    """Whether RE2 takes *pattern*, and within *limit* instructions."""
    if not pattern:
        return "an empty regular expression"
    try:
        size = compile_pattern(pattern).size
    except BadPattern as bad:
        return f"{shown(pattern)} has {bad}"
    if size > limit:
        return f"too large: about {size} steps, {limit} are allowed (settings.gloo.regexMaxProgramSize)"
    return None


def regex_matcher(pattern: str, limit: int) -> matcher.RegexMatcher:
    """*pattern* for Envoy, which refuses large ones unless a field tells it otherwise.

    That field is deprecated, and still the only way that works whatever an Envoy's bootstrap says.
    """
    if compile_pattern(pattern).size <= PROGRAM_SIZE:
        return matcher.RegexMatcher(regex=pattern)
    allowed = matcher.RegexMatcherGoogleRe2(max_program_size=2 * limit)  # the limit itself was checked
    return matcher.RegexMatcher(regex=pattern, google_re2=allowed)


def substitution(text: str, pattern: str) -> str | None:
    """Whether *text* can replace what *pattern* matched: ``\\0`` to ``\\9`` stand for its groups."""
    for found in BACKSLASH.finditer(text):
        if not found[1]:
            return "a \\ stands before the number of a group or another \\"
        if found[1] != "\\" and int(found[1]) > compile_pattern(pattern).groups:
            return f"{found[0]} stands for a group the pattern does not have"
    return text_value(text)


def format_string(value: str) -> str | None:
    """Whether *value* can be a header's: plain text, ``%%`` and Envoy's ``%COMMANDS%``."""
    return text_value(value) or problem_with(value)


def duration(value: timedelta, *, positive: bool = False) -> str | None:
    """Whether *value* is a time Envoy can wait."""
    if value < timedelta(0):
        return "must not be negative"
    if positive and not value:
        return "must be more than 0"
    return "longer than a hundred years" if value > LONGEST else None


def is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return "%" not in address


def host_name(name: str) -> str | None:
    """Whether *name* is an IP address or a DNS name."""
    if is_ip(name):
        return None
    labels = name.removesuffix(".").split(".")
    if len(name) > MAX_HOST_NAME or not all(LABEL.fullmatch(label) for label in labels):
        return f"{shown(name)} is neither an IP address nor a host name"
    return None


def authority(value: str) -> str | None:
    """Whether *value* can be sent as a request's host: a name or address, with a port if need be."""
    if len(value) > MAX_HEADER or not HOST_AND_PORT.fullmatch(value):
        return f"{shown(value)} cannot be a host"
    return None


def port(number: int) -> str | None:
    return None if 1 <= number <= 65535 else f"{number} is no port; 1 to 65535"


def shown(text: str) -> str:
    """*text* quoted and short enough for a status."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
