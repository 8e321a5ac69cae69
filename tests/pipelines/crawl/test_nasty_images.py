"""Nasty images: each has its fate, and no damage crashes, hangs or loses a row."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from pipelines.crawl.guarded import GuardedDownload
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.reasons import Failure, is_reason
from pipelines.crawl.resize import ResizeConfig, resize
from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import Shard
from pipelines.dag.workspace import Workspace
from reptok.data import columns

CONFIG = ResizeConfig(image_size=64, min_size=32)
FUZZED = 5000


def test_every_nasty_image_has_its_fate_through_the_whole_job(
    tmp_path: Path, nasty_images: ModuleType, hostile_web: ModuleType
) -> None:
    corpus = nasty_images.corpus()
    assert len(corpus) >= 150
    names = list(corpus)
    pages = {f"/{number}": hostile_web.answer(200, corpus[name].data) for number, name in enumerate(names)}
    with hostile_web.HostileWeb(pages) as web:
        urls = Workspace(str(tmp_path / "urls"))
        with urls.create("urls-00000.parquet") as file:
            addresses = [web.url(f"/{number}") for number in range(len(names))]
            columns.write_table(file, {"key": names, "url": addresses}, columns.URLS)
        urls.publish({})
        fetch = FetchConfig(
            allow_hosts=(hostile_web.ADDRESS,), host_rate=0, second_pass_seconds=0, max_bytes=200_000_000
        )
        job = GuardedDownload(urls=Artifact("urls", "", urls.url), fetch=fetch, resize=CONFIG)
        out = Workspace(str(tmp_path / "images"))
        stats = job(Shard(0, "0", len(names), {"file": "urls-00000.parquet"}), out)
    rows = columns.read_table(io.BytesIO(out.read_bytes("images-00000.parquet")), columns.IMAGES).to_pylist()
    fates = {row["key"]: row["reason"] or row["status"] for row in rows}
    wrong = {name: fate for name, fate in fates.items() if fate not in corpus[name].outcomes}
    assert wrong == {}
    assert list(fates) == names
    assert stats["images_ok"] + sum(v for k, v in stats.items() if k.startswith("failed_")) == len(names)
    for row in rows:
        if row["status"] == columns.SUCCESS:
            with Image.open(io.BytesIO(row["jpg"])) as image:
                assert (image.mode, image.size) == ("RGB", (64, 64)), row["key"]
                colour = corpus[row["key"]].colour
                if colour:
                    difference = np.abs(np.asarray(image).astype(int)[32, 32] - colour)
                    assert difference.max() <= 8, (row["key"], np.asarray(image)[32, 32], colour)


@pytest.mark.parametrize("count", [400, pytest.param(FUZZED, marks=pytest.mark.slow)])
def test_random_damage_is_an_image_or_a_reason(nasty_images: ModuleType, count: int) -> None:
    fates: Counter[str] = Counter()
    for seed in range(count):
        try:
            picture = resize(nasty_images.damaged(seed), CONFIG)
        except Failure as failure:
            fates[failure.reason] += 1
        else:
            assert (picture.width, picture.height) == (64, 64)
            fates["success"] += 1
    assert sum(fates.values()) == count
    assert all(fate == "success" or is_reason(fate) for fate in fates)
    assert fates["success"] > count // 20 and len(fates) >= 4
