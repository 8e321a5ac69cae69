"""C1: the download of a shard of photographs over loopback, our engine against img2dataset's Downloader."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.compare import Comparison, compare
from benchmarks.loopback import photographs, served
from pipelines.crawl.guarded import GuardedDownload
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.resize import ResizeConfig, resized
from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import Shard
from pipelines.dag.workspace import Workspace
from reptok.data import columns

IMAGES = 300
SMALLEST_SSIM = 0.985
SCHEMA = pa.schema([("url", pa.string())])


def run() -> Comparison:
    """Fetch, decode, resize to 256 px, hash and write one shard; every check of the guarded engine is on."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with tempfile.TemporaryDirectory() as folder, served(Path(folder, "web"), photographs()) as place:
        sides = _sides(Path(folder), place)
        similar = _similarity()
        if similar.mean() < SMALLEST_SSIM:
            raise RuntimeError(f"the engines make other pixels: SSIM {similar.mean():.4f}")
        return compare(
            f"C1 download of {IMAGES} JPEGs of 640-1024 px to 256 px",
            sides["guarded"],
            "img2dataset's Downloader",
            sides["img2dataset"],
            f"all images; pixels before their JPEG, SSIM {similar.mean():.3f}, least {similar.min():.3f}",
            pairs=5,
        )


def _sides(folder: Path, place: str) -> Mapping[str, Callable[[], object]]:
    urls = [f"http://{place}/{number % len(photographs())}.jpg" for number in range(IMAGES)]
    listed = Workspace(str(folder / "urls"))
    with listed.create("urls-00000.parquet") as file:
        rows = {"key": [f"{number:012d}" for number in range(IMAGES)], "url": urls}
        columns.write_table(file, rows, columns.URLS)  # type: ignore[arg-type]
    listed.publish({})
    polite = FetchConfig(allow_hosts=(place.split(":")[0],), host_rate=0, second_pass_seconds=0, per_host=64)
    job = GuardedDownload(urls=Artifact("urls", "", listed.url), resize=ResizeConfig(), fetch=polite)
    out = Workspace(str(folder / "images"))

    def guarded() -> None:
        stats = job(Shard(0, "0", IMAGES, {"file": "urls-00000.parquet"}), out)
        _count(stats["images_ok"])

    def img2dataset() -> None:
        """Its own writer, and the values that its command has by default."""
        from img2dataset.downloader import Downloader
        from img2dataset.resizer import Resizer
        from img2dataset.writer import ParquetSampleWriter

        shard, theirs = folder / "urls.feather", folder / "theirs"
        theirs.mkdir(exist_ok=True)
        with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
            writer.write_table(pa.table({"url": urls}, schema=SCHEMA))
        Downloader(
            ParquetSampleWriter, Resizer(256, "center_crop", False), polite.concurrency, False, True,
            str(theirs), ["url"], 10, 10_000, 5, "sha256", None, "jpg", 0, None,
            ["noai", "noimageai", "noindex", "noimageindex"],
        ).download_shard((0, str(shard)))  # fmt: skip
        _count(json.loads((theirs / "00000_stats.json").read_text())["successes"])

    return {"guarded": guarded, "img2dataset": img2dataset}


def _count(images: float) -> None:
    if images != IMAGES:
        raise RuntimeError(f"{images} of {IMAGES} images arrived")


def _similarity() -> np.ndarray:
    """SSIM of the luminance of each photograph, resized by both sides and not yet encoded."""
    from img2dataset.resizer import Resizer
    from skimage.metrics import structural_similarity

    ours, theirs = ResizeConfig(), Resizer(256, "center_crop", False, encode_format="png", encode_quality=1)
    found = []
    for data in photographs():
        mine = Image.fromarray(resized(data, ours)).convert("L")
        with Image.open(BytesIO(theirs(BytesIO(data))[0])) as other:
            found.append(structural_similarity(np.asarray(mine), np.asarray(other.convert("L"))))
    return np.array(found)
