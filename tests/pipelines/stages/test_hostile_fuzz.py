"""Thirty mutated answers, URLs, redirects and robots files each through the whole stage."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.reasons import is_reason
from pipelines.crawl.resize import ResizeConfig
from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from pipelines.stages.download import Download, DownloadConfig
from reptok.data import columns

COUNT = 30


def test_the_stage_makes_a_row_of_everything(
    tmp_path: Path, in_process: None, hostile_web: ModuleType, load_fixture: Callable[[str], ModuleType]
) -> None:
    fuzz, seed = load_fixture("fuzz_crawl"), random.randrange(1 << 30)
    print(f"seed {seed}")
    rngs = [random.Random(seed + number) for number in range(COUNT)]
    with fuzz.served(rngs, hostile_web, {}) as (urls, hosts):
        out = Workspace(str(tmp_path / "urls" / "0"))
        with out.create("urls-00000.parquet") as file:
            keys = [f"{number:012d}" for number in range(len(urls))]
            columns.write_table(file, {"key": keys, "url": urls}, columns.URLS)
        out.publish({})
        images = Workspace(str(tmp_path / "images" / "0"), "0")
        fetch = FetchConfig(
            allow_hosts=tuple(hosts),
            host_rate=0,
            second_pass_seconds=0,
            host_pause_seconds=0.05,
            turn_seconds=2.0,  # of a Crawl-delay that a mutated robots.txt asks for
            retries=0,
            contact="a test",
            attempt_seconds=4.0,
        )
        config = DownloadConfig(fetch=fetch, resize=ResizeConfig(image_size=64, min_size=8))
        stats = Download(config).run({"urls": Artifact("urls", "0", out.url)}, images)
        with images.folder.open("images-00000.parquet") as file:
            reasons = [row["reason"] for row in columns.read_table(file, columns.IMAGES).to_pylist()]
    assert len(reasons) == stats["rows_in"] == 4 * COUNT
    assert all(is_reason(reason) for reason in reasons if reason)
    assert not any(reason.startswith("internal_") for reason in reasons if reason)
