"""Files of an object store read in parts: the same bytes, each part fetched once, in bounded room."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from reptok.autoencoder import LatentSpec
from reptok.data import pieces
from reptok.data.columns import VERDICTS, write_table
from reptok.data.loader import GeneratorData, TokenizerData
from reptok.data.remote import RemotePath, file_at
from reptok.data.rows import BlockRows, ImageRows
from reptok.data.stats import describe
from reptok.data.stream import Batches
from reptok.data.verdict_stats import describe_verdicts

SPEC = LatentSpec(vae="x", vae_digest="x", scale=1.0, shift=0.0, channels=4, downsample=8)
PIECE, PIECES = 1000, 40


@pytest.fixture
def put(s3, monkeypatch):
    """`put(folder)` copies a folder into the store; gives its address there."""
    monkeypatch.setattr(pieces, "PIECE", PIECE)
    monkeypatch.setattr(pieces, "GROUP", 8)

    def copy(folder: Path) -> RemotePath:
        for path in folder.rglob("*"):
            if path.is_file():
                s3.upload_file(str(path), "reptok", f"{folder.name}/{path.relative_to(folder)}")
        return RemotePath(f"s3://reptok/{folder.name}")

    return copy


@pytest.fixture
def numbers(put, tmp_path):
    """A file of forty parts, the last one short, and its bytes."""
    data = np.random.default_rng(0).integers(0, 256, PIECE * PIECES - 300, np.uint8)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "file").write_bytes(data.tobytes())
    return put(tmp_path / "some") / "file", data


def wait_for(condition):
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.02)
    raise AssertionError("it did not come")


def test_what_is_read_is_what_lies_there_and_nothing_else_is_asked_for(numbers, s3_server):
    path, data = numbers
    file = file_at(path)
    assert file.read(5 * PIECE - 7, 20) == data[5 * PIECE - 7 : 5 * PIECE + 13].tobytes()
    rows = np.full((5, 50), 7, np.uint8)
    file.read_rows(rows, np.array([3, 0]), np.array([20 * PIECE + 10, 39 * PIECE]))
    assert np.array_equal(rows[3], data[20 * PIECE + 10 :][:50])
    assert np.array_equal(rows[0], data[39 * PIECE :][:50]) and (rows[[1, 2, 4]] == 7).all()
    parts = {(first // PIECE, last // PIECE) for _, first, last in s3_server.ranges}
    assert parts == {(4, 5), (20, 20), (39, 39)}
    assert sum(last + 1 - first for _, first, last in s3_server.ranges) == 4 * PIECE - 300
    file.read(4 * PIECE, PIECE)
    assert len(s3_server.ranges) == 3


def test_neighbours_come_in_one_request_and_before_they_are_read(numbers, s3_server):
    path, data = numbers
    file = file_at(path)
    file.fetch(np.array([8 * PIECE + 5, 12 * PIECE]), np.array([2 * PIECE, 4 * PIECE]))
    wait_for(lambda: len(s3_server.ranges) == 2)
    assert {(first // PIECE, last // PIECE) for _, first, last in s3_server.ranges} == {(8, 10), (12, 15)}
    wait_for(lambda: len(list(Path(os.environ["REPTOK_CACHE"]).rglob("0000*"))) == 7)
    assert file.read(8 * PIECE + 5, 100) == data[8 * PIECE + 5 :][:100].tobytes()
    assert len(s3_server.ranges) == 2


def test_a_stream_is_sought_and_read_to_its_end(numbers):
    path, data = numbers
    with path.open() as file:
        assert file.read() == data.tobytes() and file.read(1) == b""
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:].tobytes()


def test_a_part_is_fetched_once_for_all_processes_and_threads(numbers, s3_server):
    path, data = numbers
    program = (
        "from reptok.data import pieces, remote; pieces.PIECE, pieces.GROUP = 1000, 8\n"
        f"file = remote.file_at(remote.RemotePath({path.url!r})); print(sum(file.read(0, {len(data)})))"
    )
    several = [
        subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    threads = [threading.Thread(target=lambda: file_at(path).read(0, len(data))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert [int(process.communicate()[0]) for process in several] == [int(data.sum())] * 2
    for thread in threads:
        thread.join()
    asked = sorted(n for _, first, last in s3_server.ranges for n in range(first // PIECE, last // PIECE + 1))
    assert asked == list(range(PIECES))


def test_no_more_than_what_there_is_room_for_stays_and_all_is_read_right(numbers, s3_server):
    path, data = numbers
    keep = 24 * PIECE
    file = file_at(path.keeping(keep))
    for start in (0, 10 * PIECE, 0, 20 * PIECE, 0, 30 * PIECE):
        assert file.read(start, 9 * PIECE) == data[start : start + 9 * PIECE].tobytes()
        there = [p.stat().st_size for p in Path(os.environ["REPTOK_CACHE"]).rglob("0000*")]
        assert 9 * PIECE <= sum(there) <= keep
    fetched = sum(last + 1 - first for _, first, last in s3_server.ranges)
    assert fetched == 4 * 9 * PIECE, "what was used lately stays longer"


@pytest.fixture
def restless():
    """Threads that interrupt each other all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_threads_that_share_more_parts_than_stay_open_disturb_each_other_in_nothing(put, tmp_path):
    data = np.random.default_rng(1).integers(0, 256, (300, PIECE), np.uint8)
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "file").write_bytes(data.tobytes())
    file = file_at(put(tmp_path / "many") / "file")

    def wrong(seed):
        random, found = np.random.default_rng(seed), 0
        for _ in range(500):
            numbers, array = random.integers(300, size=3), np.empty((3, PIECE), np.uint8)
            file.read_rows(array, np.arange(3), numbers * PIECE)
            found += not np.array_equal(array, data[numbers])
        return found

    with ThreadPoolExecutor(8) as readers:
        assert list(readers.map(wrong, range(8))) == [0] * 8


def test_a_part_that_was_cut_short_is_fetched_again(numbers, s3_server):
    path, data = numbers
    file_at(path).read(0, 10)
    (part,) = Path(os.environ["REPTOK_CACHE"]).rglob("000000")
    part.write_bytes(b"")
    pieces._piece.cache_clear()  # a machine that went down remembers no open file
    assert file_at(path).read(0, 10) == data[:10].tobytes() and len(s3_server.ranges) == 2


def test_of_latents_a_sample_and_the_headers_are_fetched(put, small_dataset, s3_server, tmp_path):
    folder = small_dataset.write_latents(tmp_path / "latents", SPEC, token_dim=6, latent_size=32)
    there, here = (BlockRows(place / "train-00001.tar") for place in (put(folder), folder))
    size = (folder / "train-00001.tar").stat().st_size
    one, offsets = there.find("moments", np.array([5]), np.array([1]))
    array, same = (np.empty((1, *one.shape), one.dtype) for _ in range(2))
    there.file.read_rows(array, np.array([0]), offsets)
    here.file.read_rows(same, np.array([0]), offsets)
    assert np.array_equal(array, same) and same.any()
    fetched = sum(last + 1 - first for _, first, last in s3_server.ranges)
    assert one.bytes < fetched < one.bytes + 2 * (8192 + 3 * PIECE) < size / 2


def test_a_folder_that_is_forgotten_is_fetched_again_and_its_neighbours_are_not(numbers, s3_server, s3):
    path, data = numbers
    s3.put_object(Bucket="reptok", Key="someone/file", Body=data.tobytes())
    other = RemotePath("s3://reptok/someone/file")
    for _ in range(2):
        assert file_at(path).read(0, 10) == file_at(other).read(0, 10) == data[:10].tobytes()
        pieces.forget("s3://reptok/some")
    assert [name for name, _, _ in s3_server.ranges] == [
        "/reptok/some/file", "/reptok/someone/file", "/reptok/some/file",
    ]  # fmt: skip


def test_a_store_that_is_busy_is_asked_again_and_one_that_lacks_a_file_is_not(numbers, s3_server):
    path, data = numbers
    refusals = iter([True, True])
    s3_server.gate = lambda method, name: method == "GET" and next(refusals, False)
    assert file_at(path).read(0, 10) == data[:10].tobytes() and s3_server.refused == 2
    with pytest.raises(FileNotFoundError):
        file_at(path / "nothing").read(0, 10)
    assert not (path / "nothing").exists() and path.exists()
    with pytest.raises(ValueError, match="some/file ends within the 20 bytes at 39690"):
        file_at(path).read(len(data) - 10, 20)


@pytest.mark.parametrize("kind", ["tokenizer", "generator"])
def test_batches_are_those_of_the_disk(kind, put, small_dataset, tmp_path):
    dataset = small_dataset.write_dataset(tmp_path / "dataset")
    if kind == "tokenizer":
        other = small_dataset.write_latents(tmp_path / "latents", SPEC, token_dim=6, latent_size=4)
        here, there = TokenizerData(dataset, other), TokenizerData(put(dataset), put(other))
    else:
        other = small_dataset.write_tokens(tmp_path / "tokens", token_dim=6)
        here, there = GeneratorData(dataset, other), GeneratorData(put(dataset), put(other))
    ours, theirs = Batches(here, 4, seed=3).stream(0), Batches(there, 4, seed=3).stream(0)
    for _, one, same in zip(range(8), ours, theirs, strict=False):
        for name, value in vars(one).items():
            equal = value == vars(same)[name]
            assert equal if isinstance(equal, bool) else equal.all(), name
    ours.close()
    theirs.close()


def test_the_index_of_a_tar_is_kept_when_its_parts_are_gone(put, s3_server, tmp_path, small_dataset):
    """Its parts are fetched once to find the pictures, and after a restart only those that are read."""
    small_dataset.write_dataset(tmp_path / "dataset")
    local = ImageRows(tmp_path / "dataset" / "train-00000.tar")
    place = put(tmp_path / "dataset") / "train-00000.tar"
    first = ImageRows(place)
    assert np.array_equal(first.offsets, local.offsets) and np.array_equal(first.sizes, local.sizes)
    for part in Path(os.environ["REPTOK_CACHE"]).rglob("0000*"):
        part.unlink()
    pieces._piece.cache_clear()
    s3_server.ranges.clear()
    again = ImageRows(place)
    assert again.jpg(3) == local.jpg(3) and np.array_equal(again.offsets, local.offsets)
    wanted = range(int(local.offsets[3]) // PIECE, (int(local.offsets[3] + local.sizes[3]) - 1) // PIECE + 1)
    assert sum(last + 1 - first for _, first, last in s3_server.ranges) == PIECE * len(wanted)


def test_stats_of_a_store_are_those_of_the_disk(put, tmp_path, small_dataset):
    folder, judged = small_dataset.write_dataset(tmp_path / "dataset"), tmp_path / "verdicts"
    assert list(describe(put(folder)))[1:] == list(describe(folder))[1:]
    judged.mkdir()
    row = {"key": "0", "kept": True, "reason": None, "source": "a.test", "quarantined": False}
    write_table(judged / "verdicts-00000.parquet", [row], VERDICTS)
    (judged / "manifest.json").write_text('{"files": {"verdicts-00000.parquet": {}, "review.parquet": {}}}')
    lines = list(describe_verdicts(put(judged)))[1:]
    assert lines == list(describe_verdicts(judged))[1:] and lines[0] == "  kept: 1 (100.0 %)"
