"""What one URL raises unforeseen stays in its row; many such rows, or want of memory, fail the shard."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from pipelines.crawl import guarded
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.resize import ResizeConfig, resize
from pipelines.dag.artifact import Artifact
from pipelines.dag.tally import ShardError
from pipelines.dag.workspace import Workspace
from pipelines.stages.download import Download, DownloadConfig
from reptok.data import columns


def picture(colour: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (80, 80), (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


def download(folder: Path, web: Any, address: str) -> list[dict[str, Any]]:
    out = Workspace(str(folder / "urls" / "0"))
    with out.create("urls-00000.parquet") as file:
        urls = [web.url(path) for path in web.pages]
        keys = [f"{number:012d}" for number in range(len(urls))]
        columns.write_table(file, {"key": keys, "url": urls}, columns.URLS)
    out.publish({})
    images = Workspace(str(folder / "images" / "0"), "0")
    fetch = FetchConfig(
        allow_hosts=(address,), host_rate=0, second_pass_seconds=0, retries=0, contact="a test"
    )
    config = DownloadConfig(fetch=fetch, resize=ResizeConfig(image_size=64, min_size=8))
    Download(config).run({"urls": Artifact("urls", "0", out.url)}, images)
    with images.folder.open("images-00000.parquet") as file:
        return columns.read_table(file, columns.IMAGES).to_pylist()


@pytest.mark.parametrize(
    ("failing", "error"), [(3, ZeroDivisionError), (4, ZeroDivisionError), (1, MemoryError)]
)
def test_few_unforeseen_rows_are_borne_and_more_or_ours_fail_the_shard_by_name(
    tmp_path: Path, in_process: None, hostile_web: ModuleType, monkeypatch: pytest.MonkeyPatch, failing: int,
    error: type[Exception],
) -> None:  # fmt: skip
    bad = {picture(number) for number in range(failing)}

    def fragile(data: bytes, *rest: Any) -> Any:
        if data in bad:
            raise error("a fault of ours")
        return resize(data, *rest)

    monkeypatch.setattr(guarded, "resize", fragile)
    pages = {f"/{number}.png": hostile_web.answer(200, picture(number)) for number in range(20)}
    with hostile_web.HostileWeb(pages) as web:
        if error is ZeroDivisionError and failing <= 3:
            reasons = [row["reason"] for row in download(tmp_path, web, hostile_web.ADDRESS)]
            assert reasons == ["internal_ZeroDivisionError"] * failing + [None] * (20 - failing)
            return
        with pytest.raises(ShardError, match=rf"urls-00000: .*{web.url('/')}\d\.png") as caught:
            download(tmp_path, web, hostile_web.ADDRESS)
    assert ("MemoryError: a fault of ours" if error is MemoryError else "more than 3") in str(caught.value)
