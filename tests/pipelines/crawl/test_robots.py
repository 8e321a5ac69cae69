"""Robots rules: groups, the longest match, wildcards (RFC 9309), and the X-Robots-Tag header."""

from __future__ import annotations

import random
import re
import time
import tracemalloc

import pytest

from pipelines.crawl.robots import MAX_BYTES, parse_robots, refused_by_tag

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


@pytest.mark.parametrize("named", ["RepTokBot/1.0", "reptokbot (pictures)", "REPTOKBOT\t2"])
def test_a_group_is_ours_whatever_stands_after_the_name(named: str) -> None:
    rules = f"User-agent: {named}\nDisallow: /a\nUser-agent: *\nDisallow: /b"
    assert not parse_robots(rules, "RepTokBot").allows("/a")
    assert parse_robots(rules, "RepTokBot").allows("/b")
    assert parse_robots(rules, "RepTok").allows("/a"), "another robot, whose name begins alike"


@pytest.mark.parametrize(
    ("rule", "path", "matches"),
    [
        ("/a*b*c", "/aXbYc/rest", True),
        ("/a*b*c", "/aXcYb", False),
        ("/a**b", "/ab", True),
        ("/a*b$", "/aXbXb", True),
        ("/a*b$", "/aXbX", False),
        ("/ab*ba$", "/aba", False),  # the two ends may not share a character
        ("/ab*ba$", "/abba", True),
        ("/a$", "/a", True),
        ("/a$", "/ab", False),
        ("/a*$", "/abc", True),
        ("/*.[a-z]+", "/x.jpg", False),  # nothing else is special
        ("/$a", "/$a", True),
        ("*", "/", True),
    ],
)
def test_a_star_is_anything_and_a_dollar_at_the_end_is_the_end(rule: str, path: str, matches: bool) -> None:
    assert parse_robots(f"User-agent: *\nDisallow: {rule}", "RepTokBot").allows(path) is not matches


def test_patterns_match_as_regular_expressions_would() -> None:
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    for _ in range(3000):
        rule = "/" + "".join(rng.choices("ab*$", k=rng.randrange(7)))
        path = "/" + "".join(rng.choices("ab$", k=rng.randrange(8)))
        ends = rule.endswith("$")
        parts = rule.removesuffix("$").split("*")
        expression = ".*".join(map(re.escape, parts)) + (r"\Z" if ends else "")
        allowed = parse_robots(f"User-agent: *\nDisallow: {rule}", "RepTokBot").allows(path)
        assert allowed is (re.match(expression, path) is None), (seed, rule, path)


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow: /a\nAllow: /a", "/a", True),
        ("Disallow: /a*\nAllow: /a", "/a", False),
        ("Disallow: /a\nAllow: /*a", "/a", True),
        ("Disallow: /*b\nAllow: /ab", "/ab", True),
        ("Disallow: /ab\nAllow: /*b", "/ab", True),
        ("Allow: /ab\nDisallow: /*bc", "/abc", False),
        ("Disallow: /*\nAllow: /a$", "/a", True),
        ("Disallow: /a$\nAllow: /aa$\nDisallow: /", "/aa", True),
    ],
)
def test_among_prefixes_and_patterns_the_longest_decides(rules: str, path: str, allowed: bool) -> None:
    assert parse_robots(f"User-agent: *\n{rules}", "RepTokBot").allows(path) is allowed


HEAD = "User-agent: *\n"
LARGE = {
    "stars": HEAD + "Disallow: /" + "*a" * 6 + "$",
    "one rule of stars": HEAD + "Disallow: /" + "*ab" * 170_000,
    "only stars": HEAD + "Disallow: /" + "*" * 500_000 + "b",
    "prefixes": HEAD + "".join(f"Disallow: /x{number}/\n" for number in range(60_000)),
    "prefixes of all lengths": HEAD + "".join(f"Disallow: /{'a' * n}Z\n" for n in range(1000)),
    "patterns": HEAD + "".join(f"Disallow:/*{number:x}\n" for number in range(60_000)),
    "nearly": HEAD + "".join(f"Disallow:/*{'a' * (n % 9)}b{n:x}\n" for n in range(60_000)),
    "searches that begin again": HEAD
    + "".join(f"Disallow: /*{'a' * 49}b{'a' * 49}*{n}\n" for n in range(4300)),
    "long ones": HEAD + "".join(f"Disallow: /*{'a' * 149}b{'a' * 149}*{n}\n" for n in range(1600)),
    "agents": "".join(f"User-agent: bot{n}\n" for n in range(1500)) * 2 + "Disallow: /abcdefgh\n" * 20_000,
    "everybody, often": HEAD * 1500 + "".join(f"Disallow: /{number}\n" for number in range(40_000)),
    "lines": HEAD + "\n" * 500_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_half_a_megabyte_of_rules_costs_milliseconds_and_little_memory(name: str) -> None:
    text = LARGE[name][:MAX_BYTES]
    tracemalloc.start()
    rules = parse_robots(text, "RepTokBot")
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20e6 and most < 60e6
    assert kept <= 1.5 * rules.size + 100_000
    for path in (
        "/images/a.jpg?size=large",
        "/" + "a" * 100,
        "/" + "a" * 400,
        "/" + "a" * 2000,
        "/" + "a" * 8000,
    ):
        begin = time.process_time()
        rules.allows(path)
        assert time.process_time() - begin < 0.25, path[:30]


@pytest.mark.parametrize("name", ["searches that begin again", "long ones"])
def test_what_would_compare_too_many_characters_is_forbidden(name: str) -> None:
    """Each rule is searched for from every place of the path; none of them matches."""
    rules = parse_robots(LARGE[name][:MAX_BYTES], "RepTokBot")
    assert rules.allows("/" + "a" * 300)
    assert not rules.allows("/" + "a" * 2000)


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
