"""What exists is not made again: a list grows by a part, owners opt out, a folder gains pictures.

Counted for real: requests in the server's log, pictures that the captioner and the networks see.
"""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines import purge
from pipelines.captions.caption import CaptionerConfig
from pipelines.captions.images import CaptionImages
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.resize import ResizeConfig
from pipelines.dag import runner
from pipelines.dag.stage import StageResult
from pipelines.dag.tracking import TrackingConfig
from pipelines.encoding.device import ComputeConfig
from pipelines.encoding.latents import EncodeLatents as EncodeOp
from pipelines.sources.layouts import open_source
from pipelines.stages.caption import Caption, CaptionConfig
from pipelines.stages.download import Download, DownloadConfig
from pipelines.stages.encode_latents import EncodeLatents, EncodeLatentsConfig
from pipelines.stages.import_images import ImportImages, ImportImagesConfig
from pipelines.stages.select_urls import SelectUrls, SelectUrlsConfig
from pipelines.stages.shard import ShardConfig, ShardDataset
from reptok.configs import AutoencoderConfig, EncoderConfig, VisionLanguageConfig
from reptok.data.blocks import iterate_blocks, unpack_keys
from reptok.data.shards import read_samples

SIDE = 64
NUMBERS = 48
ZOO = str(Path(__file__).parents[3] / "zoo" / "captioner")
LOOKING = CaptionerConfig(
    mix=0.3, model=VisionLanguageConfig(path=ZOO, max_new_tokens=3), compute=ComputeConfig(batch_size=8)
)


def picture(number: int) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise.repeat(20, 0).repeat(20, 1))


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    picture(number).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many pictures the captioner and the frozen networks have looked at."""
    found: Counter[str] = Counter()
    for op, column, name in ((CaptionImages, "key", "captioned"), (EncodeOp, "image", "encoded")):
        look = op.__call__

        def counted(self: Any, batch: Any, look: Any = look, column: str = column, name: str = name) -> Any:
            found[name] += len(batch[column])
            return look(self, batch)

        monkeypatch.setattr(op, "__call__", counted)
    return found


@pytest.fixture
def latents(tiny_models: Path) -> EncodeLatents:
    return EncodeLatents(
        EncodeLatentsConfig(
            vae=AutoencoderConfig(path=str(tiny_models / "autoencoder")),
            encoder=EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=SIDE),
            compute=ComputeConfig(batch_size=8),
        )
    )


def run(root: Path, *stages: Any) -> dict[str, StageResult]:
    results = runner.run(stages, root=str(root), chain=False, tracking=TrackingConfig(enabled=False))
    assert not [result.error for result in results if result.error]
    return {result.name: result for result in results}


def samples(result: StageResult) -> dict[str, tuple[str, bytes]]:
    """Shard and picture of each sample by its key."""
    assert result.artifact
    found = {}
    for name in result.artifact.files("*.tar"):
        with result.artifact.open(name) as file:
            found.update({sample.key: (name, sample.jpg) for sample in read_samples(file)})
    return found


def encoded(result: StageResult) -> dict[str, dict[str, np.ndarray]]:
    assert result.artifact
    found = {}
    for name in result.artifact.files("*.tar"):
        with result.artifact.open(name) as file:
            for block in iterate_blocks(file):
                for row, key in enumerate(unpack_keys(block["keys"])):
                    found[key] = {column: block[column][row] for column in ("moments", "frozen_token")}
    return found


def assert_equal(one: dict[str, StageResult], other: dict[str, StageResult]) -> None:
    """Keys, shards, pixels and latents are the same."""
    assert samples(one["shard"]) == samples(other["shard"])
    first, second = encoded(one["encode_latents"]), encoded(other["encode_latents"])
    assert first.keys() == second.keys()
    for key, arrays in first.items():
        for name, values in arrays.items():
            np.testing.assert_allclose(values, second[key][name], rtol=1e-3, atol=1e-5)


class World:
    """Two lists of URLs of one web, and the workflow over them."""

    def __init__(self, root: Path, web: Any, address: str, latents: EncodeLatents) -> None:
        self.root, self.web, self.latents = root, web, latents
        for name, numbers in (("first", range(NUMBERS - 14)), ("second", range(NUMBERS - 20, NUMBERS))):
            urls = [web.url(f"/{number}") for number in numbers]
            pq.write_table(
                pa.table({"url": urls, "text": ["a red cup"] * len(urls)}), root / f"{name}.parquet"
            )
        self.select = SelectUrlsConfig(
            sources=(str(root / "first.parquet"),), rows_per_shard=10, val_fraction=0.2, dedup_image=False
        )
        fetch = FetchConfig(
            allow_hosts=(address,), host_rate=0, second_pass_seconds=0, retries=0, contact="a test"
        )
        self.download = DownloadConfig(fetch=fetch, resize=ResizeConfig(image_size=SIDE, min_size=32))

    def grown(self) -> SelectUrlsConfig:
        return replace(self.select, parts={"second": (str(self.root / "second.parquet"),)})

    def run(self, store: str, select: SelectUrlsConfig) -> dict[str, StageResult]:
        self.web.asked.clear()
        return run(
            self.root / store, SelectUrls(select), Download(self.download),
            Caption(CaptionConfig(captioner=LOOKING)), ShardDataset(ShardConfig(image_size=SIDE)),
            self.latents,
        )  # fmt: skip

    def fetched(self) -> int:
        return sum(count for path, count in self.web.asked.items() if path != "/robots.txt")


@pytest.fixture
def world(
    tmp_path: Path, in_process: None, hostile_web: ModuleType, latents: EncodeLatents
) -> Iterator[World]:
    answer = hostile_web.answer
    pages = {f"/{number}": answer(200, jpeg(number)) for number in range(NUMBERS)}
    pages |= {"/3": answer(404), "/5": answer(503)}
    with hostile_web.HostileWeb(pages) as web:
        yield World(tmp_path, web, hostile_web.ADDRESS, latents)


def test_a_later_list_fetches_captions_and_encodes_only_what_is_new(world: World, seen: Counter[str]) -> None:
    first = world.run("runs", world.select)
    assert world.fetched() == NUMBERS - 14 and seen["encoded"] == NUMBERS - 16 and seen["captioned"]
    seen.clear()
    grown = world.run("runs", world.grown())
    assert world.fetched() == 14 and seen["encoded"] == 14 and seen["captioned"] <= 14
    assert {path for path in world.web.asked} <= {
        "/robots.txt",
        *(f"/{n}" for n in range(NUMBERS - 14, NUMBERS)),
    }
    for name in ("download", "caption", "shard", "encode_latents"):
        before, after = first[name].artifact, grown[name].artifact
        assert before and after
        for file in before.files("*-0*"):  # shared on the disk, not written again
            assert (after.local_path(file)).samefile(before.local_path(file)), file
        assert len(after.files()) > len(before.files())
    seen.clear()
    assert_equal(grown, world.run("scratch", world.grown()))
    assert seen["encoded"] == NUMBERS - 2


def test_opting_out_fetches_captions_and_encodes_nothing_and_what_is_theirs_is_gone(
    world: World, seen: Counter[str]
) -> None:
    first = world.run("runs", world.select)
    seen.clear()
    (world.root / "out.txt").write_text(world.web.url("/7") + "\n")
    select = replace(world.select, opt_out=str(world.root / "out.txt"))
    without = world.run("runs", select)
    assert world.fetched() == 0 and seen.total() == 0
    gone = samples(first["shard"]).keys() - samples(without["shard"]).keys()
    assert len(gone) == 1 and samples(without["shard"]).keys() < samples(first["shard"]).keys()
    shared = 0
    for name in ("download", "caption", "shard", "encode_latents"):
        before, after = first[name].artifact, without[name].artifact
        assert before and after
        files = before.files("*-0*")
        linked = [file for file in files if after.local_path(file).samefile(before.local_path(file))]
        each = 2 if name == "shard" else 1  # a tar and its table
        assert len(linked) == len(files) - each
        shared += len(linked)
    assert shared
    assert_equal(without, world.run("scratch", select))
    assert (
        purge.main([f"root={world.root / 'runs'}", f"opt_out={world.root / 'out.txt'}", "delete=true"]) == 0
    )
    for result, other in zip(first.values(), without.values(), strict=True):
        assert result.artifact and other.artifact
        assert not result.artifact.folder.exists("manifest.json") and other.artifact.folder.exists(
            "manifest.json"
        )
    raw = b"".join(path.read_bytes() for path in (world.root / "runs").glob("dataset/*/*.tar"))
    assert not any(key.encode() in raw for key in gone) and raw


def test_where_a_redirect_led_to_somebody_who_opts_out_the_shard_is_copied_without_it(world: World) -> None:
    moved = world.web.url("/elsewhere/9")
    head = f"HTTP/1.1 302 Found\r\nLocation: {moved}\r\nContent-Length: 0\r\n\r\n"
    world.web.pages |= {"/9": head.encode(), "/elsewhere/9": world.web.pages["/9"]}
    first = world.run("runs", world.select)
    (world.root / "out.txt").write_text(moved + "\n")
    without = world.run("runs", replace(world.select, opt_out=str(world.root / "out.txt")))
    assert world.fetched() <= 1  # it is asked where it leads now
    assert len(samples(first["shard"])) == len(samples(without["shard"])) + 1


class Hub:
    """What the hub has of somebody/vae: its branch moves, its commits stay."""

    def __init__(self, root: Path, first: Path) -> None:
        self.head, self._root = "c1", root
        shutil.copytree(first, self.snapshot("c1"))
        shutil.copytree(first, self.snapshot("c2"))
        weights = load_file(first / "diffusion_pytorch_model.safetensors")
        changed = {name: tensor * 1.1 for name, tensor in weights.items()}
        save_file(changed, self.snapshot("c2") / "diffusion_pytorch_model.safetensors")

    def snapshot(self, commit: str) -> Path:
        return self._root / "snapshots" / commit

    def __call__(self, name: str, revision: str | None = None, **_: Any) -> str:
        assert name == "somebody/vae"
        return str(self.snapshot(revision or self.head))


@pytest.fixture
def hub(tmp_path: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path / "hub", tiny_models / "autoencoder")
    monkeypatch.setattr("huggingface_hub.snapshot_download", found)
    return found


def from_hub(latents: EncodeLatents, path: str = "somebody/vae") -> EncodeLatents:
    return EncodeLatents(replace(latents.config, vae=AutoencoderConfig(path=path)))


def imported(folder: Path, pictures: range) -> ImportImages:
    folder.mkdir(exist_ok=True)
    for number in pictures:
        picture(number).save(folder / f"{number}.png")
    listing = open_source(str(folder)).digest()
    return ImportImages(ImportImagesConfig(
        folder=str(folder), listing=listing, image_size=SIDE, samples_per_shard=15, val_fraction=0.2
    ))  # fmt: skip


def test_of_a_model_that_moved_on_the_hub_nothing_is_taken_over(
    tmp_path: Path, in_process: None, latents: EncodeLatents, seen: Counter[str], hub: Hub
) -> None:
    """Neither whole shards nor rows: half the latents would be another network's."""
    root, folder, stage = tmp_path / "runs", tmp_path / "pictures", from_hub(latents)
    first = run(root, imported(folder, range(20)), stage)["encode_latents"]
    seen.clear()
    run(root, imported(folder, range(20, 22)), stage)
    assert seen["encoded"] == 2, "it did not move"
    hub.head = "c2"
    seen.clear()
    grown = run(root, imported(folder, range(22, 24)), stage)["encode_latents"]
    assert seen["encoded"] == 24
    own = EncodeLatents(replace(latents.config, vae=AutoencoderConfig(path=str(hub.snapshot("c2")))))
    alone = run(tmp_path / "alone", imported(folder, range(0)), own)["encode_latents"]
    for key, arrays in encoded(alone).items():
        np.testing.assert_allclose(encoded(grown)[key]["moments"], arrays["moments"], rtol=2e-3, atol=1e-3)
    told = [result.artifact.manifest["models"] for result in (first, grown) if result.artifact]
    assert told == [{"vae.path": "c1"}, {"vae.path": "c2"}]
    hub.head = "c1"
    seen.clear()
    run(root, imported(folder, range(24, 25)), stage)
    assert seen["encoded"] == 3, "of the artifact of that commit, and of no newer one"


def test_what_was_begun_with_a_commit_is_gone_on_with_by_it(
    tmp_path: Path, in_process: None, latents: EncodeLatents, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, source, stage = tmp_path / "runs", imported(tmp_path / "pictures", range(20)), from_hub(latents)
    look, calls = EncodeOp.__call__, Counter[str]()

    def failing(self: Any, batch: Any) -> Any:
        calls["made"] += 1
        if calls["made"] > 1:
            raise OSError("the power went")
        return look(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(EncodeOp, "__call__", failing)
        off = TrackingConfig(enabled=False)
        results = runner.run([source, stage], root=str(root), chain=False, tracking=off)
        assert results[1].error and calls["made"] > 1
    hub.head = "c2"
    resumed = run(root, source, stage)["encode_latents"]
    assert resumed.action == "resume" and resumed.artifact
    assert resumed.artifact.manifest["models"] == {"vae.path": "c1"}
    named = run(tmp_path / "other", source, from_hub(latents, "somebody/vae@c1"))["encode_latents"]
    assert encoded(resumed).keys() == encoded(named).keys()
    for key, arrays in encoded(named).items():
        np.testing.assert_allclose(encoded(resumed)[key]["moments"], arrays["moments"], rtol=2e-3, atol=1e-3)


def test_a_folder_that_gains_pictures_encodes_the_new_ones_and_those_that_changed(
    tmp_path: Path, in_process: None, latents: EncodeLatents, seen: Counter[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()

    def stages() -> tuple[Any, Any]:
        listing = open_source(str(folder)).digest()
        config = ImportImagesConfig(
            folder=str(folder), listing=listing, image_size=SIDE, samples_per_shard=15, val_fraction=0.2
        )
        return ImportImages(config), latents

    for number in range(40):
        picture(number).save(folder / f"{number}.png")
    run(tmp_path / "runs", *stages())
    seen.clear()
    for number in range(40, 44):
        picture(number).save(folder / f"{number}.png")
    picture(99).save(folder / "7.png")
    grown = run(tmp_path / "runs", *stages())
    assert seen["encoded"] == 5
    scratch = run(tmp_path / "scratch", *stages())
    assert samples(grown["import_images"]) == samples(scratch["import_images"])
    first, second = encoded(grown["encode_latents"]), encoded(scratch["encode_latents"])
    assert first.keys() == second.keys() and len(first) == 44
    for key, arrays in first.items():
        np.testing.assert_allclose(arrays["moments"], second[key]["moments"], rtol=2e-3, atol=1e-3)
