"""Hostile tars, tables and texts through the real stage: no crash, no hang, every row counted by reason."""

import subprocess
import sys
from importlib import import_module
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from pipelines.stages.import_images import ImportImages, ImportImagesConfig
from reptok.data.shards import read_samples
from reptok.data.verify import verify

FIXTURES = Path(__file__).parents[2] / "fixtures"
sys.path.insert(0, str(FIXTURES))
nasty_tars, nasty_tables = import_module("nasty_tars"), import_module("nasty_tables")


def imported(run_stage, folder, **settings):
    config = ImportImagesConfig(folder=str(folder), image_size=8, val_fraction=0.0, **settings)
    dataset, stats = run_stage(ImportImages(config), {})
    counts = {
        name.removeprefix("dropped_"): int(n)
        for name, n in stats.items()
        if name.startswith("dropped_") and n
    }
    assert stats["rows_in"] == stats["rows_out"] + sum(counts.values())
    assert verify(dataset.local_path()).faults == []
    return dataset, stats, {"out": int(stats["rows_out"]), **counts}


@pytest.mark.parametrize("name", nasty_tars.CASES)
def test_nasty_tar(name, run_stage, tmp_path):
    data, expected = nasty_tars.CASES[name]
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "0.tar").write_bytes(data)
    (tmp_path / "p" / "1.tar").write_bytes(nasty_tars.between())
    before = set(tmp_path.rglob("*"))
    _, _, counts = imported(run_stage, tmp_path / "p")
    assert counts == expected | {"out": expected["out"] + 2}
    assert all((tmp_path / "out") in (path, *path.parents) for path in set(tmp_path.rglob("*")) - before)


@pytest.mark.parametrize("name", nasty_tables.PARQUETS)
def test_nasty_parquet(name, run_stage, tmp_path):
    data, expected = nasty_tables.PARQUETS[name]
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.parquet").write_bytes(data)
    (tmp_path / "p" / "0.parquet").write_bytes(nasty_tables.GOOD)
    _, _, counts = imported(run_stage, tmp_path / "p")
    assert counts == expected | {"out": expected["out"] + 4}


@pytest.mark.parametrize("name", nasty_tables.METADATA)
def test_nasty_metadata(name, run_stage, tmp_path):
    file, data, captions, faults = nasty_tables.METADATA[name]
    (tmp_path / "p").mkdir()
    for picture in "ab":
        Image.new("RGB", (9, 9)).save(tmp_path / "p" / f"{picture}.png")
    (tmp_path / "p" / file).write_bytes(data)
    dataset, stats, counts = imported(run_stage, tmp_path / "p")
    assert counts == {"out": 2} and stats["source_faults"] == faults
    with dataset.open("train-00000.tar") as tar:
        found = {sample.info["file"]: sample.caption for sample in read_samples(tar)}
    assert (found["a.png"], found["b.png"]) == captions


@pytest.mark.parametrize("name", nasty_tars.CASES)
def test_our_own_reader_refuses_it(name):
    data, _ = nasty_tars.CASES[name]
    if not any(data):
        assert list(read_samples(BytesIO(data))) == [] if data else True
        return
    with pytest.raises(ValueError):
        list(read_samples(BytesIO(data)))


def test_there_are_enough_of_them():
    assert len(nasty_tars.CASES) + len(nasty_tables.PARQUETS) + len(nasty_tables.METADATA) >= 130


FUZZ = 3125
SLICE = 125


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tar", "parquet", "jsonl", "csv", "blocks"])
def test_fuzzed_files(kind):
    """Mutants of the nasty files: each in a process of its own kind, so that a crash is one, and is named."""
    for first in range(0, FUZZ // 5, SLICE):
        command = [sys.executable, str(FIXTURES / "fuzz_imports.py"), kind, str(first), str(SLICE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout[-500:] + done.stderr[-3000:]
        assert done.stdout.splitlines()[-1] == f"{SLICE} done"
