"""Stage download: from URLs to resized JPEGs, with a reason for every URL that gave none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipelines import registry
from pipelines.crawl.durations import percentile, together
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.reasons import may_heal
from pipelines.crawl.resize import ResizeConfig
from pipelines.crawl.success import SuccessRate
from pipelines.dag.artifact import MANIFEST
from pipelines.dag.fingerprint import insignificant, plain
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Shard, ShardJob, ShardWork, WorkerResources
from pipelines.dag.stage import Artifact, Workspace
from pipelines.dag.storage import many, open_folder
from pipelines.dag.wanted import Wanted
from pipelines.stages.tables import occupied, table_shards
from reptok.bounds import Count


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How to download.

    Attributes:
        engine: "guarded", ours, or "img2dataset", for those who want exactly its behaviour, its lack of
            guards included.
        fetch: limits of fetching.
        resize: what an image must be, and what is made of it.
        reuse: fingerprint of an earlier `images` artifact of the same settings. Its images, and its failures
            that last, are taken over; only what may be better now, or is new, is asked for.
        limit_samples: so many images are enough: the first shards of URLs, in order, that give them make the
            artifact, and no other is asked for once that is known. None asks for all.
        serve: name of an installed source whose URLs lead nowhere else: each worker serves its web to
            itself.
        workers: how many processes download, and what each occupies.
    """

    engine: Literal["guarded", "img2dataset"] = "guarded"
    fetch: FetchConfig = field(default_factory=FetchConfig)
    resize: ResizeConfig = field(default_factory=ResizeConfig)
    reuse: str = ""
    limit_samples: Count | None = None
    serve: str = ""
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def __post_init__(self) -> None:
        if self.limit_samples is not None and self.limit_samples < 1:
            raise ValueError(f"download.limit_samples must be at least 1, got {self.limit_samples}")
        if self.engine == "img2dataset" and self.serve:
            raise ValueError(
                "download.engine=img2dataset cannot reach a web that is served here: its hosts exist for our "
                "fetch only"
            )


class Download(ShardStage):
    """Fetch every URL once, safely and politely, and keep one row for each, failures included.

    images-{split}-{number}.parquet   `columns.IMAGES`, in the order of urls-{split}-{number}.parquet
    """

    name, output, version = "download", "images", 3
    apart = ("reuse", "limit_samples")
    modules = (
        "pipelines.crawl.guarded",
        "pipelines.crawl.img2dataset_engine",
        "pipelines.crawl.reuse",
    )

    def __init__(self, config: DownloadConfig) -> None:
        super().__init__(config)
        self.source = registry.source(config.serve, "download.serve") if config.serve else None
        self.inputs = ("urls", self.source.served) if self.source else ("urls",)
        self.resources = occupied(config.workers)

    def work(self, inputs: Mapping[str, Artifact], out: Workspace) -> ShardWork:
        """One shard for each table of URLs.

        Raises:
            ValueError: Nobody says how the owner of a site can reach him, or `reuse` names other images.
        """
        config = self.config
        if config.engine == "guarded" and not config.serve and not config.fetch.contact:
            raise ValueError(
                "say how the owner of a site can reach you, for the requests to carry it: "
                "data.download.fetch.contact=mailto:you@example.org"
            )
        shards = table_shards(inputs["urls"])
        earlier = self._earlier(out)
        if earlier:
            shards = _with_earlier(shards, inputs["urls"], earlier)
        rate = SuccessRate(lambda line: print(f"  {self.name}: {line}", flush=True))
        job = self._job(inputs, earlier)
        wanted = Wanted(config.limit_samples, "images_ok") if config.limit_samples else None
        return ShardWork(shards=shards, job=job, workers=config.workers, watch=rate.add, wanted=wanted)

    def finish(
        self, inputs: Mapping[str, Artifact], out: Workspace, work: ShardWork, stats: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Record what requests took, and what a later download may ask for again."""
        if self.source and self.source.accounting:
            _compare(self.source.accounting(stats), out)
        _log_durations(out)
        self._say(stats, out)
        return stats

    def _job(self, inputs: Mapping[str, Artifact], earlier: Artifact | None) -> ShardJob:
        config = self.config
        common: dict[str, Any] = {
            "urls": inputs["urls"], "fetch": config.fetch, "resize": config.resize, "earlier": earlier
        }  # fmt: skip
        if config.engine == "guarded":
            from pipelines.crawl.guarded import GuardedDownload

            download = GuardedDownload(**common)
            if self.source is None or self.source.serve is None:
                return download
            return self.source.serve(download, inputs[self.source.served])
        from pipelines.crawl.img2dataset_engine import UNGUARDED, Img2datasetDownload

        print(f"  {self.name}: warning: {UNGUARDED}", flush=True)
        return Img2datasetDownload(**common)

    def _earlier(self, out: Workspace) -> Artifact | None:
        """The artifact that `reuse` names, if it was made with the same settings.

        Raises:
            ValueError: there is none, or its rows mean something else.
        """
        name = self.config.reuse
        if not name:
            return None
        folder = open_folder(f"{out.url.rpartition('/')[0]}/{name}")
        if not folder.exists(MANIFEST):
            raise ValueError(f"download.reuse={name}: {folder.url} holds no published images")
        earlier = Artifact(self.output, name, folder.url)
        ours = plain(self.config, significant_only=True)
        theirs = earlier.manifest["config"]
        differing = [key for key in ("engine", "fetch", "resize") if not _agree(ours[key], theirs.get(key))]
        if differing:
            raise ValueError(
                f"download.reuse={name}: those images were made with another {' and '.join(differing)}; "
                "ask for every URL again (download.reuse=), or give the settings that they were made with"
            )
        return earlier

    def _say(self, stats: Mapping[str, float], out: Workspace) -> None:
        print(f"  {stats['images_ok']:.0f} images from {stats['rows_in']:.0f} URLs", flush=True)
        healing = sum(
            count
            for key, count in stats.items()
            if key.startswith("failed_") and may_heal(key.removeprefix("failed_"))
        )
        if healing and not self.config.serve:
            print(
                f"  {healing:.0f} of the failures may heal; data.download.reuse={out.fingerprint} asks for "
                "those alone",
                flush=True,
            )


def _agree(ours: Any, theirs: Any) -> bool:
    """Whether the recorded settings are these in every field that can change bytes."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return all(_agree(value, theirs.get(key)) for key, value in ours.items())
    return bool(ours == theirs)


def _with_earlier(shards: list[Shard], urls: Artifact, earlier: Artifact) -> list[Shard]:
    """Add to each shard's payload the files of the earlier artifact that hold some of its URLs."""
    from pipelines.crawl.reuse import EarlierFiles
    from reptok.data import columns

    files = EarlierFiles(earlier)

    def with_files(shard: Shard) -> Shard:
        name = shard.payload["file"]
        with urls.open(name) as file:
            wanted = columns.read_table(file, columns.URLS, name, columns=["url"]).column("url").to_pylist()
        return replace(shard, payload={**shard.payload, "earlier": files.holding(wanted)})

    return many(with_files, shards)


def _log_durations(out: Workspace) -> None:
    """Record how long requests took: in the artifact it would make equal answers differ."""
    found = together(out.summaries.values())
    out.log.text("seconds.json", json.dumps(found, indent=1))
    out.log.metrics({f"fetch/seconds_p{p}": percentile(found, p) for p in (50, 95, 99)})


def _compare(rows: Sequence[tuple[str, int, int]], out: Workspace) -> None:
    """Put the web's own count beside the stage's."""
    lines = [f"{'outcome':<34}{'server':>8}{'stage':>8}"]
    lines += [f"{outcome:<34}{here:>8}{there:>8}" for outcome, here, there in rows]
    differ = [outcome for outcome, here, there in rows if here != there]
    agreement = f"they differ in: {', '.join(differ)}" if differ else "they agree"
    out.log.text("web_accounting.txt", "\n".join([*lines, agreement, ""]))
    print(f"  the web's own count of answers and ours: {agreement}", flush=True)
