"""Stage download: from URLs to resized JPEGs, with a reason for every URL that gave none."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shards import Shard, WorkerResources, map_shards
from pipelines.dag.stage import Artifact, Resources, Stage, Workspace
from pipelines.demo.web import FaultServer
from pipelines.ops.manners import FetchConfig
from pipelines.ops.resize import ResizeConfig
from reptok.data import columns


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How to download.

    Attributes:
        fetch: limits and manners.
        resize: what an image must be, and what is made of it.
        serve_web: serve the `web` artifact on loopback meanwhile: the demo's URLs lead nowhere else.
        workers: how many processes download, and what each occupies.
    """

    fetch: FetchConfig = field(default_factory=FetchConfig)
    resize: ResizeConfig = field(default_factory=ResizeConfig)
    serve_web: bool = False
    workers: WorkerResources = insignificant(factory=WorkerResources)


class Download(Stage):
    """Fetch every URL once, safely and politely, and keep one row for each, failures included.

    images-{shard}.parquet   `columns.IMAGES`, in the order of urls-{shard}.parquet
    """

    name, output, version = "download", "images", 1
    modules = ("pipelines.ops.download",)

    def __init__(self, config: DownloadConfig) -> None:
        super().__init__(config)
        self.inputs = ("urls", "web") if config.serve_web else ("urls",)
        self.resources = Resources(cpus=config.workers.workers * config.workers.cpus)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from pipelines.ops.download import DownloadJob

        urls = inputs["urls"]
        with ExitStack() as stack:
            server = None
            if self.config.serve_web:
                server = stack.enter_context(FaultServer.of(inputs["web"]))
            job = DownloadJob(
                urls=urls,
                fetch=self.config.fetch,
                resize=self.config.resize,
                overrides=server.overrides if server else {},
            )
            stats = map_shards(_shards(urls), job, out, self.config.workers)
            if server:
                _compare(server, stats, out)
        print(f"  {stats['images_ok']:.0f} images from {stats['rows_in']:.0f} URLs", flush=True)
        return stats


def _shards(urls: Artifact) -> list[Shard]:
    shards = []
    for index, name in enumerate(urls.files("urls-*.parquet")):
        with urls.open(name) as file:
            shards.append(
                Shard(index, name.removesuffix(".parquet"), columns.count_rows(file), {"file": name})
            )
    return shards


def _compare(server: FaultServer, stats: Mapping[str, float], out: Workspace) -> None:
    """Put the server's own count beside the stage's; they agree unless the stage was interrupted."""
    rows = server.accounting(stats)
    lines = [f"{'outcome':<34}{'server':>8}{'stage':>8}"]
    lines += [f"{outcome:<34}{here:>8}{there:>8}" for outcome, here, there in rows]
    differ = [outcome for outcome, here, there in rows if here != there]
    agreement = f"they differ in: {', '.join(differ)} (as after a resume)" if differ else "they agree"
    out.log.text("web_accounting.txt", "\n".join([*lines, agreement, ""]))
    print(f"  the web's own count of answers and ours: {agreement}", flush=True)
