"""What a site asks of robots: robots.txt (RFC 9309) and the X-Robots-Tag header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

REFUSING_TAGS = frozenset({"noai", "noimageai", "noindex", "none"})
MAX_BYTES = 500 * 1024
"""How much of a robots.txt is read; the RFC asks for at least this."""


@dataclass(frozen=True)
class Robots:
    """The rules of one robots.txt for one agent: (allowed, path pattern) in the file's order."""

    rules: tuple[tuple[bool, str], ...] = ()

    def allows(self, path: str) -> bool:
        """Whether a path with its query may be fetched: the longest matching rule decides, a tie allows."""
        verdicts = [(len(rule), allowed) for allowed, rule in self.rules if _pattern(rule).match(path)]
        return max(verdicts)[1] if verdicts else True


def parse_robots(text: str, agent: str) -> Robots:
    """Read the group of `agent`, or else the group of everybody ("*").

    Args:
        text: the file; lines that make no sense are passed over, as the RFC asks.
        agent: the product token of the robot, compared without case.
    """
    groups: dict[str, list[tuple[bool, str]]] = {}
    agents: list[str] = []
    in_rules = False
    for line in text.lstrip("\ufeff").splitlines():
        field, separator, value = line.split("#", 1)[0].partition(":")
        field, value = field.strip().lower(), value.strip()
        if not separator:
            continue
        if field == "user-agent":
            if in_rules:
                agents, in_rules = [], False
            agents.append(value.lower())
            groups.setdefault(value.lower(), [])
        elif field in ("allow", "disallow"):
            in_rules = True
            if value:
                for name in agents:
                    groups[name].append((field == "allow", value))
    return Robots(tuple(groups.get(agent.lower(), groups.get("*", []))))


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


@lru_cache(maxsize=4096)
def _pattern(rule: str) -> re.Pattern[str]:
    end = rule.endswith("$")
    parts = re.sub(r"\*+", "*", rule.removesuffix("$")).split("*")
    return re.compile(".*?".join(re.escape(part) for part in parts) + (r"\Z" if end else ""))
