"""Instances of EC2, by the tags that Upstreams ask for: EC2 is asked from time to time.

What was found stays when EC2 does not answer. Upstreams that ask for the same are one question.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlencode
from xml.etree import ElementTree

import aiohttp

from protos import gloo
from services.gloo.features.aws_ec2 import Fleet
from shared.errors import ControlPlaneError
from shared.ref import Ref
from shared.runtime.backoff import Backoff
from shared.sigv4 import Key, sign_post

log = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=10)
MOST_BYTES = 32 << 20
MOST_PAGES = 100
PAGE = 1000
VERSION = "2016-11-15"
FORM = "application/x-www-form-urlencoded; charset=utf-8"
NO_KEY = "there is no key: name a Secret by secretRef, or set AWS_ACCESS_KEY_ID and its like for gloo"


class Unanswered(ControlPlaneError):
    """EC2 gives no answer of use; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one or several Upstreams ask EC2 for."""

    region: str
    secret: Ref | None
    tags: tuple[tuple[str, str], ...]
    public: bool

    @classmethod
    def of(cls, spec: gloo.AwsEc2UpstreamSpec) -> Self:
        tags = set[tuple[str, str]]()
        for each in spec.filters:
            if each.kv_pair is not None:
                tags.add((each.kv_pair.key, literal(each.kv_pair.value)))
            else:
                tags.add((each.key or "", "*"))
        named = spec.secret_ref
        secret = Ref(named.namespace, named.name) if named is not None else None
        return cls(region=spec.region, secret=secret, tags=tuple(sorted(tags)), public=spec.public_ip)

    def form(self, page: str) -> bytes:
        fields = [("Action", "DescribeInstances"), ("Version", VERSION), ("MaxResults", str(PAGE))]
        filters = [("instance-state-name", "running"), *((f"tag:{key}", value) for key, value in self.tags)]
        for i, (name, value) in enumerate(filters, start=1):
            fields += [(f"Filter.{i}.Name", name), (f"Filter.{i}.Value.1", value)]
        if page:
            fields.append(("NextToken", page))
        return urlencode(fields).encode()


class Fleets:
    """``want`` says for which Upstreams to ask; *changed* is called with those whose instances differ.

    *key_of* gives the key in a Secret; without one it is *own*. *endpoint* has ``{region}`` in it.
    """

    def __init__(
        self,
        changed: Callable[[Mapping[Ref, Fleet]], None],
        key_of: Callable[[Ref], Key | None],
        *,
        own: Key | None,
        endpoint: str,
        period: float,
    ) -> None:
        self._changed = changed
        self._key_of = key_of
        self._own = own
        self._endpoint = endpoint or "https://ec2.{region}.amazonaws.com"
        self._period = period
        self._wanted: dict[Ref, Question] = {}
        self._known: dict[Question, Fleet] = {}
        self._asked: dict[Ref, Question] = {}  # the Upstreams that were told of an answer
        self._news = asyncio.Event()
        self._told = asyncio.Event()

    async def run(self) -> None:
        due, backoff = 0.0, Backoff(0.5, self._period)
        async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
            while True:
                self._news.clear()
                if not self._wanted:
                    await self._news.wait()
                    continue
                everything = time.monotonic() >= due
                well = await self._round(http, everything)
                if everything and well:
                    backoff.reset()
                    due = time.monotonic() + self._period
                elif not well:
                    due = time.monotonic() + backoff.next()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(due - time.monotonic(), 0.0)):
                        await self._news.wait()

    def want(self, specs: Mapping[Ref, gloo.AwsEc2UpstreamSpec]) -> None:
        wanted = {ref: Question.of(spec) for ref, spec in specs.items()}
        if wanted != self._wanted:
            self._wanted = wanted
            self._known = {each: self._known[each] for each in {*wanted.values()} & self._known.keys()}
            self._tell()
            self._news.set()

    def state(self) -> dict[str, str]:
        """For ``/debug/gloo``: what came of the questions, by Upstream."""
        told = {ref: self._known[question] for ref, question in self._asked.items()}
        return {
            str(ref): f"{len(fleet.addresses)} instances{': ' if fleet.problem else ''}{fleet.problem}"
            for ref, fleet in sorted(told.items())
        }

    async def settled(self, within: float) -> None:
        """Wait until all that is wanted was asked for once."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._wanted.items() - self._asked.items():
                    self._told.clear()
                    await self._told.wait()

    async def _round(self, http: aiohttp.ClientSession, everything: bool) -> bool:
        """Ask what is not known, or *everything*; whether all was answered."""
        well = True
        for question in {*self._wanted.values()}:
            known = self._known.get(question, Fleet())
            if not everything and question in self._known and not known.problem:
                continue
            try:
                found = Fleet(addresses=await self._ask(http, question), asked=True)
            except Unanswered as problem:
                found, well = replace(known, problem=str(problem)), False
                if found != known:
                    log.warning(
                        "EC2 was not asked for instances; those found before stay",
                        extra={"region": question.region, "error": str(problem)},
                    )
            self._known[question] = found
            self._tell()
        return well

    def _tell(self) -> None:
        self._asked = {ref: question for ref, question in self._wanted.items() if question in self._known}
        self._changed({ref: self._known[question] for ref, question in self._asked.items()})
        self._told.set()

    async def _ask(self, http: aiohttp.ClientSession, question: Question) -> tuple[str, ...]:
        key = self._own if question.secret is None else self._key_of(question.secret)
        if key is None:
            raise Unanswered(NO_KEY if question.secret is None else "the key in the Secret is not read yet")
        found, page = set[str](), ""
        for _ in range(MOST_PAGES):
            answer = await self._call(http, question, key, question.form(page))
            tag = "ipAddress" if question.public else "privateIpAddress"
            for item in answer.findall(".//{*}instancesSet/{*}item"):
                found |= address_in(item.findtext(f"{{*}}{tag}"))
            page = answer.findtext("{*}nextToken") or ""
            if not page:
                return tuple(sorted(found, key=ip_address_key))
        raise Unanswered(f"more than {MOST_PAGES * PAGE} instances have these tags")

    async def _call(
        self, http: aiohttp.ClientSession, question: Question, key: Key, form: bytes
    ) -> ElementTree.Element:
        url = f"{self._endpoint.replace('{region}', question.region).rstrip('/')}/"
        try:
            named = {"content-type": FORM}
            headers = sign_post(url, named, form, key=key, region=question.region, service="ec2")
            async with http.post(url, data=form, headers=headers, allow_redirects=False) as answer:
                raw = await answer.content.read(MOST_BYTES)
                while more := await answer.content.read(MOST_BYTES):
                    raw += more
                    if len(raw) > MOST_BYTES:
                        raise Unanswered(f"an answer of more than {MOST_BYTES} bytes")
                document = ElementTree.fromstring(raw)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unanswered(f"no usable answer: {type(error).__name__}: {error}") from None
        except ElementTree.ParseError:
            raise Unanswered(f"EC2 answers HTTP {answer.status}, and no XML") from None
        if answer.status != 200:
            code, said = document.findtext(".//{*}Code") or "?", document.findtext(".//{*}Message") or ""
            raise Unanswered(f"EC2 answers HTTP {answer.status}, {code}: {said[:200]}")
        return document


def address_in(text: str | None) -> set[str]:
    """The address in an answer, if there is one."""
    try:
        return {str(ip_address(text or ""))}
    except ValueError:
        return set()


def ip_address_key(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)


def literal(value: str) -> str:
    """*value* as it is, for a filter in which ``*`` and ``?`` stand for others."""
    return "".join(f"\\{each}" if each in "*?\\" else each for each in value)
