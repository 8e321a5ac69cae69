"""Which rows of a URL list are wanted, judged row by row; duplicates need all rows: `dedup`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Interval

from pipelines.urls.duplicates import Neighbours
from reptok.bounds import Number, Share, Whole

Similarity = Annotated[float, Interval(ge=-1, le=1)]
BATCH_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Bounds on COYO's columns, inclusive; None is no bound. A row without a value fails its bound.

    The field's name says it: `min_` or `max_` and the column. Three are computed: `size` is the shorter side,
    `aspect_ratio` the longer side by the shorter one, `text_length` the characters of the text.
    """

    min_size: Whole | None = None
    max_size: Whole | None = None
    min_width: Whole | None = None
    max_width: Whole | None = None
    min_height: Whole | None = None
    max_height: Whole | None = None
    max_aspect_ratio: Annotated[float, Ge(1)] | None = None
    min_text_length: Whole | None = None
    max_text_length: Whole | None = None
    min_word_count: Whole | None = None
    max_word_count: Whole | None = None
    min_num_tokens_bert: Whole | None = None
    max_num_tokens_bert: Whole | None = None
    min_num_tokens_gpt: Whole | None = None
    max_num_tokens_gpt: Whole | None = None
    min_num_faces: Whole | None = None
    max_num_faces: Whole | None = None
    min_clip_similarity_vitb32: Similarity | None = None
    max_clip_similarity_vitb32: Similarity | None = None
    min_clip_similarity_vitl14: Similarity | None = None
    max_clip_similarity_vitl14: Similarity | None = None
    max_nsfw_score_opennsfw2: Share | None = None
    max_nsfw_score_gantman: Share | None = None
    max_watermark_score: Share | None = None
    min_aesthetic_score_laion_v2: Number | None = None
    max_aesthetic_score_laion_v2: Number | None = None

    def __post_init__(self) -> None:
        for name in (field.name.removeprefix("min_") for field in fields(self) if field.name[:4] == "min_"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}", None)
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{name} {least} is above max_{name} {most}: no row could stay")


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


@dataclass(frozen=True)
class Rule:
    """Says which rows may stay.

    Attributes:
        name: in the stats and the drop report.
        threshold: the bound or list that it applies, for the report.
        columns: what it reads.
        keep: table of N rows to N truth values; null counts as false.
    """

    name: str
    threshold: Any
    columns: tuple[str, ...]
    keep: Callable[[pa.Table], Any]

    def __call__(self, table: pa.Table) -> np.ndarray:
        """Bool (N,): the rows that may stay."""
        kept = pc.fill_null(self.keep(table), False)
        return np.asarray(kept.combine_chunks() if isinstance(kept, pa.ChunkedArray) else kept)


def make_rules(filters: Filters, *, held_out: Neighbours | None = None) -> list[Rule]:
    """Make the rules in the order in which they apply: empty, bounds, held out.

    Args:
        filters: bounds on columns.
        held_out: finds images of a held-out set by their `image_phash`.
    """
    rules = [Rule("empty_url", None, ("url",), lambda t: _not_empty(t["url"]))]
    for field in fields(filters):
        bound = getattr(filters, field.name)
        if bound is not None:
            rules.append(_bound_rule(field.name, bound))
    if held_out:
        rules.append(Rule("held_out", held_out.distance, ("image_phash",), _unseen(held_out)))
    return rules


def check_columns(rules: Sequence[tuple[str, Sequence[str]]], columns: Sequence[str], source: str) -> None:
    """Refuse a source that lacks a column which a rule, given by name and columns, reads.

    Raises:
        ValueError: names the column, the rule, the file, and the columns that there are.
    """
    for rule, reads in rules:
        for column in reads:
            if column not in columns:
                raise ValueError(
                    f"{source} has no column {column!r}, which the rule {rule!r} reads. It has: "
                    f"{', '.join(columns)}. Map another column to it with `columns`, or switch the rule off."
                )


def image_hashes(values: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Hexadecimal hashes as uint64 (M,), and the positions (M,) of those that are not null."""
    present = [position for position, value in enumerate(values) if value]
    texts = [values[position] for position in present]
    hashes = _of_sixteen_digits(texts)
    if hashes is None:
        try:
            hashes = np.array([int(str(text), 16) for text in texts], np.uint64)
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"image_phash must hold hashes of up to 16 hexadecimal digits ({error}); map the right "
                "column with columns.image_phash=..., or switch off what reads it"
            ) from error
    return hashes, np.array(present, np.int64)


def _of_sixteen_digits(texts: Sequence[Any]) -> np.ndarray | None:
    """The usual case, in one go; None where a text is anything else."""
    try:
        packed = bytes.fromhex("".join(texts))
    except (ValueError, TypeError):
        return None
    if len(packed) != 8 * len(texts) or any(len(text) != 16 for text in texts):  # spaces do not count
        return None
    return np.frombuffer(packed, ">u8").astype(np.uint64)


def _bound_rule(name: str, bound: float) -> Rule:
    side, _, column = name.partition("_")
    compare = pc.greater_equal if side == "min" else pc.less_equal
    columns, values = _COMPUTED.get(column, ((column,), lambda table: table[column]))
    return Rule(name, bound, columns, lambda table: compare(values(table), bound))


def _not_empty(urls: pa.ChunkedArray) -> Any:
    return pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(urls)), 0)


def _unseen(held_out: Neighbours) -> Callable[[pa.Table], pa.Array]:
    def keep(table: pa.Table) -> pa.Array:
        kept = np.ones(table.num_rows, bool)
        hashes, positions = image_hashes(table["image_phash"].to_pylist())
        kept[positions[held_out(hashes)]] = False
        return pa.array(kept)

    return keep
