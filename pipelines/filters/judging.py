"""The job that shows the pictures of a table to filters and writes what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pyarrow as pa

from pipelines.crawl.reasons import CLASSES
from pipelines.dag.artifact import Artifact
from pipelines.dag.earlier import Made
from pipelines.dag.rows import RowErrors, drop_reason
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import Workspace
from pipelines.filters import clip_similarity, listed_hash
from pipelines.filters.duplicates import EXACT, NEAR, duplicates_of
from pipelines.filters.filter import Filter, Finding, Row
from pipelines.filters.twins import write_hashes
from pipelines.filters.verdicts import verdict_table
from reptok.data.columns import IMAGES, SUCCESS, VERDICTS, count_rows, iterate_rows, write_table

ROWS_PER_BATCH = 256
REASONS = frozenset({listed_hash.REASON, clip_similarity.REASON, EXACT, NEAR})


@dataclass(frozen=True)
class JudgeImages(ShardJob):
    """Judge the successful rows of one table of images: `verdicts-{i}.parquet` beside `images-{i}.parquet`.

    Attributes:
        images: The tables.
        filters: Who looks, by name, in this order; none sees what one before it has refused.
    """

    reasons: ClassVar[frozenset[str]] = CLASSES | REASONS

    images: Artifact
    filters: Mapping[str, Filter]

    def setup(self) -> None:
        """Set up the filters."""
        for found in self.filters.values():
            found.setup()

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Judge and count; what was not downloaded is dropped for the reason that it has."""
        stats: Counter[str] = Counter(rows_in=0, rows_out=0)
        sitting = _Sitting(shard, self.filters)
        rows = self._rows(shard, stats)
        while part := list(islice(rows, ROWS_PER_BATCH)):
            sitting.look(part)
        for verdict in sitting.verdicts:
            if verdict["kept"]:
                stats["rows_out"] += 1
            else:
                stats[f"dropped_{verdict['reason']}"] += 1
            stats["quarantined"] += verdict["quarantined"]
        if duplicates_of(self.filters):
            write_hashes(out, shard, list(sitting.hashes), list(sitting.hashes.values()))
        self._write(out, shard, sitting.verdicts)
        return dict(stats)

    def absent(self, shard: Shard, out: Workspace) -> None:
        """Write a table without rows: nothing of those pictures is passed on."""
        self._write(out, shard, [])

    def made_of(self, shard: Shard) -> Sequence[Made]:
        """The table of images; of none where twins are looked for, whose hashes an artifact does not keep."""
        return () if duplicates_of(self.filters) else ((self.images, shard.payload["file"]),)

    def rows_of(self, shard: Shard) -> int:
        """Rows of the table of images."""
        with self.images.open(shard.payload["file"]) as file:
            return count_rows(file)

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """The table of verdicts."""
        return (verdict_table(shard.payload["file"]),)

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of all scores."""
        return tuple(score for found in self.filters.values() for score in found.scores)

    def _write(self, out: Workspace, shard: Shard, verdicts: Sequence[Mapping[str, Any]]) -> None:
        values: dict[str, Any] = {name: [row.get(name) for row in verdicts] for name in VERDICTS.names}
        for name in self.scores:
            values[name] = pa.array([row.get(name) for row in verdicts], pa.float64())
        with out.create(verdict_table(shard.payload["file"])) as target:
            write_table(target, values, VERDICTS)  # type: ignore[arg-type]

    def _rows(self, shard: Shard, stats: Counter[str]) -> Iterator[dict[str, Any]]:
        """The successful rows, with the columns that somebody reads."""
        name = shard.payload["file"]
        read = {column for found in self.filters.values() for column in found.reads}
        columns = list(dict.fromkeys(["key", "url", "status", "reason", *sorted(read)]))
        with self.images.open(name) as file:
            for row in iterate_rows(file, IMAGES, name, columns):
                stats["rows_in"] += 1
                if row["status"] == SUCCESS:
                    yield row
                else:
                    stats[drop_reason(row["reason"], "failed")] += 1


class _Sitting:
    """What filters say of the pictures of one table.

    Attributes:
        verdicts: Rows of `VERDICTS` with scores, so far.
        hashes: Of kept pictures by which twins are found, by the rows of their verdicts.
    """

    def __init__(self, shard: Shard, filters: Mapping[str, Filter]) -> None:
        self.verdicts: list[dict[str, Any]] = []
        self.hashes: dict[int, int] = {}
        self._filters = {name: found.fresh() for name, found in filters.items()}
        self._duplicates = duplicates_of(filters)
        self._errors = RowErrors(shard.name, shard.rows)

    def look(self, rows: Sequence[dict[str, Any]]) -> None:
        """Show some more pictures to the filters, one filter after the other."""
        said: dict[str, dict[str, Any]] = {row["key"]: _kept(row) for row in rows}
        left: list[dict[str, Any]] = list(rows)
        for name, found in self._filters.items():
            for row, finding in zip(left, self._findings(name, found, left), strict=True):
                if odd := finding.scores.keys() - set(found.scores):
                    raise ValueError(f"filter {name} declares no score {', '.join(sorted(odd))}")
                verdict = said[row["key"]]
                verdict |= finding.scores
                if finding.reason:
                    word = drop_reason(finding.reason, "refused").removeprefix("dropped_")
                    verdict |= {"kept": False, "reason": word, "detail": finding.detail}
                    verdict["quarantined"] = finding.quarantined
            left = [row for row in left if said[row["key"]]["kept"]]
        if self._duplicates:
            places = dict(zip(said, range(len(self.verdicts), len(self.verdicts) + len(said)), strict=True))
            hashes = {places[row["key"]]: self._duplicates.hash_of(row) for row in left}
            self.hashes |= {place: found for place, found in hashes.items() if found is not None}
        self.verdicts += said.values()

    def _findings(self, name: str, found: Filter, rows: Sequence[Row]) -> Sequence[Finding]:
        if not rows:
            return []
        try:
            findings = found.judge_all(rows)
        except Exception:  # one of them is to blame, perhaps
            return [self._alone(found, row) for row in rows]
        if len(findings) != len(rows):
            raise ValueError(f"filter {name} found {len(findings)} things about {len(rows)} pictures")
        return findings

    def _alone(self, found: Filter, row: Row) -> Finding:
        try:
            (finding,) = found.judge_all([row])
        except Exception as error:
            return Finding(reason=self._errors.reason(row["key"], error))
        return finding


def _kept(row: Row) -> dict[str, Any]:
    return {"key": row["key"], "kept": True, "quarantined": False, "source": _host(row["url"])}


def _host(url: str | None) -> str | None:
    try:
        return urlsplit(url or "").hostname
    except ValueError:  # brackets that hold no address
        return None
