"""Download one shard of URLs: a row for every URL, whatever became of it, by one of two engines."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from pipelines.crawl.durations import counted
from pipelines.crawl.reasons import CLASSES
from pipelines.crawl.resize import ResizeConfig
from pipelines.crawl.reuse import TAKEN_OVER, earlier_outcomes
from pipelines.dag.artifact import Artifact
from pipelines.dag.earlier import Made
from pipelines.dag.rows import RowErrors
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import Workspace
from pipelines.urls.opt_out import OptOut, opted_out_of
from reptok.data import columns

PASSED_ON = ("key", "url", "text", "split", "label", "subject")

Outcome = dict[str, Any]
"""The columns of `IMAGES` that a URL's download gives, absent ones being null, and "seconds"."""


@dataclass(frozen=True, kw_only=True)
class DownloadJob(ShardJob):
    """From a table of the `urls` artifact (the payload's "file") to one of images, beside it.

    The rows keep their order, and no column depends on time: the same answers give the same bytes. How long
    requests took is the shard's summary.

    Attributes:
        urls: the `urls` artifact.
        resize: what an image must be, and what is made of it.
        earlier: an `images` artifact whose rows are taken over (the payload's "earlier" names its files)
            where they cannot be better; None to ask for every URL.
    """

    reasons: ClassVar[frozenset[str]] = CLASSES

    urls: Artifact
    resize: ResizeConfig
    earlier: Artifact | None = None

    @cached_property
    def opted_out(self) -> OptOut:
        """Whose URLs must not be used, wherever a redirect led or leads."""
        return opted_out_of(self.urls)

    @property
    def schema(self) -> pa.Schema:
        """Columns of what it writes."""
        return columns.HASHED_IMAGES if self.resize.hash_whole else columns.IMAGES

    @abstractmethod
    def obtain(self, urls: Sequence[str], errors: RowErrors) -> tuple[list[Outcome], Mapping[str, float]]:
        """Download URLs: an outcome for each, in order, and additive stats.

        Whatever a URL's work raises without a word for it goes to `errors`.
        """

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Download the shard; the stats hold `images_ok` and a `failed_<reason>` for each reason."""
        name = shard.payload["file"]
        with self.urls.open(name) as file:
            listed = ("image_phash",) if self.resize.hash_whole else ()
            table = columns.read_table(file, columns.URLS, name, columns=[*PASSED_ON, *listed])
        rows = table.to_pylist()
        known = self._taken_over(shard, out, {row["url"] for row in rows})
        asked = [row for row in rows if row["url"] not in known]
        outcomes: list[Outcome] = []
        stats: Mapping[str, float] = {}
        if asked:
            outcomes, stats = self.obtain([row["url"] for row in asked], RowErrors(shard.name, shard.rows))
        for row, outcome in zip(asked, outcomes, strict=True):
            row.update(outcome)
        for row in rows:
            row.update(known.get(row["url"], {}))
        seconds = [row.pop("seconds") for row in rows if "seconds" in row]
        with out.create(images_file(shard)) as target:
            written = columns.write_table(target, rows, self.schema)  # type: ignore[arg-type]
        out.summaries[images_file(shard)] = counted(seconds)
        reasons = Counter(f"failed_{row['reason']}" for row in rows if row["reason"])
        return {
            "rows_in": table.num_rows,
            "rows_out": written,
            "images_ok": sum(row["status"] == columns.SUCCESS for row in rows),
            **({"rows_reused": len(rows) - len(asked)} if known or self.earlier else {}),
            **reasons,
            **stats,
        }

    def made_of(self, shard: Shard) -> Sequence[Made]:
        """The table of URLs; of none that asks again for what may heal."""
        return () if self.earlier else ((self.urls, shard.payload["file"]),)

    def still_good(self, shard: Shard, earlier: Artifact, made: Mapping[str, Any]) -> bool:
        """Whether no redirect led to somebody who has opted out since."""
        (name,) = made["named"]
        with earlier.open(name) as file:
            led = columns.read_table(file, columns.IMAGES, name, ["final_url"]).column("final_url")
        return not any(url in self.opted_out for url in led.to_pylist() if url)

    def _taken_over(self, shard: Shard, out: Workspace, urls: set[str]) -> dict[str, Outcome]:
        """Rows of URLs that need not be asked for, unless somebody has opted out to whom they led."""
        taken = TAKEN_OVER + (("whole_phash",) if self.resize.hash_whole else ())
        if self.earlier:
            found = earlier_outcomes(self.earlier, shard.payload["earlier"], urls, taken)
        elif out.earlier and (last := out.earlier.holding(images_file(shard))):
            found = earlier_outcomes(last, [images_file(shard)], urls, taken, healing=True)
        else:
            return {}
        return {url: row for url, row in found.items() if row["final_url"] not in self.opted_out}

    def absent(self, shard: Shard, out: Workspace) -> None:
        """Write a table without rows."""
        with out.create(images_file(shard)) as target:
            columns.write_table(target, [], self.schema)  # type: ignore[arg-type]

    def rows_of(self, shard: Shard) -> int:
        """URLs of the shard."""
        with self.urls.open(shard.payload["file"]) as file:
            return columns.count_rows(file)

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """The table."""
        return (images_file(shard),)


def images_file(shard: Shard) -> str:
    """Name of a shard's table of images, beside its table of URLs."""
    return f"images-{shard.payload['file'].partition('-')[2]}"
