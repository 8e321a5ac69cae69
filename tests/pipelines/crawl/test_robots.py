"""Robots rules: groups, the longest match, wildcards (RFC 9309), and the X-Robots-Tag header."""

from __future__ import annotations

import pytest

from pipelines.crawl.robots import parse_robots, refused_by_tag

TEXT = """
Disallow: /before-any-group
User-agent: OtherBot
Disallow: /

User-Agent: reptokbot   # that is us
User-agent: another
Disallow: /private
Allow: /private/open/
Disallow: /*.gif$
Disallow: /a*/thumbs
Disallow:
nonsense

User-agent: *
Disallow: /everybody
"""


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", True),
        ("/before-any-group", True),
        ("/private", False),
        ("/private/a.jpg", False),
        ("/privateer.jpg", False),
        ("/private/open/a.jpg", True),
        ("/x/y.gif", False),
        ("/x/y.gif?size=2", True),
        ("/albums/2020/thumbs/1.jpg", False),
        ("/everybody", True),
    ],
)
def test_our_own_group_decides_by_the_longest_rule(path: str, allowed: bool) -> None:
    assert parse_robots(TEXT, "RepTokBot").allows(path) is allowed


def test_without_a_group_of_our_own_the_one_for_everybody_counts() -> None:
    rules = parse_robots(TEXT, "StrangerBot")
    assert not rules.allows("/everybody/a.jpg")
    assert rules.allows("/private")
    assert parse_robots("", "RepTokBot").allows("/a")
    assert not parse_robots("\ufeffUser-agent: *\r\nDisallow: /", "RepTokBot").allows("/a")


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([], False),
        (["noai"], True),
        (["nofollow, NoImageAI"], True),
        (["noarchive", "noindex"], True),
        (["none"], True),
        (["otherbot: noai, noindex"], False),
        (["reptokbot: noai"], True),
        (["otherbot: noai", "noai"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST"], False),
        (["nofollow"], False),
    ],
)
def test_a_tag_refuses_all_or_one_agent(headers: list[str], refused: bool) -> None:
    assert refused_by_tag(headers, "RepTokBot") is refused
