"""What a site asks of robots: robots.txt (RFC 9309), and the headers X-Robots-Tag and Retry-After."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

REFUSING_TAGS = frozenset({"noai", "noimageai", "noindex", "none"})
MAX_BYTES = 500 * 1024
"""How much of a robots.txt is read, the rest being passed over; the RFC asks for at least 500 KiB."""

MAX_STEPS = 200_000_000
"""Characters of all patterns times those of a path, of which a search may compare every pair (40 ms at most):
what costs more is forbidden."""

MAX_DELAY_SECONDS = 24 * 3600.0
_VERSION = re.compile(r"[/\s].*", re.DOTALL)
"""What follows a product token: its version, remarks."""

_RULE_BYTES = 150  # of memory beside a rule's own characters


class Robots:
    """The rules of one robots.txt for one agent; judges a path in time linear in the file and the path.

    Args:
        rules: (allowed, path pattern); "*" stands for anything, "$" at the end for the path's end.
        crawl_delay: seconds between two requests that the file asks for; 0 for none.

    Attributes:
        crawl_delay: likewise.
        size: bytes of memory that the rules take.
    """

    def __init__(self, rules: Iterable[tuple[bool, str]] = (), crawl_delay: float = 0.0) -> None:
        self.crawl_delay = crawl_delay
        self._prefixes: dict[str, bool] = {}
        patterns: dict[str, bool] = {}
        for allowed, rule in rules:
            kind = patterns if "*" in rule or rule.endswith("$") else self._prefixes
            kind[rule] = kind.get(rule, False) or allowed
        self._lengths = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)
        order = sorted(patterns.items(), key=lambda item: (-len(item[0]), not item[1]))
        self._patterns = [
            (len(rule), allowed, rule.partition("*")[0].removesuffix("$"), re.sub(r"\*+", "*", rule))
            for rule, allowed in order
        ]
        self._characters = sum(map(len, patterns))
        self.size = sum(len(rule) + _RULE_BYTES for rule in self._prefixes)
        self.size += sum(2 * (len(rule) + _RULE_BYTES) for rule in patterns)

    def allows(self, path: str) -> bool:
        """Whether a path with its query may be fetched: the longest matching rule decides, a tie allows."""
        if self._characters * len(path) > MAX_STEPS:
            return False
        longest, verdict = 0, True
        for length in self._lengths:
            found = self._prefixes.get(path[:length])
            if found is not None and length <= len(path):
                longest, verdict = length, found
                break
        for length, allowed, head, rule in self._patterns:  # the longest first, of equals those that allow
            if length < longest:
                break
            if path.startswith(head) and _matches(rule, path):
                return allowed or (verdict and length == longest)
        return verdict


def _matches(rule: str, path: str) -> bool:
    """Whether a pattern matches the path's beginning, or all of it.

    Each piece between two stars is taken where it occurs first, which leaves the most for those after it.
    """
    first, *pieces = rule.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    last = None
    if rule.endswith("$"):
        if not pieces:
            return at == len(path)
        last = pieces.pop()
    for piece in pieces:
        at = path.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return last is None or (at + len(last) <= len(path) and path.endswith(last))


def text_of(body: bytes) -> str:
    """The text of a robots.txt of which `MAX_BYTES` were read at most, without a line that they cut."""
    if len(body) >= MAX_BYTES:
        body = body[: max(body.rfind(b"\n"), body.rfind(b"\r")) + 1]
    return body.decode("utf-8", "replace")


def parse_robots(text: str, agent: str) -> Robots:
    """Read the group of `agent`, or else the group of everybody ("*"); no other group is kept.

    Args:
        text: the file; lines that make no sense are passed over, as the RFC asks.
        agent: the product token of the robot, compared without case.
    """
    agent = agent.lower()
    groups: dict[str, list[tuple[bool, str]]] = {}
    delays: dict[str, float] = {}
    named: set[str] = set()  # which of the two the rules to come are for
    in_rules = False
    for line in text.lstrip("\ufeff").splitlines():
        field, separator, value = line.split("#", 1)[0].partition(":")
        field, value = field.strip().lower(), value.strip()
        if not separator:
            continue
        if field == "user-agent":
            if in_rules:
                named, in_rules = set(), False
            name = _VERSION.sub("", value.lower())
            if name in (agent, "*"):
                named.add(name)
                groups.setdefault(name, [])
        elif field in ("allow", "disallow"):
            in_rules = True
            if value:
                for name in named:
                    groups[name].append((field == "allow", value))
        elif field == "crawl-delay":
            in_rules = True
            for name in named:
                delays[name] = max(_seconds(value), delays.get(name, 0.0))
    group = agent if agent in groups else "*"
    return Robots(groups.get(group, []), delays.get(group, 0.0))


def _seconds(value: str) -> float:
    """A Crawl-delay, 0 if it makes no sense; of more than a day a day."""
    try:
        seconds = float(value)
    except ValueError:
        return 0.0
    return min(seconds, MAX_DELAY_SECONDS) if seconds > 0 else 0.0


def refused_by_tag(headers: Iterable[str], agent: str) -> bool:
    """Whether the values of X-Robots-Tag forbid the use of an image.

    A value may begin with an agent's name ("otherbot: noai"); its directives then concern that agent alone.
    """
    for header in headers:
        name = ""
        for part in header.lower().split(","):
            prefix, separator, directive = part.partition(":")
            if separator and prefix.strip() not in ("unavailable_after", "max-snippet", "max-image-preview"):
                name, part = prefix.strip(), directive
            if name in ("", "*", agent.lower()) and part.strip() in REFUSING_TAGS:
                return True
    return False


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After, which is a number or a date; None if it is neither. At most a day."""
    if value is None:
        return None
    try:
        seconds = (
            float(value)
            if value.strip().isdecimal()
            else parsedate_to_datetime(value).timestamp() - time.time()
        )
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_DELAY_SECONDS)
