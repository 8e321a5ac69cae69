"""Bodies of answers: every member of a gzip file, however the bytes arrive, and never more than the limit."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.crawl.body import MAX_MEMBERS, read_body
from pipelines.crawl.reasons import Failure


def members(*texts: bytes, behind: bytes = b"") -> bytes:
    return b"".join(gzip.compress(text, mtime=0) for text in texts) + behind


def read(packed: bytes, size: int, max_bytes: int = 10_000, *, cut: bool = False) -> bytes | str:
    """The body of an answer that arrives in pieces of `size` bytes, or the reason why it is refused."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(packed), size):
            yield packed[start : start + size]

    response: Any = SimpleNamespace(
        headers={"Content-Encoding": "gzip"}, content=SimpleNamespace(iter_any=pieces)
    )
    try:
        return asyncio.run(read_body(response, max_bytes, cut=cut))
    except Failure as failure:
        return failure.reason


NUMBERS = [b"%d," % number for number in range(300)]
CASES: dict[str, tuple[bytes, bytes | str]] = {
    "two": (members(b"im", b"age"), b"image"),
    "empty ones between": (members(b"", b"i", b"", b"mage", b""), b"image"),
    "many": (members(*NUMBERS), b"".join(NUMBERS)),
    "padding": (members(b"im", b"age", behind=bytes(512)), b"image"),
    "half a magic": (members(b"image", behind=b"\x1f"), b"image"),
    "no magic": (members(b"image", behind=b"\x1fxx"), b"image"),
    "a member behind something else": (members(b"image", behind=b"PK" + members(b"more")), b"image"),
    "zlib, then a member": (zlib.compress(b"im") + members(b"age"), b"image"),
    "the limit": (members(b"x" * 5000, b"x" * 5000, b""), b"x" * 10_000),
    "one too much": (members(b"x" * 5000, b"x" * 5001), "too_large"),
    "one too much alone": (members(b"x" * 10_000, b"", b"x"), "too_large"),
    "cut": (members(b"image", b"more")[:-3], "truncated"),
    "damaged": (members(b"image", behind=b"\x1f\x8bnothing"), "truncated"),
    "nothing": (b"", "truncated"),
}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", CASES)
def test_a_gzip_body_has_all_its_members_however_it_arrives(name: str, size: int) -> None:
    packed, expected = CASES[name]
    assert read(packed, size) == expected


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_members_are_bounded(size: int) -> None:
    assert read(members(*[b"x"] * MAX_MEMBERS), size, 1 << 20) == b"x" * MAX_MEMBERS
    assert read(members(*[b""] * 50_000), size, 1 << 20) == "encoding_refused"


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_is_behind_the_limit_is_left_where_it_may_be_cut(size: int) -> None:
    assert read(members(b"x" * 5000, b"y" * 10**6, b"z"), size, cut=True) == b"x" * 5000 + b"y" * 5000
    assert read(members(b"image"), size, cut=True) == b"image"
