"""Which rows of a URL list are wanted: rules in a fixed order, each counting what it drops."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

BATCH_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Bounds on COYO's columns, inclusive; None is no bound. A row without a value fails its bound.

    The field's name says it: `min_` or `max_` and the column. Three are computed: `size` is the shorter side,
    `aspect_ratio` the longer side by the shorter one, `text_length` the characters of the text.
    """

    min_size: int | None = None
    max_aspect_ratio: float | None = None
    min_text_length: int | None = None
    max_text_length: int | None = None
    min_clip_similarity_vitb32: float | None = None
    min_clip_similarity_vitl14: float | None = None
    min_aesthetic_score_laion_v2: float | None = None
    max_watermark_score: float | None = None
    max_nsfw_score_opennsfw2: float | None = None
    max_nsfw_score_gantman: float | None = None
    max_num_faces: int | None = None


_COMPUTED: dict[str, tuple[tuple[str, ...], Callable[[pa.Table], Any]]] = {
    "size": (("width", "height"), lambda t: pc.min_element_wise(t["width"], t["height"], skip_nulls=False)),
    "aspect_ratio": (
        ("width", "height"),
        lambda t: pc.divide(
            pc.cast(pc.max_element_wise(t["width"], t["height"], skip_nulls=False), pa.float64()),
            pc.cast(pc.min_element_wise(t["width"], t["height"], skip_nulls=False), pa.float64()),
        ),
    ),
    "text_length": (("text",), lambda t: pc.utf8_length(pc.utf8_trim_whitespace(t["text"]))),
}


class Rule:
    """Drops rows of a table and counts them.

    Attributes:
        name: in the stats and the drop report.
        threshold: the bound or list that it applies, for the report.
        columns: what it reads.
        dropped: rows so far.
    """

    def __init__(
        self, name: str, threshold: Any, columns: tuple[str, ...], keep: Callable[[pa.Table], Any]
    ) -> None:
        self.name, self.threshold, self.columns, self._keep = name, threshold, columns, keep
        self.dropped = 0

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the rows that may stay, in order."""
        kept = table.filter(pc.fill_null(self._keep(table), False))
        self.dropped += table.num_rows - kept.num_rows
        return kept


def make_rules(
    filters: Filters, *, opted_out: Collection[str] = (), dedup_url: bool = True, dedup_image: bool = True
) -> list[Rule]:
    """Make the rules in the order in which they apply: empty, opted out, bounds, duplicates.

    Args:
        filters: bounds on columns.
        opted_out: URLs, and hosts whose URLs (and those of their subdomains) are not wanted.
        dedup_url: keep the first row of each URL.
        dedup_image: keep the first row of each `image_phash`; rows without one all stay.
    """
    rules = [Rule("empty_url", None, ("url",), lambda t: _not_empty(t["url"]))]
    if opted_out:
        listed = frozenset(entry.lower().rstrip("/") for entry in opted_out)
        rules.append(
            Rule("opted_out", len(listed), ("url",), lambda t: _keep_rows(t["url"], _unlisted(listed)))
        )
    for field in fields(filters):
        bound = getattr(filters, field.name)
        if bound is not None:
            rules.append(_bound_rule(field.name, bound))
    if dedup_url:
        rules.append(Rule("duplicate_url", None, ("url",), _first_of("url")))
    if dedup_image:
        rules.append(Rule("duplicate_image", None, ("image_phash",), _first_of("image_phash")))
    return rules


def check_columns(rules: Sequence[Rule], columns: Sequence[str], source: str) -> None:
    """Refuse a source that lacks a column which a rule reads.

    Raises:
        ValueError: names the column, the rule, the file, and the columns that there are.
    """
    for rule in rules:
        for column in rule.columns:
            if column not in columns:
                raise ValueError(
                    f"{source} has no column {column!r}, which the rule {rule.name!r} reads. It has: "
                    f"{', '.join(columns)}. Map another column to it with `columns`, or switch the rule off."
                )


def _bound_rule(name: str, bound: float) -> Rule:
    side, _, column = name.partition("_")
    compare = pc.greater_equal if side == "min" else pc.less_equal
    columns, values = _COMPUTED.get(column, ((column,), lambda table: table[column]))
    return Rule(name, bound, columns, lambda table: compare(values(table), bound))


def _not_empty(urls: pa.ChunkedArray) -> Any:
    return pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(urls)), 0)


def _keep_rows(values: pa.ChunkedArray, keep: Callable[[Any], bool]) -> pa.Array:
    return pa.array([keep(value) for value in values.to_pylist()], pa.bool_())


def _unlisted(listed: frozenset[str]) -> Callable[[str], bool]:
    def keep(url: str) -> bool:
        if url.lower().rstrip("/") in listed:
            return False
        try:
            labels = (urlsplit(url).hostname or "").split(".")
        except ValueError:
            return True  # not a URL: the download says so
        return not any(".".join(labels[start:]) in listed for start in range(len(labels)))

    return keep


def _first_of(column: str) -> Callable[[pa.Table], pa.Array]:
    """True for the first row of each value over all tables; remembers 16 bytes per value."""
    seen: set[bytes] = set()

    def keep(value: Any) -> bool:
        if value is None:
            return True
        digest = hashlib.blake2b(str(value).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        new = digest not in seen
        seen.add(digest)
        return new

    return lambda table: _keep_rows(table[column], keep)
