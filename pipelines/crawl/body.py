"""The body of an answer: as much of it as is wanted, however it is packed."""

from __future__ import annotations

import zlib

import aiohttp

from pipelines.crawl.reasons import Failure

GZIP = b"\x1f\x8b"
MAX_MEMBERS = 1024
"""Members that a gzip body may have: beginning one costs time, even if nothing is in it."""


async def read_body(response: aiohttp.ClientResponse, max_bytes: int, *, cut: bool = False) -> bytes:
    """Read a body piece by piece, never more than `max_bytes` of it, as it comes and decompressed.

    Args:
        response: whose headers have been read.
        max_bytes: of the body.
        cut: what comes behind them is left unread; otherwise such a body is refused.

    Raises:
        Failure: too_large, truncated, encoding_refused or protocol_error.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise Failure("encoding_refused", encoding)
    if _announced(response) > max_bytes and not cut:
        raise Failure("too_large")
    inflate = None if encoding in ("identity", "") else _Inflate()
    body, received = bytearray(), 0
    async for piece in response.content.iter_any():
        received += len(piece)
        body += inflate(piece, max_bytes + 1 - len(body)) if inflate else piece
        if max(received, len(body)) > max_bytes:
            if cut:
                return bytes(body[:max_bytes])
            raise Failure("too_large")
    if inflate and not inflate.ended:
        raise Failure("truncated")
    return bytes(body)


def _announced(response: aiohttp.ClientResponse) -> int:
    """The length that the headers name; a number has no more digits than a file could have bytes."""
    digits = response.headers.get("Content-Length", "0").strip()
    if not (digits.isascii() and digits.isdigit()):
        raise Failure("protocol_error", "Content-Length is no number")
    return int(digits.lstrip("0")[:20] or 0)


class _Inflate:
    """Unpacks a zlib stream or the members of a gzip file (RFC 1952), whose texts follow each other.

    What comes behind the end and begins no further member is passed over, as browsers do.
    """

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=47)
        self._behind = b""  # of the end: begins a member, or is too short to tell
        self._members = 1
        self._over = False

    @property
    def ended(self) -> bool:
        """Whether nothing is missing."""
        return self._stream.eof

    def __call__(self, piece: bytes, most: int) -> bytes:
        """Unpack a piece, at most so many bytes of it, one at least.

        Raises:
            Failure: truncated (the stream is damaged) or encoding_refused (too many members).
        """
        text = bytearray()
        while not self._over:
            if self._stream.eof:
                self._behind += piece
                if len(self._behind) < len(GZIP) and GZIP.startswith(self._behind):
                    break
                if not self._behind.startswith(GZIP):
                    self._over = True
                    break
                piece, self._behind = self._behind, b""
                self._begin()
            try:
                text += self._stream.decompress(piece, most - len(text))
            except zlib.error as error:
                raise Failure("truncated", str(error)) from error
            piece = self._stream.unused_data
            if not self._stream.eof or len(text) >= most:
                break
        return bytes(text)

    def _begin(self) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise Failure("encoding_refused", f"gzip of more than {MAX_MEMBERS} members")
        self._stream = zlib.decompressobj(wbits=47)
