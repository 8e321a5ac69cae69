"""What filters found about the pictures that came: by reason, by source, and how their scores lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from reptok.data.columns import VERDICTS, count_rows, read_table
from reptok.data.remote import DataPath, RemotePath, readable, some_at_a_time
from reptok.data.shards import parse_object
from reptok.data.verify import MANIFEST

PATTERN, EXCLUDED = "verdicts-*.parquet", "excluded.parquet"
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
LARGEST_SOURCES = 10
KEPT = "kept"


def tables_of(folder: DataPath) -> list[DataPath]:
    """The tables of a folder of verdicts, none of another; of a remote one those that its manifest names."""
    if isinstance(folder, Path):
        return list(sorted(folder.glob(PATTERN)))
    if not (folder / MANIFEST).is_file():
        return []
    names = parse_object((folder / MANIFEST).read_bytes()).get("files", {})
    return [folder / name for name in sorted(names) if fnmatch(name, PATTERN)]


def verdicts_of(dataset: DataPath) -> DataPath | None:
    """The verdicts that a dataset was made by, where they lie in the same artifact store."""
    try:
        manifest = parse_object((dataset / MANIFEST).read_bytes())
        name = str(manifest["inputs"]["verdicts"])
        if isinstance(dataset, Path):
            found = dataset.resolve().parents[1] / "verdicts" / name
            return found if found.is_dir() else None
        there = RemotePath(dataset.url.rsplit("/", 2)[0], dataset.keep) / "verdicts" / name
        return there if tables_of(there) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe_verdicts(folder: DataPath) -> Iterator[str]:
    """Yield the lines that tell what a folder of verdicts says.

    Raises:
        ValueError: A table is damaged.
    """
    found: Counter[tuple[str, str]] = Counter()
    scores: dict[tuple[str, str], list[np.ndarray]] = {}
    quarantined = 0
    for table in some_at_a_time(
        lambda path: read_table(readable(path), VERDICTS, path.name), tables_of(folder)
    ):
        quarantined += pc.sum(table["quarantined"]).as_py() or 0
        for row in table.group_by(["source", "reason"]).aggregate([([], "count_all")]).to_pylist():
            found[row["source"] or "unknown", row["reason"] or KEPT] += row["count_all"]
        reasons = pc.fill_null(table["reason"], KEPT)
        for name in table.column_names:
            if name not in VERDICTS.names:
                for word in reasons.unique().to_pylist():
                    values = table[name].filter(pc.equal(reasons, word)).drop_null()
                    scores.setdefault((name, word), []).append(values.to_numpy())
    total = found.total()
    yield f"{folder}: verdicts on {total:,} pictures"
    for reason, count in _by_count(_summed(found, 1), total):
        yield f"  {reason}: {count}"
    if quarantined:
        yield f"  quarantined: {quarantined:,}, named in review.parquet"
    if (folder / EXCLUDED).is_file():
        twins = count_rows(readable(folder / EXCLUDED))
        yield f"  {KEPT}, but passed over by trainings as twins in other tables: {twins:,}"
    yield from _scores(scores)
    yield from _sources(found)


def _scores(scores: Mapping[tuple[str, str], list[np.ndarray]]) -> Iterator[str]:
    marks = ", ".join(f"{quantile} %" for quantile in QUANTILES)
    for name, word in sorted(scores, key=lambda key: (key[0], key[1] != KEPT, key[1])):
        values = np.concatenate(scores[name, word])
        if len(values):
            shown = ", ".join(f"{value:.4g}" for value in np.percentile(values, QUANTILES))
            yield f"  {name} of {word} at {marks}: {shown} ({len(values):,})"


def _sources(found: Counter[tuple[str, str]]) -> Iterator[str]:
    """The sources that lose most, and for which reasons."""
    totals = _summed(found, 0)
    lost = _summed(Counter({pair: count for pair, count in found.items() if pair[1] != KEPT}), 0)
    shown = sorted(lost, key=lambda source: (-lost[source], source))[:LARGEST_SOURCES]
    by_source: dict[str, Counter[str]] = {source: Counter() for source in shown}
    for (source, reason), count in found.items():
        if source in by_source and reason != KEPT:
            by_source[source][reason] = count
    for source, reasons in by_source.items():
        parts = ", ".join(f"{reason} {count}" for reason, count in _by_count(reasons, totals[source]))
        yield f"  source {source}, {totals[source]:,} pictures: {parts}"


def _summed(found: Counter[tuple[str, str]], place: int) -> Counter[str]:
    """Counts by the first or the second of a pair."""
    sums: Counter[str] = Counter()
    for pair, count in found.items():
        sums[pair[place]] += count
    return sums


def _by_count(found: Counter[str], total: int) -> Iterator[tuple[str, str]]:
    for reason, count in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        yield reason, f"{count:,} ({100 * count / total:.1f} %)"
