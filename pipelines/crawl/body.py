"""The body of an answer: as much of it as is wanted, however it is packed."""

from __future__ import annotations

import zlib
from typing import Any

import aiohttp

from pipelines.crawl.reasons import Failure


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read a body piece by piece, never more than `max_bytes` of it, as it comes and decompressed.

    Raises:
        Failure: too_large, truncated, encoding_refused or protocol_error.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise Failure("encoding_refused", encoding)
    if _announced(response) > max_bytes:
        raise Failure("too_large")
    inflate = None if encoding in ("identity", "") else zlib.decompressobj(wbits=47)
    body, received = bytearray(), 0
    async for piece in response.content.iter_any():
        received += len(piece)
        if inflate is not None:
            piece = b"" if inflate.eof else _inflated(inflate, piece, max_bytes + 1 - len(body))
        body += piece
        if max(received, len(body)) > max_bytes:
            raise Failure("too_large")
    if inflate is not None and not inflate.eof:
        raise Failure("truncated")
    return bytes(body)


def _announced(response: aiohttp.ClientResponse) -> int:
    """The length that the headers name; a number has no more digits than a file could have bytes."""
    digits = response.headers.get("Content-Length", "0").strip()
    if not (digits.isascii() and digits.isdigit()):
        raise Failure("protocol_error", "Content-Length is no number")
    return int(digits.lstrip("0")[:20] or 0)


def _inflated(inflate: Any, piece: bytes, most: int) -> bytes:
    try:
        return bytes(inflate.decompress(piece, most))
    except zlib.error as error:
        raise Failure("truncated", str(error)) from error
