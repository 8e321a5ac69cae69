"""An object of S3 as a file, with no request beyond those for its bytes.

Who reads on from the beginning gets one request, whose answer is read as a stream. Who asks for the end
first, as readers of parquet do, gets the last bytes with the size, and from then on what is asked for.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pipelines.dag.writing import store_errors

TAIL_BYTES = 1 << 16
"""What pyarrow reads of a parquet file first; a file that is smaller comes whole."""
CHUNK = 1 << 20
SKIPPED = 1 << 20
"""Bytes that are read and thrown away sooner than asked around."""
ATTEMPTS = 5


@dataclass(frozen=True)
class Tail:
    """The end of an object: its last bytes, and how many it has in all."""

    size: int
    data: bytes


class ObjectReader(io.BufferedIOBase):
    """A file open for reading.

    Args:
        store: an `s3fs.S3FileSystem`.
        bucket: the object's bucket.
        key: its name there.
        tail: its end, if that is known.
    """

    def __init__(self, store: Any, bucket: str, key: str, tail: Tail | None = None) -> None:
        self._store, self._bucket, self._key = store, bucket, key
        self._at = 0
        self._stream: Any = None
        self._chunk = memoryview(b"")
        self._size = tail.size if tail else None
        self.tail = tail

    @property
    def name(self) -> str:
        """Where it lies."""
        return f"s3://{self._bucket}/{self._key}"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            if self._size is None:
                self._end()
            offset += self._size or 0
        elif whence == io.SEEK_CUR:
            offset += self._at
        if self._stream and 0 <= offset - self._at <= SKIPPED:
            self.read(offset - self._at)
        elif offset != self._at:
            self._leave()
        self._at = offset
        return offset

    def read(self, size: int | None = -1, /) -> bytes:
        if size == 0 or (self._size is not None and self._at >= self._size):
            return b""
        if self._size is None or self._stream:
            return self._read_on(size)
        stop = self._size if size is None or size < 0 else min(self._at + size, self._size)
        data = self._part(self._at, stop)
        self._at = stop
        return data

    def close(self) -> None:
        if not self.closed:
            self._leave()
        super().close()

    def _part(self, start: int, stop: int) -> bytes:
        """Bytes at a place."""
        if self.tail and start >= (first := self.tail.size - len(self.tail.data)):
            return self.tail.data[start - first : stop - first]
        return self._get(f"bytes={start}-{stop - 1}")[1]

    def _end(self) -> None:
        """Learn the size from the last bytes."""
        try:
            size, data = self._get(f"bytes=-{TAIL_BYTES}")
        except OSError as error:
            if not _is_out_of_range(error):
                raise
            size, data = 0, b""  # an empty object has no range
        self._size, self.tail = size, Tail(size, data)

    def _get(self, part: str) -> tuple[int, bytes]:
        """The size of the object, and the bytes of a range."""

        async def get() -> tuple[int, bytes]:
            for attempt in range(ATTEMPTS):
                answer = await self._ask(part)
                try:
                    return _size_of(answer), await answer["Body"].read()
                except _broken() as error:
                    if attempt == ATTEMPTS - 1:
                        raise OSError(f"{self.name}: the answer broke off ({error})") from error
                finally:
                    answer["Body"].close()
            raise AssertionError

        return self._wait(get)  # type: ignore[no-any-return]

    def _read_on(self, size: int | None) -> bytes:
        """The next bytes of a stream, which is opened where none is, or where it broke off."""
        left = float("inf") if size is None or size < 0 else size
        parts: list[memoryview] = []
        while left > 0:
            if not self._chunk and not (self._size is not None and self._at >= self._size):
                self._chunk = memoryview(self._wait(self._next))
            part = self._chunk[: int(min(left, len(self._chunk)))]
            if not part:
                break
            parts.append(part)
            self._chunk = self._chunk[len(part) :]
            self._at += len(part)
            left -= len(part)
        return b"".join(parts)

    async def _next(self) -> bytes:
        for attempt in range(ATTEMPTS):
            try:
                if self._stream is None:
                    answer = await self._ask(f"bytes={self._at}-" if self._at else "")
                    self._size, self._stream = _size_of(answer), answer["Body"]
                data: bytes = await self._stream.read(CHUNK)
                if data or self._at >= (self._size or 0):
                    return data
                raise ConnectionError("it ended early")
            except _broken() as error:
                self._leave()
                if attempt == ATTEMPTS - 1:
                    raise OSError(f"{self.name}: the answer broke off ({error})") from error
        raise AssertionError

    async def _ask(self, part: str) -> dict[str, Any]:
        wanted = {"Range": part} if part else {}
        found: dict[str, Any] = await self._store._call_s3(
            "get_object", Bucket=self._bucket, Key=self._key, **wanted
        )
        return found

    def _leave(self) -> None:
        """End a stream that is not read on."""
        stream, self._stream, self._chunk = self._stream, None, memoryview(b"")
        if stream is not None:
            self._store.loop.call_soon_threadsafe(stream.close)

    def _wait(self, function: Callable[[], Awaitable[Any]]) -> Any:
        from fsspec.asyn import sync

        with store_errors(self.name):
            return sync(self._store.loop, function)


def _size_of(answer: dict[str, Any]) -> int:
    """Bytes of the whole object."""
    if whole := answer.get("ContentRange"):
        return int(str(whole).rpartition("/")[2])
    return int(answer["ContentLength"])


def _is_out_of_range(error: OSError) -> bool:
    code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")
    return code in ("InvalidRange", "416")


def _broken() -> tuple[type[BaseException], ...]:
    """What an answer that breaks off on its way raises."""
    from aiohttp.client_exceptions import ClientError
    from botocore.exceptions import HTTPClientError

    return (ClientError, HTTPClientError, ConnectionError, asyncio.TimeoutError)
