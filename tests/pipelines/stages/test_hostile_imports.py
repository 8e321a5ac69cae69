"""Folders that mean harm: nothing is waited for, followed, or unpacked beyond what a picture needs."""

import io
import os
import resource
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.dag.rows import RowsFailed
from pipelines.sources.layouts import open_source
from pipelines.sources.parquet import read
from pipelines.stages.import_images import ImportImages, ImportImagesConfig
from reptok.data.images import encode_jpeg

REPOSITORY = Path(__file__).parents[3]
JPG = encode_jpeg(np.full((8, 8, 3), 99, np.uint8))
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def imported(run_stage, folder, name="out"):
    config = ImportImagesConfig(folder=str(folder), image_size=8, val_fraction=0.0)
    dataset, stats = run_stage(ImportImages(config), {}, name)
    return dataset, {key.removeprefix("dropped_"): int(n) for key, n in stats.items() if n}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p").mkdir()
    return tmp_path / "p"


def tar(path, **members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def table(rows, **columns):
    return pa.table({"image": pa.array([{"bytes": row, "path": None} for row in rows], IMAGE), **columns})


def make_pipe(path):
    os.mkfifo(path)


def make_folder(path):
    path.mkdir()
    (path / "a").write_bytes(b"")


def make_device(path):
    path.symlink_to("/dev/zero")


def make_loop(path):
    path.symlink_to(path.name)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [make_pipe, make_folder, make_device, make_loop])
@pytest.mark.parametrize("layout", ["tar", "parquet"])
def test_what_is_no_file_is_one_row_with_a_reason(layout, make, folder, run_stage):
    if layout == "tar":
        tar(folder / "0.tar", a_jpg=JPG)
    else:
        pq.write_table(table([JPG]), folder / "0.parquet")
    make(folder / f"1.{layout}")
    open_source(str(folder)).digest()
    _, stats = imported(run_stage, folder)
    assert stats["rows_out"] == 1 and stats["rows_in"] == 2
    assert stats.keys() & {"damaged_file", "unreadable_file", "outside_folder"}


@pytest.mark.parametrize("name", ["b.png", "a.txt", "metadata.jsonl", "1.tar", "1.parquet"])
@pytest.mark.parametrize("how", ["absolute", "relative", "through a folder"])
def test_links_out_of_the_folder_are_not_read(name, how, folder, run_stage, tmp_path):
    secret = tmp_path / f"secret{Path(name).suffix}"
    if name == "1.tar":
        tar(secret, s_jpg=JPG, s_txt=b"a secret")
        tar(folder / "0.tar", a_jpg=JPG)
    elif name == "1.parquet":
        pq.write_table(table([JPG], text=["a secret"]), secret)
        pq.write_table(table([JPG], text=["x"]), folder / "0.parquet")
    else:
        Image.new("RGB", (9, 9)).save(folder / "a.png")
        Image.new("RGB", (9, 9)).save(folder / "c.png")
        secret.write_bytes(b'{"file_name": "a.png", "text": "a secret"}')
    if name == "b.png":
        Image.new("RGB", (9, 9)).save(secret)
    target = secret if how == "absolute" else Path("..") / secret.name
    if how == "through a folder":
        (folder / ".up").symlink_to(tmp_path)
        target = Path(".up") / secret.name
    (folder / name).symlink_to(target)
    dataset, stats = imported(run_stage, folder)
    assert stats.get("outside_folder", 0) == (name != "metadata.jsonl")
    assert stats["rows_out"] == (2 if name in ("b.png", "metadata.jsonl") else 1)
    assert all(b"a secret" not in file.read_bytes() for file in dataset.local_path().rglob("*.tar"))


def nested(folder, name, depth):
    """Open the last of so many folders in each other, deeper than a path may name."""
    place = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=place)
        inner = os.open(name, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    return place


@pytest.mark.parametrize(("name", "depth"), [("d", 1100), ("d" * 200, 40)])
@pytest.mark.parametrize("ending", ["png", "tar", "parquet"])
def test_folders_nested_without_end_are_left_out_and_said(ending, name, depth, folder, run_stage, capsys):
    if ending == "png":
        Image.new("RGB", (9, 9)).save(folder / "0.png")
    elif ending == "tar":
        tar(folder / "0.tar", a_jpg=JPG)
    else:
        pq.write_table(table([JPG]), folder / "0.parquet")
    place = nested(folder, name, depth)
    os.close(os.open(f"1.{ending}", os.O_CREAT, dir_fd=place))
    os.close(place)
    try:
        assert imported(run_stage, folder)[1]["rows_out"] == 1
    finally:
        subprocess.run(["rm", "-rf", str(folder / name)], check=True)  # shutil goes no deeper than Python
    assert "left out" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["png", "tar", "parquet"])
def test_a_name_that_is_no_text_is_a_row_like_others(ending, folder, run_stage):
    if ending == "png":
        Image.new("RGB", (9, 9)).save(folder / "0.png")
    elif ending == "tar":
        tar(folder / "0.tar", a_jpg=JPG)
    else:
        pq.write_table(table([JPG]), folder / "0.parquet")
    os.rename(folder / f"0.{ending}", os.fsencode(folder) + b"/\xff\n." + ending.encode())
    assert imported(run_stage, folder)[1]["rows_out"] == 1


def test_links_within_the_folder_are_followed(folder, run_stage):
    (folder / ".store").mkdir()
    Image.new("RGB", (9, 9)).save(folder / ".store" / "x.png")
    (folder / "a.png").symlink_to(".store/x.png")
    (folder / "b.png").symlink_to(folder / ".store" / "x.png")
    assert imported(run_stage, folder)[1]["rows_out"] == 2


def zeros(*, by_dictionary):
    return table([bytes(2**27 + 1)] * 12), {"use_dictionary": by_dictionary}


def shared_beginnings():
    return table([bytes(2**26)] * 24), {
        "use_dictionary": False,
        "column_encoding": {"image.bytes": "DELTA_BYTE_ARRAY"},
    }


def labels():
    return table([b""] * 20_000_000, label=np.zeros(20_000_000, np.int64)), {}


def long_texts(column):
    return table([JPG] * 30, **{column: ["x" * 2**27] * 30}), {}


BOMBS = {
    "values in a dictionary": partial(zeros, by_dictionary=True),
    "values in plain pages": partial(zeros, by_dictionary=False),
    "values that begin as the one before": shared_beginnings,
    "texts": partial(long_texts, "text"),
    "class names": partial(long_texts, "label"),
    "labels": labels,
}
IMPORT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repository!r})
from pipelines.dag.shard_records import checked_stats
from pipelines.dag.workspace import Workspace
from pipelines.sources.layouts import open_source
from pipelines.stages.import_images import ImportImagesConfig, ImportJob, part_shards
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
start, before = time.process_time(), peak()
try:
    source = open_source({folder!r})
    config = ImportImagesConfig(folder={folder!r}, image_size=8, val_fraction=0.0)
    job = ImportJob(config, "parquet", source.class_names)
    parts = source.parts(1000, 0.0)
    for index, part in enumerate(parts[:3]):
        shard = part_shards([part])[0]
        checked_stats(shard, job(shard, Workspace({out!r})))
except ValueError as error:
    print(str(error)[:200])
print(peak() - before, time.process_time() - start)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_does_not_unpack_to_gigabytes(name, folder):
    content, options = BOMBS[name]()
    pq.write_table(content, folder / "0.parquet", compression="zstd", **options)
    del content
    size = (folder / "0.parquet").stat().st_size
    code = IMPORT.format(repository=str(REPOSITORY), folder=str(folder), out=str(folder.parent / "out"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    kilobytes, seconds = map(float, done.stdout.splitlines()[-1].split())
    print(f"{name}: a file of {size:,} bytes, {kilobytes / 1024:.0f} MB, {seconds:.1f} s")
    assert kilobytes < 900 * 1024 and seconds < 20


def test_a_page_that_unpacks_to_gigabytes_is_refused_before_it_does(folder, run_stage):
    """The dictionary's page header claims 2 GB: it is read, and nothing is allocated for it."""
    pq.write_table(table([bytes(2**27), JPG]), folder / "0.parquet", compression="zstd", use_dictionary=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pool = pa.total_allocated_bytes()
    with pytest.raises(ValueError, match="unpacks to 1342"):
        list(read(folder, None, {"file": "0.parquet", "start": 0, "stop": 2, "fields": [], "key": ""}))
    assert pa.total_allocated_bytes() - pool < 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    assert imported(run_stage, folder)[1]["damaged_file"] == 2


def test_a_footer_that_claims_more_rows_than_bytes_makes_no_parts(folder):
    pq.write_table(pa.table({"image": pa.nulls(5_000_000, IMAGE)}), folder / "0.parquet", compression="zstd")
    assert (folder / "0.parquet").stat().st_size < 5_000_000
    with pytest.raises(ValueError, match="5000000 rows in"):
        open_source(str(folder))


def test_a_row_group_is_read_once_whatever_the_parts(folder):
    """Rows decoded for twelve parts of one row group are the group's; counted, since clocks lie."""
    rows = [JPG + bytes([number % 256]) for number in range(1200)]
    pq.write_table(table(rows), folder / "0.parquet", row_group_size=1200, compression="zstd")
    source = open_source(str(folder))
    parts = source.parts(100, 0.0)
    assert len(parts) == 12
    counted = []
    iterate = pq.ParquetFile.iter_batches

    def counting(self, *arguments, **settings):
        for batch in iterate(self, *arguments, **settings):
            counted.append(batch.num_rows)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pq.ParquetFile, "iter_batches", counting)
        found = [picture.data for part in parts for picture in read(folder, None, part.spans[0].place)]
    assert found == rows
    assert sum(counted) == 1200
    backwards = [[p.data for p in read(folder, None, part.spans[0].place)] for part in reversed(parts)]
    assert [data for part in reversed(backwards) for data in part] == rows


def test_parts_of_files_that_alternate_or_change_are_read_right(folder):
    for name, byte in (("0", b"a"), ("1", b"b")):
        pq.write_table(
            table([JPG + byte * n for n in range(50)]), folder / f"{name}.parquet", row_group_size=20
        )
    parts = open_source(str(folder)).parts(7, 0.0)
    mixed = sorted(parts, key=lambda part: (part.spans[0].place["start"], part.spans[0].place["file"]))
    found = {}
    for part in mixed:
        found.update({p.name: p.data for p in read(folder, None, part.spans[0].place)})
    assert found == {f"{i}.parquet:{n}": JPG + b"ab"[i : i + 1] * n for i in range(2) for n in range(50)}
    half = [p.data for p, _ in zip(read(folder, None, parts[0].spans[0].place), range(3), strict=False)]
    pq.write_table(table([JPG + b"c"] * 50), folder / "0.parquet")
    assert (
        len(half) == 3 and [p.data for p in read(folder, None, parts[1].spans[0].place)] == [JPG + b"c"] * 7
    )


CLOSED = """
import atexit, glob, os, sys
opened = lambda: [path for path in glob.glob("/proc/self/fd/*") if sys.argv[1] in os.path.realpath(path)]
atexit.register(lambda: print(opened()))
from pathlib import Path
from pipelines.sources.layouts import open_source
from pipelines.sources.parquet import read
folder = Path(sys.argv[1])
print(len(list(read(folder, None, open_source(str(folder)).parts(100, 0.0)[0].spans[0].place))))
"""


def test_a_file_that_was_read_in_part_is_closed_before_the_interpreter_ends(folder):
    """Its reader crashes where it outlives Python's modules."""
    pq.write_table(table([JPG] * 300), folder / "0.parquet", row_group_size=50)
    command = [sys.executable, "-P", "-c", CLOSED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=300, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["100", "[]"]), done.stderr


def test_large_members_are_refused_or_passed_over_unread(folder, run_stage):
    tar(folder / "0.tar", a_jpg=JPG, a_json=b"[" + b"1," * 2**20 + b"1]", b_jpg=JPG, b_npy=bytes(2**24))
    _, stats = imported(run_stage, folder)
    assert (stats["rows_out"], stats["too_large"]) == (1, 1)


def test_a_sparse_tar_of_a_terabyte_is_passed_in_a_moment(folder, run_stage):
    info = tarfile.TarInfo("big.jpg")
    info.size = 2**40 - 512
    with open(folder / "0.tar", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.seek(info.size, 1)
        small = tarfile.TarInfo("c.jpg")
        small.size = len(JPG)
        file.write(small.tobuf() + JPG + bytes(-len(JPG) % 512 + 1024))
    start = time.process_time()
    _, stats = imported(run_stage, folder)
    assert (stats["rows_out"], stats["too_large"]) == (1, 1)
    assert time.process_time() - start < 10


def test_what_no_one_foresaw_stays_a_rows_own_until_it_is_too_much(folder, run_stage, monkeypatch):
    from pipelines.stages import import_images

    for number in range(9):
        Image.new("RGB", (9 + number, 9)).save(folder / f"{number}.png")

    def crop(image, size):
        if image.shape[1] in broken:
            raise ZeroDivisionError("a fault that no one foresaw")
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(import_images, "centre_crop", crop)
    broken = {10, 12}
    config = ImportImagesConfig(folder=str(folder), image_size=8, val_fraction=0.0)
    from pipelines.dag.workspace import Workspace

    source = open_source(str(folder))
    (part,) = source.parts(100, 0.0)
    shard = import_images.part_shards([part])[0]
    job = import_images.ImportJob(config, "folder", source.class_names)
    stats = job(shard, Workspace(str(folder.parent / "out")))
    assert (stats["rows_out"], stats["dropped_internal_ZeroDivisionError"]) == (7, 2)
    broken = set(range(9, 14))
    with pytest.raises(RowsFailed, match=r"\d\.png"):
        job(shard, Workspace(str(folder.parent / "again")))
