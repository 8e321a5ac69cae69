"""Folders on S3, with one request for what takes one, and many at a time where there are many objects.

No look precedes a read or a write: what is not there is an answer, too.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.dag.object_reader import CHUNK, ObjectReader, Tail
from pipelines.dag.object_store import ObjectFolder
from pipelines.dag.storage import Folder, many
from pipelines.dag.writing import Changed, DigestingWriter, StorageError, file_errors, store_errors

PART_BYTES = 64 * 2**20
"""Larger objects are put in parts, and appear when all of them have arrived."""
COPIED_BYTES = 5 * 2**30
"""Larger objects are not copied in one request."""
UPLOADS = 4
DELETED = 1000
TAILS = 8

_CHANGED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")


Put = Callable[[str, Path], object]
"""Puts a file in the place of a key."""


@dataclass(frozen=True)
class S3Folder(ObjectFolder):
    """A prefix of a bucket."""

    @cached_property
    def _bucket(self) -> str:
        return self._key().partition("/")[0]

    @cached_property
    def _tails(self) -> OrderedDict[str, Tail]:
        """Ends of the files that were opened last and are never written again."""
        return OrderedDict()

    def key(self, name: str = "") -> str:
        """Key of a file in its bucket."""
        return self._key(name).partition("/")[2]

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._fs.call_s3(method, Bucket=self._bucket, **arguments)

    def open(self, name: str) -> BinaryIO:
        """A file that is fetched as it is read; what is not there is a FileNotFoundError then."""
        return cast(BinaryIO, ObjectReader(self._fs, self._bucket, self.key(name)))

    def open_lasting(self, name: str) -> BinaryIO:
        return cast(BinaryIO, _Remembering(self._tails, self._fs, self._bucket, self.key(name)))

    def open_whole(self, name: str) -> BinaryIO:
        """A copy on this machine's disk, which is fetched in one request and gone when it is closed."""
        copy = cast(BinaryIO, tempfile.TemporaryFile(prefix="reptok-"))  # noqa: SIM115 (who reads it closes it)
        try:
            with self.open(name) as source:
                shutil.copyfileobj(source, copy, CHUNK)
            copy.seek(0)
        except BaseException:
            copy.close()
            raise
        return copy

    @contextmanager
    def create(self, name: str, put: Put | None = None) -> Iterator[DigestingWriter]:
        """See `Folder.create`; `put` sends the whole file off."""
        with tempfile.TemporaryDirectory(prefix="reptok-") as spool:
            path = Path(spool, "object")
            with file_errors(str(path)), open(path, "xb") as raw:
                yield DigestingWriter(raw)
            with store_errors(self.url_of(name), writing=True):
                (put or self.put)(self.key(name), path)

    def put(self, key: str, path: Path, **condition: str) -> str:
        """Put a file in one piece, under a condition of S3's (`IfNoneMatch`, `IfMatch`) if there is one.

        Returns:
            The object's ETag.

        Raises:
            Changed: the condition does not hold.
        """
        with changes(key):
            return self._put(key, path, **condition)

    def put_bytes(self, name: str, data: bytes, **condition: str) -> str:
        """See `put`."""
        with store_errors(self.url_of(name), writing=True), changes(name):
            answer = self._call("put_object", Key=self.key(name), Body=data, **condition)
            return str(answer["ETag"])

    def read_tagged(self, name: str) -> tuple[bytes, str, float]:
        """A small file, its ETag, and seconds since it was written, by the server's clock."""
        from fsspec.asyn import sync

        async def get() -> Any:
            answer = await self._fs._call_s3("get_object", Bucket=self._bucket, Key=self.key(name))
            return answer, await answer["Body"].read()

        with store_errors(self.url_of(name)):
            answer, data = sync(self._fs.loop, get)
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return data, str(answer["ETag"]), (now - answer["LastModified"]).total_seconds()

    def etag(self, key: str) -> str:
        """The ETag of an object, "" if there is none."""
        try:
            return str(self._call("head_object", Key=key)["ETag"])
        except FileNotFoundError:
            return ""

    def _put(self, key: str, path: Path, **condition: str) -> str:
        if path.stat().st_size <= PART_BYTES:
            answer = self._call("put_object", Key=key, Body=path.read_bytes(), **condition)
            return str(answer["ETag"])
        upload = self._call("create_multipart_upload", Key=key)["UploadId"]
        places = range(0, path.stat().st_size, PART_BYTES)

        def put(number: int) -> dict[str, Any]:
            with path.open("rb") as file:
                file.seek((number - 1) * PART_BYTES)
                body = file.read(PART_BYTES)
            sent = self._call("upload_part", Key=key, UploadId=upload, PartNumber=number, Body=body)
            return {"PartNumber": number, "ETag": sent["ETag"]}

        try:
            parts = many(put, range(1, len(places) + 1), UPLOADS)
            answer = self._call(
                "complete_multipart_upload", Key=key, UploadId=upload,
                MultipartUpload={"Parts": parts}, **condition,
            )  # fmt: skip
        except BaseException:
            self._call("abort_multipart_upload", Key=key, UploadId=upload)
            raise
        return str(answer["ETag"])

    def size(self, name: str) -> int | None:
        head = self._head(name)
        return None if head is None else int(head["ContentLength"])

    def modified(self, name: str) -> float:
        head = self._head(name)
        if head is None:
            raise FileNotFoundError(f"{self.url_of(name)} is not there")
        return float(head["LastModified"].timestamp())

    def _head(self, name: str) -> Mapping[str, Any] | None:
        try:
            with store_errors(self.url_of(name)):
                return cast(Mapping[str, Any], self._call("head_object", Key=self.key(name)))
        except FileNotFoundError:
            return None

    def sizes(self) -> dict[str, int]:
        prefix = f"{self.key().rstrip('/')}/"
        found = {}
        for page in self._pages(Prefix=prefix):
            for entry in page.get("Contents", ()):
                if name := entry["Key"].removeprefix(prefix):
                    found[name] = int(entry["Size"])
        return dict(sorted(found.items()))

    def children(self) -> list[str]:
        prefix = f"{self.key().rstrip('/')}/".lstrip("/")
        pages = self._pages(Prefix=prefix, Delimiter="/")
        found = (entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ()))
        return sorted(name.removeprefix(prefix).rstrip("/") for name in found)

    def _pages(self, **arguments: Any) -> Iterator[Mapping[str, Any]]:
        """Answers to a listing, a thousand names each."""
        more: dict[str, str] = {}
        while True:
            try:
                with store_errors(self.url):
                    page = self._call("list_objects_v2", **arguments, **more)
            except FileNotFoundError:  # no such bucket
                return
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def remove(self, name: str = "") -> None:
        key = self.key(name)
        with store_errors(self.url_of(name), writing=True):
            found = [entry["Key"] for page in self._pages(Prefix=key) for entry in page.get("Contents", ())]
            self._delete([there for there in found if there == key or there.startswith(f"{key}/")])

    def _delete(self, keys: Sequence[str]) -> None:
        def delete(start: int) -> None:
            part = [{"Key": key} for key in keys[start : start + DELETED]]
            answer = self._call("delete_objects", Delete={"Objects": part, "Quiet": True})
            if errors := answer.get("Errors"):
                raise StorageError(0, f"cannot remove {errors[0]['Key']}: {errors[0].get('Message')}")

        many(delete, range(0, len(keys), DELETED))

    def move_to(self, other: Folder) -> None:
        sizes = self.sizes()
        target = S3Folder(other.url)

        def copy(name: str) -> None:
            if sizes[name] > COPIED_BYTES:
                self._fs.copy(self._key(name), target._key(name))
            else:
                source = {"Bucket": self._bucket, "Key": self.key(name)}
                target._call("copy_object", Key=target.key(name), CopySource=source)

        with store_errors(other.url, writing=True):
            many(copy, sizes)
            first = [self.key(name) for name in sizes if name == "manifest.json"]
            self._delete(first)  # what is half removed is unfinished
            self._delete([self.key(name) for name in sizes if name != "manifest.json"])

    def remove_unfinished(self) -> None:
        prefix = f"{self.key()}/"
        try:
            with store_errors(self.url):
                listed = self._call("list_multipart_uploads", Prefix=prefix)
                for upload in listed.get("Uploads", ()):
                    self._call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
        except (StorageError, FileNotFoundError):
            return  # not allowed to everybody: a rule of the bucket may remove old uploads, too


@contextmanager
def changes(name: str) -> Iterator[None]:
    """Turn the answer to a condition that does not hold into `Changed`."""
    try:
        yield
    except OSError as error:
        code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")
        if code not in _CHANGED:
            raise
        raise Changed(f"{name} was changed by another process") from error


class _Remembering(ObjectReader):
    """Knows the end of a file from the last time that it was open, and keeps it for the next."""

    def __init__(self, tails: OrderedDict[str, Tail], store: Any, bucket: str, key: str) -> None:
        super().__init__(store, bucket, key, tails.get(key))
        self._tails, self._known = tails, key

    def close(self) -> None:
        if self.tail is not None:
            self._tails[self._known] = self.tail
            while len(self._tails) > TAILS:
                self._tails.popitem(last=False)
        super().close()
