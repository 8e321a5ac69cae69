"""`reptok data`: a sound folder is sound, and every way to damage one is named by file and sample."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file
from typer.testing import CliRunner

from reptok import cli
from reptok.autoencoder import LatentSpec
from reptok.data.blocks import BlockWriter, iterate_blocks
from reptok.data.columns import SAMPLES, read_table, write_table
from reptok.data.images import encode_jpeg
from reptok.data.index import DatasetIndex, ShardEntry, parse_index, shard_name, table_row
from reptok.data.reshard import reshard
from reptok.data.shards import Sample, read_samples, write_samples
from reptok.data.stats import contact_sheet, describe
from reptok.data.tar import TarWriter
from reptok.data.verify import digest_of, verify

SIZE, ROWS = 16, {"train": [5, 4], "val": [3]}
SPEC = LatentSpec(vae="v", vae_digest="d", scale=0.2, shift=0.0, channels=4, downsample=8, image_size=SIZE)


def sample(number, **info):
    pixels = np.full((SIZE, SIZE, 3), 20 * number % 256, np.uint8)
    info = {"key": f"{number:012d}", "width": SIZE, "height": SIZE, "label": number % 2,
            "subject": ["ant", "bee"][number % 2]} | info  # fmt: skip
    return Sample(f"{number:012d}", encode_jpeg(pixels), f"number {number} <b>", info)


def write_shard(folder, name, samples):
    with (folder / f"{name}.tar").open("wb") as file:
        write_samples(file, samples)
    write_table(folder / f"{name}.parquet", [table_row(s) for s in samples], SAMPLES)


def write_index(folder, names=None):
    splits = {}
    for path in sorted(folder.glob("*.tar")):
        rows = read_table(path.with_suffix(".parquet"), SAMPLES).num_rows
        entry = ShardEntry(path.stem, rows, path.stat().st_size, digest_of(path))
        splits.setdefault(path.stem.split("-")[0], []).append(entry)
    index = DatasetIndex(SIZE, ("ant", "bee"), {split: tuple(found) for split, found in splits.items()})
    (folder / "index.json").write_text(json.dumps(index.as_json()))


@pytest.fixture
def dataset(tmp_path):
    folder, number = tmp_path / "dataset", 0
    folder.mkdir()
    for split, shards in ROWS.items():
        for shard, rows in enumerate(shards):
            write_shard(folder, shard_name(split, shard), [sample(number + row) for row in range(rows)])
            number += rows
    write_index(folder)
    return folder


@pytest.fixture
def latents(tmp_path, dataset):
    return write_blocks(tmp_path / "latents", dataset, lambda n, random: {
        "moments": random.normal(size=(n, 2, 8, 2, 2)).astype(np.float16),
        "frozen_token": random.normal(size=(n, 2, 1, 6)).astype(np.float32),
    })  # fmt: skip


@pytest.fixture
def tokens(tmp_path, dataset):
    made = write_blocks(
        tmp_path / "tokens",
        dataset,
        lambda n, random: {"token": random.normal(2, 3, (n, 2, 1, 6)).astype("f4")},
    )
    train = np.concatenate([load_blocks(made / f"train-0000{i}.tar")["token"] for i in (0, 1)]).reshape(-1, 6)
    save_file({"mean": train.mean(0), "std": train.std(0)}, made / "token_stats.safetensors")
    return made


def write_blocks(folder, dataset, arrays):
    folder.mkdir()
    for number, path in enumerate(sorted(dataset.glob("*.parquet"))):
        keys = read_table(path, SAMPLES).column("key").to_pylist()
        with (folder / f"{path.stem}.tar").open("wb") as file:
            blocks = BlockWriter(file)
            blocks.add(keys, arrays(len(keys), np.random.default_rng(number)))
            blocks.close()
    (folder / "latent_spec.json").write_text(json.dumps(vars(SPEC)))
    return folder


def load_blocks(path):
    return next(iterate_blocks(path))


def retar(path, change):
    """Write a tar again after `change(members)`, which may return pairs; the index is brought up to date."""
    members = {}
    for s in read_samples(path):
        members |= {
            f"{s.key}.jpg": s.jpg,
            f"{s.key}.txt": s.caption.encode(),
            f"{s.key}.json": json.dumps(dict(s.info)).encode(),
        }
    buffer = io.BytesIO()
    tar = TarWriter(buffer)
    for name, data in change(members) or members.items():
        tar.add(name, data)
    tar.close()
    path.write_bytes(buffer.getvalue())
    write_index(path.parent)


def faults(folder, **options):
    return verify(Path(folder), **options).faults


def test_sound_folders_are_sound(dataset, latents, tokens):
    verdict = verify(dataset)
    assert (verdict.kind, verdict.shards, verdict.rows, verdict.faults) == ("dataset", 3, 12, [])
    for folder, kind in ((latents, "latents"), (tokens, "tokens")):
        verdict = verify(folder, dataset)
        assert (verdict.kind, verdict.shards, verdict.rows, verdict.faults) == (kind, 3, 12, [])
    assert verify(dataset, workers=2).faults == []


KEY = "000000000006"  # the second sample of train-00001

WIDE = encode_jpeg(np.zeros((8, 16, 3), np.uint8))
JPG, TXT, JSON = (f"{KEY}.{extension}" for extension in ("jpg", "txt", "json"))
TARS = {
    "jpg that is no image": (lambda m: m.update({JPG: b"no"}), f"00001.tar, sample {KEY}: cannot decode"),
    "image cut off": (lambda m: m.update({JPG: m[JPG][:300]}), f"sample {KEY}: cannot decode image"),
    "image of another size": (lambda m: m.update({JPG: WIDE}), f"sample {KEY}: the image is 16 x 8"),
    "caption that is no text": (lambda m: m.update({TXT: b"\xff"}), f"'{KEY}' has an undecodable caption"),
    "JSON that is none": (lambda m: m.update({JSON: b"{"}), f"'{KEY}' has an undecodable caption or JSON"),
    "JSON that is a list": (lambda m: m.update({JSON: b"[]"}), "a JSON object is expected, not list"),
    "JSON without end": (lambda m: m.update({JSON: b"[" * 100_000}), "nested too deeply"),
    "JSON of another sample": (
        lambda m: m.update({JSON: m["000000000007.json"]}), "its JSON is of key '000000000007'",
    ),
    "missing caption": (lambda m: m.pop(TXT) and None, f"sample '{KEY}' has no txt member"),
    "unknown extension": (
        lambda m: [*list(m.items())[:6], (f"{KEY}.pickle", b""), *list(m.items())[6:]],
        f"unexpected member '{KEY}.pickle'",
    ),
    "keys out of order": (lambda m: [*list(m.items())[3:], *list(m.items())[:3]], "after '000000000008'"),
    "doubled key": (lambda m: [*m.items(), *list(m.items())[-3:]], "unexpected member '000000000008.jpg'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), TARS.values(), ids=TARS)
def test_a_fault_of_a_sample_is_named(dataset, change, message):
    retar(dataset / "train-00001.tar", change)
    assert any(message in line for line in faults(dataset)), faults(dataset)


def test_every_fault_is_named_at_once(dataset):
    retar(
        dataset / "train-00000.tar", lambda m: m.update({"000000000001.jpg": b"", "000000000003.json": b"]"})
    )
    retar(dataset / "val-00000.tar", lambda m: m.update({"000000000010.txt": b"\xff"}))
    (dataset / "train-00001.parquet").write_bytes(b"PAR1")
    found = "\n".join(faults(dataset))
    for name in ("sample 000000000001", "'000000000003'", "'000000000010'", "train-00001.parquet"):
        assert name in found


def test_damaged_bytes_and_missing_files_are_named(dataset):
    tar = dataset / "train-00000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1  # in the pixels of the first image
    tar.write_bytes(data)
    assert any(
        "train-00000.tar: its SHA-256 is not the one of index.json" in line for line in faults(dataset)
    )
    tar.write_bytes(data[:4000])
    assert any("train-00000.tar is truncated" in line for line in faults(dataset))
    tar.unlink()
    (dataset / "val-00000.parquet").unlink()
    found = faults(dataset)
    assert "train-00000.tar: missing, although index.json lists it" in found
    assert "val-00000.parquet: missing" in found


def test_a_table_that_differs_from_its_tar_is_named(dataset):
    rows = read_table(dataset / "train-00000.parquet", SAMPLES).to_pylist()
    rows[2]["caption"] = "something else"
    write_table(dataset / "train-00000.parquet", rows, SAMPLES)
    assert faults(dataset) == [
        "train-00000.parquet, row 2: caption differ from the tar's sample 000000000002"
    ]


def test_a_key_in_two_shards_is_named(dataset):
    write_shard(dataset, "val-00000", [sample(2), sample(10)])
    write_index(dataset)
    assert faults(dataset) == ["key '000000000002' comes 2 times, in train-00000, val-00000"]


def test_classes_are_checked(dataset):
    write_shard(dataset, "val-00000", [sample(9, label=2), sample(10, subject="cat"), sample(11, label=-1)])
    write_index(dataset)
    found = faults(dataset)
    assert "val-00000.tar, sample 000000000009: its label 2 is none of the 2 classes" in found
    assert "val-00000.tar, sample 000000000010: its subject is 'cat', its label 0 stands for 'ant'" in found
    assert "val-00000.tar, sample 000000000011: its label -1 is none of the 2 classes" in found


def test_a_shard_that_the_index_does_not_list_is_named(dataset):
    write_shard(dataset, "train-00002", [sample(20)])
    assert faults(dataset) == ["train-00002.tar: not listed in index.json"]


INDEXES = {
    "version": (lambda v: v.update(schema_version=9), "schema version 9, expected 1"),
    "size": (lambda v: v.update(image_size=0), "image_size is 0"),
    "classes": (lambda v: v.update(class_names=[1]), "class_names"),
    "split": (lambda v: v["splits"].update(test=[]), "splits must be of train, val"),
    "path": (lambda v: v["splits"]["train"][0].update(shard="../train-00000"), "no name of a shard"),
    "order": (lambda v: v["splits"]["train"].reverse(), "does not come after"),
    "rows": (lambda v: v["splits"]["train"][0].update(rows=-1), "needs rows, bytes and sha256"),
    "count": (lambda v: v["splits"]["train"][0].update(rows=7), "5 sound samples where index.json says 7"),
}


@pytest.mark.parametrize(("change", "message"), INDEXES.values(), ids=INDEXES)
def test_a_fault_of_the_index_is_named(dataset, change, message):
    value = json.loads((dataset / "index.json").read_text())
    change(value)
    (dataset / "index.json").write_text(json.dumps(value))
    assert any(message in line for line in faults(dataset)), faults(dataset)


def test_the_manifest_is_compared_with_every_file(dataset):
    names = sorted(path.name for path in dataset.iterdir())
    files = {n: {"size": (dataset / n).stat().st_size, "sha256": digest_of(dataset / n)} for n in names}
    files |= {"gone": {"size": 1, "sha256": ""}, "../index.json": {"size": 1, "sha256": ""}}
    size = files["val-00000.tar"]["size"]
    files["val-00000.tar"]["size"] += 1
    files["val-00000.parquet"]["sha256"] = "0"
    del files["train-00000.tar"]
    (dataset / "manifest.json").write_text(json.dumps({"files": files}))
    assert faults(dataset) == [
        "manifest.json: '../index.json' lies outside of the folder",
        "gone: missing, although manifest.json lists it",
        "val-00000.parquet: its SHA-256 is not the one of manifest.json",
        f"val-00000.tar: {size} bytes where manifest.json says {size + 1}",
        "train-00000.tar: not listed in manifest.json",
    ]  # fmt: skip


def rewrite_block(path, **arrays):
    block = load_blocks(path) | arrays
    with path.open("wb") as file:
        tar = TarWriter(file)
        tar.add("00000.safetensors", save({name: np.ascontiguousarray(a) for name, a in block.items()}))
        tar.close()


def test_faults_of_latents_are_named(dataset, latents):
    shard = latents / "train-00001.tar"
    good = load_blocks(shard)
    moments = good["moments"].copy()
    moments[2, 1, 0, 0, 0] = np.inf
    rewrite_block(shard, moments=moments)
    assert faults(latents, dataset=dataset) == [
        "train-00001.tar:00000.safetensors: moments is not finite in row 2 (1 rows in all)"
    ]
    rewrite_block(shard, moments=good["moments"].astype(np.float32))
    assert "moments is float32 (4, 2, 8, 2, 2)" in faults(latents, dataset=dataset)[0]
    rewrite_block(shard, moments=good["moments"][..., :1])
    found = "\n".join(faults(latents, dataset=dataset))
    assert "moments has several shapes: (8, 2, 2) in train-00000.tar, (8, 2, 1) in train-00001.tar" in found
    rewrite_block(shard, moments=good["moments"], keys=good["keys"][::-1])
    assert (
        "train-00001.tar: 4 rows for the dataset's 4, other keys from row 0 on"
        in faults(latents, dataset=dataset)[0]
    )
    shard.write_bytes(shard.read_bytes()[:-1100])
    assert any("train-00001.tar is truncated" in line for line in faults(latents, dataset=dataset))
    shard.unlink()
    assert "train-00001.tar: missing, although the dataset has that shard" in faults(latents, dataset=dataset)


def test_a_spec_of_other_images_is_named(dataset, latents):
    path = latents / "latent_spec.json"
    path.write_text(json.dumps(vars(SPEC) | {"image_size": 32}))
    found = faults(latents, dataset=dataset)
    assert "latent_spec.json: images of 32 px, the dataset's have 16" in found
    assert "moments are (8, 2, 2), latent_spec.json says (8, 4, 4)" in found
    path.write_text(json.dumps(vars(SPEC) | {"flip": 1}))
    assert faults(latents, dataset=dataset) == ["latent_spec.json: flip is 1, bool is expected"]
    path.write_text(json.dumps(vars(SPEC) | {"scale": "0.2"}))
    assert faults(latents, dataset=dataset) == ["latent_spec.json: scale is '0.2', float is expected"]


def test_statistics_are_those_of_the_train_tokens(dataset, tokens):
    stats = load_file(tokens / "token_stats.safetensors")
    save_file({**stats, "std": stats["std"] * 1.01}, tokens / "token_stats.safetensors")
    (fault,) = faults(tokens, dataset=dataset)
    assert fault.startswith("token_stats.safetensors: std is off by 0.03")


def test_without_a_dataset_the_verdict_says_what_was_not_compared(tokens):
    verdict = verify(tokens)
    assert verdict.faults == [] and verdict.rows == 12
    assert verdict.notes == ["not compared with its dataset: name that with --dataset"]


def test_resharding_keeps_the_samples_and_depends_on_nothing_else(dataset, tmp_path):
    def contents(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def samples(folder, split):
        return [s for path in sorted(folder.glob(f"{split}-*.tar")) for s in read_samples(path)]

    small = reshard(dataset, tmp_path / "small", rows=2)
    assert [entry.rows for entry in small.splits["train"]] == [2, 2, 2, 2, 1]
    for split in ROWS:
        assert samples(tmp_path / "small", split) == samples(dataset, split)
    assert faults(tmp_path / "small") == []
    reshard(tmp_path / "small", tmp_path / "again", shards=2)
    reshard(dataset, tmp_path / "direct", rows=5)
    assert contents(tmp_path / "again") == contents(tmp_path / "direct")
    with pytest.raises(FileExistsError, match="holds a dataset already"):
        reshard(dataset, tmp_path / "small", rows=3)
    with pytest.raises(ValueError, match="either the rows"):
        reshard(dataset, tmp_path / "x", rows=3, shards=3)


def test_resharding_refuses_a_damaged_shard_and_goes_on_when_it_is_whole(dataset, tmp_path):
    tar = dataset / "train-00001.tar"
    good = tar.read_bytes()
    tar.write_bytes(good[:-512] + b"x" * 512)
    with pytest.raises(ValueError, match=r"train-00001\.tar is damaged"):
        reshard(dataset, tmp_path / "new", rows=3)
    assert not (tmp_path / "new" / "index.json").exists()
    tar.write_bytes(good)
    reshard(dataset, tmp_path / "new", rows=3)
    assert faults(tmp_path / "new") == []
    assert not list((tmp_path / "new").glob("*.part"))


def test_stats_count_what_there_is(dataset):
    stats = {"rows_in": 20, "rows_out": 12, "dropped_http_404": 5, "dropped_decode": 3, "dropped_none": 0}
    (dataset / "manifest.json").write_text(json.dumps({"stats": stats}))
    lines = list(describe(dataset))
    assert lines[1].startswith("train: 9 samples in 2 shards (4 to 5 each, median 4)")
    assert "  captions: 9 (100.0 %), 9 distinct" in lines
    assert "  words at 0 %, 5 %, 25 %, 50 %, 75 %, 95 %, 100 %: 3, 3, 3, 3, 3, 3, 3" in lines
    assert "  samples per class: ant 5, bee 4" in lines
    assert lines[-3:] == [
        "success: 12 of 20 rows (60.0 %)", "  dropped, http_404: 5 (25.0 %)", "  dropped, decode: 3 (15.0 %)",
    ]  # fmt: skip


def test_the_contact_sheet_shows_samples_of_the_whole_dataset(dataset):
    sheet = np.asarray(contact_sheet(dataset, 3))
    greys = [int(sheet[64, 64 + 128 * place].mean()) for place in range(3)]
    assert sheet.shape == (142, 384, 3)
    assert np.abs(np.array(greys) - [0, 20 * 6 % 256, 20 * 11 % 256]).max() <= 3  # first, middle, last sample


def test_the_command_line_tells_and_exits(dataset, tmp_path, monkeypatch):
    def call(*arguments):
        return CliRunner().invoke(cli.app, ["data", *map(str, arguments)])

    assert call("verify", dataset).exit_code == 0
    assert "dataset of 12 samples in 3 shards: sound" in call("verify", dataset).output
    result = call("stats", dataset, "--sheet", tmp_path / "sheet.png", "--images", 4)
    assert result.exit_code == 0 and (tmp_path / "sheet.png").stat().st_size > 500
    assert "train: 9 samples in 9 shards" in call("reshard", dataset, tmp_path / "new", "--rows", 1).output
    (tmp_path / "new" / "train-00004.tar").unlink()
    result = call("verify", tmp_path / "new")
    assert result.exit_code == 1 and "train-00004.tar: missing" in result.output


def test_a_folder_without_an_index_is_unfinished(dataset, tmp_path):
    (dataset / "index.json").unlink()
    with pytest.raises(FileNotFoundError, match="it is unfinished; rerun the stage"):
        verify(dataset)
    with pytest.raises(FileNotFoundError, match="no dataset, latents or tokens folder"):
        verify(tmp_path)
    assert parse_index(json.dumps({"schema_version": 1, "image_size": 4, "splits": {}}).encode()).splits == {}
