"""Parquet files that claim what they do not have: refused by their headers, before a reader believes them."""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources.layouts import READ, open_source
from pipelines.sources.parquet import read

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROWS = [b"picture %d" % number for number in range(30)]
Header = dict[int, Any]
POOLS: list[Any] = []
"""Kept: what was read of a file's beginning, and with it their memory, outlives a test."""


def written(rows: list[bytes] = ROWS, columns: dict[str, Any] | None = None, **options: Any) -> bytes:
    images = pa.array([{"bytes": row, "path": None} for row in rows], IMAGE)
    file = io.BytesIO()
    pq.write_table(pa.table({"image": images, **(columns or {})}), file, **options)
    return file.getvalue()


@pytest.fixture
def thrift(load_fixture: Callable[[str], ModuleType]) -> ModuleType:
    return load_fixture("thrift_compact")


@pytest.fixture
def lie(thrift: ModuleType) -> Callable[..., bytes]:
    """Write a file again with other page headers, page contents or another footer, all offsets adjusted."""

    def rewritten(
        data: bytes,
        page: Callable[[Header, bytes], bytes] = lambda header, content: content,
        footer: Callable[[Header], None] = lambda meta: None,
    ) -> bytes:
        size = struct.unpack("<I", data[-8:-4])[0]
        meta, _ = thrift.decode(data, len(data) - 8 - size)
        out = bytearray(b"PAR1")
        for group in meta[4][1][1]:
            for chunk in group[1][1][1]:
                facts = chunk[3][1]
                place = min(facts[key][1] for key in (9, 11) if key in facts)
                end, start, first = place + facts[7][1], len(out), 0
                while place < end:
                    header, place = thrift.decode(data, place)
                    content = data[place : place + header[3][1]]
                    place += len(content)
                    changed = page(header, content)
                    if changed != content:
                        header[2] = header[3] = (thrift.I32, len(changed))
                    if header[1][1] == 2:
                        facts[11] = (thrift.I64, len(out))
                    else:
                        first = first or len(out)
                    out += thrift.encode(header) + changed
                facts[9], facts[7] = (thrift.I64, first), (thrift.I64, len(out) - start)
        footer(meta)
        end = thrift.encode(meta)
        return bytes(out) + end + struct.pack("<I", len(end)) + b"PAR1"

    return rewritten


def seen(tmp_path: Path, data: bytes) -> tuple[list[Any], int]:
    """What becomes of the rows, one entry for an error that ends them; and the most bytes that arrow held."""
    (tmp_path / "0.parquet").write_bytes(data)
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    POOLS.append(pool)
    pa.set_memory_pool(pool)
    found: list[Any] = []
    try:
        source = open_source(str(tmp_path))
        for part in source.parts(1000, 0.0)[:3]:
            found += [picture.reason or picture.data for picture in read(tmp_path, None, part.spans[0].place)]
    except ValueError as error:
        found.append(error)
    finally:
        pa.set_memory_pool(before)
    return found, pool.max_memory()


def test_a_file_written_again_is_read(tmp_path: Path, lie: Callable[..., bytes]) -> None:
    assert seen(tmp_path, lie(written()))[0] == ROWS


@pytest.mark.parametrize("count", [2**31 - 1, 2**28, 31, -1, -(2**31)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("dictionary", {}), ("data", {"use_dictionary": False}),
     ("data of version 2", {"use_dictionary": False, "data_page_version": "2.0"})],
)  # fmt: skip
def test_more_values_than_can_be_are_refused(
    kind: str, options: dict[str, Any], count: int, tmp_path: Path, lie: Callable[..., bytes],
    thrift: ModuleType,
) -> None:  # fmt: skip
    def claim(header: Header, content: bytes) -> bytes:
        field = {"dictionary": 7, "data": 5, "data of version 2": 8}[kind]
        if field in header:
            header[field][1][1] = (thrift.I32, count)
        return content

    found, most = seen(tmp_path, lie(written(**options), claim))
    if kind == "dictionary" and count == 31:
        return  # its bytes could hold so many; the reader says that they do not
    assert len(found) == 1 and "values where there can be" in str(found[0])
    assert most < 2**20


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize("encoding", ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_a_page_of_a_hundred_bytes_whose_lengths_number_a_billion(
    encoding: str, tmp_path: Path, lie: Callable[..., bytes]
) -> None:
    def claim(header: Header, content: bytes) -> bytes:
        levels = content[: 4 + struct.unpack("<I", content[:4])[0]]
        lengths = varint(2**31 - 256) + varint(1) + varint(2**30) + bytes(3)  # all zero, in one block
        return levels + 3 * lengths + b"abc"

    data = written(use_dictionary=False, compression="none", column_encoding={"image.bytes": encoding})
    assert seen(tmp_path, data)[1] < 2**20
    found, most = seen(tmp_path, lie(data, claim))
    assert "write the file again" in str(found[0])
    assert most < 2**20


@pytest.mark.parametrize("column", ["label", "text", "image.bytes"])
def test_a_list_of_millions_in_a_row_is_not_read(column: str, tmp_path: Path) -> None:
    columns = {column: pa.array([[None] * 5_000_000], pa.list_(pa.int64()))}
    found, most = seen(tmp_path, written(ROWS[:1], columns, compression="zstd"))
    if column == "image.bytes":
        assert "values where there can be 1" in str(found[0])
    else:
        assert found == [ROWS[0] if column == "text" else "label_out_of_range"]
    assert most < 2**20


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("ms"), pa.duration("ms"), pa.date32(), pa.decimal128(38, 0), pa.float64(), pa.bool_()],
)
def test_labels_of_a_type_that_is_no_class(kind: pa.DataType, tmp_path: Path) -> None:
    """Some have values that Python's own types cannot hold."""
    largest = {pa.date32(): 2**31 - 1, pa.bool_(): True, pa.float64(): 1.0}.get(kind, 2**62)
    labels = pa.array([largest], kind)
    assert seen(tmp_path, written(ROWS[:1], {"label": labels}))[0] == ["label_out_of_range"]


@pytest.mark.parametrize("nested", [65, 5000, 100_000])
def test_a_schema_nested_beyond_the_readers_stack(
    nested: int, tmp_path: Path, lie: Callable[..., bytes], thrift: ModuleType
) -> None:
    def nest(meta: Header) -> None:
        group = {3: (thrift.I32, 1), 4: (thrift.BINARY, b"g"), 5: (thrift.I32, 1)}
        leaf = {1: (thrift.I32, 1), 3: (thrift.I32, 1), 4: (thrift.BINARY, b"l")}
        root, *rest = meta[2][1][1]
        root[5] = (thrift.I32, root[5][1] + 1)
        meta[2] = (thrift.LIST, (thrift.STRUCT, [root, *rest, *[group] * nested, leaf]))
        meta.pop(7, None)

    found, _ = seen(tmp_path, lie(written(), footer=nest))
    assert "its schema" in str(found[0])


def test_a_footer_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "0.parquet").open("wb") as file:
        file.write(b"PAR1")
        file.seek(2**31)
        file.write(struct.pack("<I", 2**31 - 10) + b"PAR1")
    with pytest.raises(ValueError, match="its footer has 2147483638 bytes"):
        open_source(str(tmp_path))


LAYOUTS = {"folder": "a.jpg", "parquet": "0.parquet", "webdataset": "0.tar"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_file_is_blamed_where_this_machine_has_no_more_open_files(layout: str, tmp_path: Path) -> None:
    import tarfile

    if layout == "webdataset":
        (tmp_path / "a.jpg").write_bytes(b"x")
        with tarfile.open(tmp_path / "0.tar", "w") as tar:
            tar.add(tmp_path / "a.jpg", "a.jpg")
    else:
        (tmp_path / LAYOUTS[layout]).write_bytes(written() if layout == "parquet" else b"x")
    part = open_source(str(tmp_path)).parts(10, 0.0)[0]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        with pytest.raises(OSError, match="Too many open files"):
            list(READ[layout](tmp_path, None, part.spans[0].place))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


SHORT = """
import resource, sys
from pathlib import Path
from pipelines.sources.layouts import open_source
from pipelines.dag.workspace import Workspace
from pipelines.stages.import_images import ImportImagesConfig, ImportJob, part_shards
folder, out = sys.argv[1:]
[part] = open_source(folder).parts(1000, 0.0)
job = ImportJob(ImportImagesConfig(folder=folder, image_size=8), "parquet", None)
size = int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 2**25, size + 2**25))
try:
    job(part_shards([part])[0], Workspace(out))
except MemoryError as error:
    print("ours:", *getattr(error, "__notes__", []))
"""


def test_no_file_is_blamed_where_this_machine_has_no_more_memory(tmp_path: Path) -> None:
    """A page of 60 MB is no bomb: whom 32 MB do not suffice, stops, and does not drop the picture."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "0.parquet").write_bytes(written([bytes(60 * 2**20)], compression="zstd"))
    done = subprocess.run(
        [sys.executable, "-P", "-c", SHORT, str(tmp_path / "p"), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=300, env={"ARROW_DEFAULT_MEMORY_POOL": "system"},
    )  # fmt: skip
    assert done.stdout.startswith("ours: at row"), done.stdout + done.stderr[-2000:]
