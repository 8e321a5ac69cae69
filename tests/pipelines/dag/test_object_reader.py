"""Files on S3 are read with the requests and bytes that they take, whoever reads them."""

import io
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dag import object_reader
from pipelines.dag.storage import open_folder
from reptok.data.columns import URLS, count_rows, iterate_rows, read_table

ROOT = "s3://reptok/data"
MEGABYTE = 2**20


@pytest.fixture
def folder(s3, s3_server):
    """A folder on S3; the requests that are counted are those of the test."""
    made = open_folder(ROOT)
    made.sizes()
    s3_server.requests.clear()
    return made


def gets(s3_server):
    return [line for line in s3_server.requests if line.startswith("GET")]


def test_whatever_is_sought_the_bytes_are_those_of_the_file(folder, s3_server, monkeypatch):
    monkeypatch.setattr(object_reader, "TAIL_BYTES", 100)
    monkeypatch.setattr(object_reader, "SKIPPED", 50)
    monkeypatch.setattr(object_reader, "CHUNK", 64)
    data, draw = random.Random(1).randbytes(1000), random.Random(2)
    folder.write_bytes("x", data)
    for _ in range(12):
        with folder.open("x") as file, io.BytesIO(data) as known:
            for _ in range(12):
                if draw.random() < 0.4:
                    place = draw.choice([(draw.randrange(1000), 0), (-draw.randrange(1, 1000), 2), (7, 1)])
                    assert file.seek(*place) == known.seek(*place)
                size = draw.choice([0, 1, 30, 200, -1])
                assert file.read(size) == known.read(size) and file.tell() == known.tell()


def test_reading_on_is_one_request_and_a_broken_answer_is_taken_up(folder, s3_server):
    data = random.Random(3).randbytes(3 * MEGABYTE)
    folder.write_bytes("x", data)
    s3_server.requests.clear()
    with folder.open("x") as file:
        assert file.read(512) + file.read(512) + file.read() == data
    assert len(s3_server.requests) == 1
    s3_server.broken = 2
    with folder.open("x") as file:
        assert file.read() == data
    assert s3_server.broken == 0 and len(s3_server.requests) == 4 and len(s3_server.ranges) == 0


def test_what_is_empty_or_not_there(folder, s3_server):
    folder.write_bytes("x", b"")
    with folder.open("x") as file:
        assert file.seek(0, 2) == 0 and file.read() == b""
    assert folder.read_bytes("x") == b"" and folder.size("x") == 0
    with pytest.raises(FileNotFoundError):
        folder.read_bytes("y")
    s3_server.requests.clear()
    assert folder.size("y") is None and not folder.exists("data")
    assert [line.split()[0] for line in s3_server.requests] == ["HEAD", "HEAD"]


def test_of_a_table_only_the_columns_that_are_read_are_fetched(folder, s3_server):
    """Three megabytes of which the URLs are a hundredth."""
    rows = 3000
    table = {
        "key": [f"{number:024x}" for number in range(rows)],
        "url": [f"https://a.test/{number}" for number in range(rows)],
        "text": [np.random.default_rng(number).bytes(500).hex() for number in range(rows)],
        "split": ["train"] * rows,
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer, row_group_size=1000, compression="none", use_dictionary=False)
    folder.write_bytes("urls.parquet", buffer.getvalue())
    s3_server.sent, size = 0, len(buffer.getvalue())
    with folder.open("urls.parquet") as file:
        assert count_rows(file) == rows
    assert len(gets(s3_server)) == 1 and s3_server.sent == object_reader.TAIL_BYTES
    with folder.open("urls.parquet") as file:
        assert read_table(file, URLS, columns=["url"])["url"].to_pylist() == table["url"]
    assert size > 3 * MEGABYTE and s3_server.sent < 2 * object_reader.TAIL_BYTES + 100_000
    assert len(gets(s3_server)) <= 2 + 3  # the end of the file twice, and a part of each of three groups
    s3_server.requests.clear()
    with folder.open("urls.parquet") as file:
        read = list(iterate_rows(file, URLS, columns=["key", "url"]))
    assert [row["url"] for row in read] == table["url"]
    assert len(gets(s3_server)) <= 1 + 3  # neighbours come together


def test_of_a_lasting_file_the_end_is_known_the_next_time(folder, s3_server):
    folder.write_bytes("x", bytes(100))
    for _ in range(3):
        with folder.open_lasting("x") as file:
            assert file.seek(0, 2) == 100 and file.seek(0) == 0 and file.read() == bytes(100)
    assert len(gets(s3_server)) == 1
