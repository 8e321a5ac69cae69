"""The download of the demo's web: real server, real fetch, every URL accounted for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from examples.photographs.coyo import CoyoConfig
from examples.photographs.photograph_web import PhotographWeb
from examples.photographs.served_download import ServedDownload
from examples.photographs.web import accounting
from pipelines.crawl.guarded import GuardedDownload
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.resize import ResizeConfig
from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from pipelines.stages.download import Download, DownloadConfig
from pipelines.stages.select_urls import SelectUrls, SelectUrlsConfig
from pipelines.stages.tables import table_shards
from reptok.data import columns

FETCH = FetchConfig(attempt_seconds=4.0, total_seconds=6.0, backoff_seconds=0.05, host_rate=0)
RESIZE = ResizeConfig(image_size=64)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("artifacts")
    artifacts: dict[str, Artifact] = {}
    config = SelectUrlsConfig(sources=("artifact:web/coyo.parquet",), rows_per_shard=30)
    for stage in (PhotographWeb(CoyoConfig(images=54, fault_fraction=0.5)), SelectUrls(config)):
        out = Workspace(str(folder / stage.output))
        stage.run(artifacts, out)
        out.publish({})
        artifacts[stage.output] = Artifact(stage.output, "", out.url)
    return artifacts


class Run:
    """The download of all shards in this process, in the given order, by so many workers in turn."""

    def __init__(
        self, inputs: dict[str, Artifact], folder: Path, fetch: FetchConfig, order: int = 1, workers: int = 1
    ) -> None:
        self.out = Workspace(str(folder / "images"))
        self.stats: dict[str, float] = {}
        download = GuardedDownload(urls=inputs["urls"], fetch=fetch, resize=RESIZE)
        jobs = [ServedDownload(download=download, web=inputs["web"]) for _ in range(workers)]
        for job in jobs:
            job.setup()
        for number, shard in enumerate(table_shards(inputs["urls"])[::order]):
            for key, value in jobs[number % workers](shard, self.out).items():
                self.stats[key] = self.stats.get(key, 0) + value
        self.files = {name: self.out.read_bytes(name) for name in self.out.files()}
        self.rows: list[dict[str, Any]] = []
        for name, data in self.files.items():
            self.rows += columns.read_table(io.BytesIO(data), columns.IMAGES, name).to_pylist()


@pytest.fixture(scope="module")
def run(inputs: dict[str, Artifact], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    yield Run(inputs, tmp_path_factory.mktemp("run"), FETCH)


def urls(inputs: dict[str, Artifact]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in inputs["urls"].files("*.parquet"):
        rows += columns.read_table(
            io.BytesIO(inputs["urls"].read_bytes(name)), columns.URLS, name
        ).to_pylist()
    return rows


def test_every_url_has_its_row_in_order_with_the_expected_outcome(
    inputs: dict[str, Artifact], run: Run
) -> None:
    selected = urls(inputs)
    faults = inputs["web"].read_json("faults.json")["rows"]
    kept = ("key", "url", "text", "split", "label", "subject")
    assert [[row[name] for name in kept] for row in run.rows] == [
        [row[name] for name in kept] for row in selected
    ]
    for source, row in zip(selected, run.rows, strict=True):
        fault = faults.get(str(source["id"]), {"fault": "", "expected": "success"})
        expected = "success" if fault["expected"].startswith("dropped_") else fault["expected"]
        assert (row["reason"] or row["status"]) == expected, (fault, row["url"])
        assert (row["jpg"] is None) == (row["status"] != columns.SUCCESS)
        judged = row["reason"] in ("truncated", "not_an_image", "too_many_pixels", "too_small")
        cut_body = fault["fault"] == "cut_body"  # the answer ended, not the image
        assert (row["status"] == columns.FAILED_TO_RESIZE) == (judged and not cut_body)


def test_the_stats_account_for_every_row_and_the_servers_own_count_agrees(run: Run) -> None:
    failed = sum(value for key, value in run.stats.items() if key.startswith("failed_"))
    assert run.stats["rows_in"] == run.stats["rows_out"] == run.stats["images_ok"] + failed == len(run.rows)
    rows = accounting(run.stats)
    assert {"success", "http_404", "robots_tag", "truncated", "timeout"} <= {row[0] for row in rows}
    assert [row for row in rows if row[1] != row[2]] == []
    assert "served_unknown" not in run.stats


def test_images_are_squares_of_the_right_size(run: Run) -> None:
    for row in run.rows:
        if row["status"] == columns.SUCCESS:
            assert Image.open(io.BytesIO(row["jpg"])).size == (row["width"], row["height"]) == (64, 64)
            assert min(row["original_width"], row["original_height"]) >= 64


def test_bytes_and_counts_do_not_depend_on_order_concurrency_or_workers(
    inputs: dict[str, Artifact], run: Run, tmp_path: Path
) -> None:
    """Two workers have two servers, as on two machines: each answers for the URLs of its shards alone."""
    slow = FetchConfig(**{**FETCH.__dict__, "concurrency": 3, "per_host": 1})
    other = Run(inputs, tmp_path, slow, order=-1, workers=2)
    assert other.files == run.files and other.stats == run.stats


def test_the_stage_asks_for_the_web_only_when_it_serves_it() -> None:
    assert Download(DownloadConfig()).inputs == ("urls",)
    assert Download(DownloadConfig(serve="photographs")).inputs == ("urls", "web")
