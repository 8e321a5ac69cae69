"""The data stages as a chain, in this process: they plan before their input is there what they plan after."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.photographs.coyo import CoyoConfig
from examples.photographs.photograph_web import PhotographWeb
from pipelines.captions.caption import CaptionerConfig
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.resize import ResizeConfig
from pipelines.dag import chain as chain_module
from pipelines.dag import cluster, ray_shards, runner
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.shard_actor import ShardActor
from pipelines.dag.stage import Stage, StageResult
from pipelines.dag.tracking import TrackingConfig
from pipelines.encoding.device import ComputeConfig
from pipelines.filters.duplicates import Duplicates
from pipelines.sources.captions import CaptionsConfig
from pipelines.stages.caption import Caption, CaptionConfig
from pipelines.stages.download import Download, DownloadConfig
from pipelines.stages.encode_latents import EncodeLatents, EncodeLatentsConfig
from pipelines.stages.filter_images import ChosenFilters, FilterImages
from pipelines.stages.import_images import ImportImages, ImportImagesConfig, ImportToCaption
from pipelines.stages.select_urls import SelectUrls, SelectUrlsConfig
from pipelines.stages.shard import ShardConfig, ShardDataset
from reptok.configs import AutoencoderConfig, EncoderConfig

Run = Callable[..., dict[str, StageResult]]


@pytest.fixture
def run(in_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`run(stages, name, chain)`: results by stage; the pipeline is walked through in this process."""

    def through(steps: Any, lanes: Any) -> Iterator[Any]:
        actors = [ShardActor(step.job, step.out) for step in steps]
        for lane in reversed(lanes):
            for number, part in enumerate(lane):
                for shard in part:
                    row = actors[number]({"shard": json.dumps(asdict(shard))})
                    assert not row["failure"], row
                    yield number, (row["index"], json.loads(row["record"]), "")

    monkeypatch.setattr(ray_shards, "through", through)
    monkeypatch.setattr(ray_shards, "Notes", lambda topic: {})
    monkeypatch.setattr(chain_module, "alive", lambda need: {"here": (16.0, 0.0)})
    monkeypatch.setattr(cluster, "ensure", lambda: None)

    def run(stages: list[Stage], name: str, chain: bool) -> dict[str, StageResult]:
        results = runner.run(
            stages, root=str(tmp_path / name), chain=chain, cluster=ClusterConfig(num_cpus=16),
            tracking=TrackingConfig(enabled=False),
        )  # fmt: skip
        return {result.name: result for result in results}

    return run


@pytest.fixture
def latents(tiny_models: Path) -> EncodeLatents:
    return EncodeLatents(
        EncodeLatentsConfig(
            vae=AutoencoderConfig(path=str(tiny_models / "autoencoder")),
            encoder=EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32),
            compute=ComputeConfig(batch_size=4),
        )
    )


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    noise = np.random.default_rng(0)
    for number in range(20):
        folder = tmp_path / "pictures" / ("ant" if number % 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        blocks = noise.integers(0, 256, (4, 5, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(blocks).save(folder / f"{number}.png")
    return str(tmp_path / "pictures")


def same(run: Run, stages: Callable[[], list[Stage]], told: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """The results of a chain, shown to be those of stages that wait, stats included."""
    chain = run(stages(), "chain", True)
    assert told in capsys.readouterr().out
    waiting = run(stages(), "waiting", False)
    assert {name: result.error for name, result in chain.items() if result.error} == {}
    for name, result in chain.items():
        artifacts = [found.artifact for found in (result, waiting[name])]
        assert (
            artifacts[0] and artifacts[1] and artifacts[0].manifest["files"] == artifacts[1].manifest["files"]
        )
        assert artifacts[0].manifest["input_digests"] == artifacts[1].manifest["input_digests"]
        assert result.stats == waiting[name].stats, name
    return chain


def test_from_urls_to_latents(run: Run, latents: EncodeLatents, capsys: pytest.CaptureFixture[str]) -> None:
    fetch = FetchConfig(attempt_seconds=4.0, total_seconds=6.0, backoff_seconds=0.05, host_rate=0)
    urls = SelectUrlsConfig(sources=("artifact:web/coyo.parquet",), rows_per_shard=20)
    download = DownloadConfig(serve="photographs", fetch=fetch, resize=ResizeConfig(image_size=32))

    def stages() -> list[Stage]:
        return [
            PhotographWeb(CoyoConfig(images=54, fault_fraction=0.2, slow_urls=0)), SelectUrls(urls),
            Download(download), Caption(CaptionConfig(captioner=CaptionerConfig())),
            ShardDataset(ShardConfig(image_size=32)), latents,
        ]  # fmt: skip

    found = same(run, stages, "shard by shard: download -> caption -> shard -> encode_latents\n", capsys)
    assert found["download"].stats["rows_in"] > found["encode_latents"].stats["rows_out"] >= 50


def test_from_pictures_that_a_captioner_looks_at(
    run: Run, latents: EncodeLatents, pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their classes are known before the first shard is."""
    config = ImportImagesConfig(
        folder=pictures, image_size=32, samples_per_shard=7, captions=CaptionsConfig()
    )

    def stages() -> list[Stage]:
        return [
            ImportToCaption(config), Caption(CaptionConfig(captioner=CaptionerConfig())),
            ShardDataset(ShardConfig(image_size=32)), latents,
        ]  # fmt: skip

    found = same(run, stages, "shard by shard: import_images -> caption -> shard -> encode_latents\n", capsys)
    assert found["shard"].artifact.read_json("index.json")["class_names"] == ["ant", "bee"]


def test_verdicts_are_handed_on_and_twins_in_other_shards_are_named_when_all_are_there(
    run: Run, latents: EncodeLatents, pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of three twins some lie in the shard of what they copy, and some do not."""
    for source, twin in (("0", "15b"), ("0", "18b"), ("2", "2b")):
        shutil.copy(f"{pictures}/bee/{source}.png", f"{pictures}/bee/{twin}.png")
    config = ImportImagesConfig(folder=pictures, image_size=32, samples_per_shard=7)

    def stages() -> list[Stage]:
        return [
            ImportToCaption(config), FilterImages(ChosenFilters(filters={"duplicates": Duplicates()})),
            Caption(CaptionConfig(captioner=CaptionerConfig()), judged=True),
            ShardDataset(ShardConfig(image_size=32), judged=True), latents,
        ]  # fmt: skip

    told = "shard by shard: import_images -> filter_images -> caption -> shard -> encode_latents\n"
    found = same(run, stages, told, capsys)
    dropped, excluded = (found["filter_images"].stats[name] for name in ("dropped_duplicate", "excluded"))
    assert dropped + excluded == 3 and excluded > 0
    named = found["shard"].artifact.read_json("excluded.json")
    assert sum(map(len, named.values())) == found["shard"].stats["excluded"] == excluded
    assert found["encode_latents"].stats["rows_out"] == 20 + excluded  # a training passes over them


@pytest.mark.parametrize(("fraction", "splits"), [(0.3, {"train": 3, "val": 1}), (0.0, {"train": 3})])
def test_a_split_without_samples_has_no_latents(
    run: Run, latents: EncodeLatents, pictures: str, capsys: pytest.CaptureFixture[str], fraction: float,
    splits: dict[str, int],
) -> None:  # fmt: skip
    """Whether it has any is known when all shards are done."""
    config = ImportImagesConfig(folder=pictures, image_size=32, samples_per_shard=7, val_fraction=fraction)
    found = same(
        run,
        lambda: [ImportImages(config), latents],
        "shard by shard: import_images -> encode_latents\n",
        capsys,
    )
    tars = found["encode_latents"].artifact.files("*.tar")
    assert Counter(name.partition("-")[0] for name in tars) == splits


def test_the_wanted_number_is_that_of_the_first_tables_that_reach_it(
    run: Run, latents: EncodeLatents, pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables of 2 that validate, 7, 7 and 4: the first two hold nine, whoever does which first."""
    config = ImportImagesConfig(folder=pictures, image_size=32, samples_per_shard=7)
    captioner = CaptionerConfig(limit_samples=8)

    def stages() -> list[Stage]:
        return [
            ImportToCaption(config), Caption(CaptionConfig(captioner=captioner)),
            ShardDataset(ShardConfig(image_size=32)), latents,
        ]  # fmt: skip

    found = same(run, stages, "shard by shard: import_images -> caption -> shard -> encode_latents\n", capsys)
    assert found["import_images"].stats["rows_out"] == 20
    assert found["caption"].stats["shards_beyond"] == 2
    assert found["encode_latents"].stats["rows_out"] == found["shard"].stats["rows_out"] == 9
    index = found["shard"].artifact.read_json("index.json")
    assert [len(index["splits"][split]) for split in ("train", "val")] == [1, 1]


def test_a_download_ends_with_the_table_that_gives_the_wanted_number(
    run: Run, latents: EncodeLatents, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch = FetchConfig(attempt_seconds=4.0, total_seconds=6.0, backoff_seconds=0.05, host_rate=0)
    urls = SelectUrlsConfig(sources=("artifact:web/coyo.parquet",), rows_per_shard=8)
    download = DownloadConfig(
        serve="photographs", fetch=fetch, resize=ResizeConfig(image_size=32), limit_samples=20
    )

    def stages() -> list[Stage]:
        return [
            PhotographWeb(CoyoConfig(images=54, fault_fraction=0.2, slow_urls=0)), SelectUrls(urls),
            Download(download), Caption(CaptionConfig(captioner=CaptionerConfig())),
            ShardDataset(ShardConfig(image_size=32)), latents,
        ]  # fmt: skip

    found = same(run, stages, "shard by shard: download -> caption -> shard -> encode_latents\n", capsys)
    stats = found["download"].stats
    assert stats["shards_beyond"] >= 2, "the list has more than fifty"
    assert 20 <= stats["images_ok"] < 36, "less than a table of about eight more than was wanted"
    assert found["encode_latents"].stats["rows_out"] == stats["images_ok"]
