"""The rules that select rows: what they keep, what they count, what they demand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.dag.shards import Shard, map_shards
from pipelines.dag.workspace import Workspace
from pipelines.urls.judge import Dedup, Judge
from pipelines.urls.rules import Filters, image_hashes
from pipelines.urls.scan import Scan, scan

NOTHING = Dedup(identity=(), image=False)


class Rows:
    """A list in memory, fed two rows at a time."""

    def __init__(self, rows: list[dict]) -> None:
        self.table = pa.Table.from_pylist(
            [{"url": f"http://a.test/{i}", **row} for i, row in enumerate(rows)]
        )

    def tables(self, file: Mapping[str, str], only: object) -> Iterator[pa.Table]:
        for start in range(0, self.table.num_rows, 2):
            yield self.table.slice(start, 2)


def kept(
    folder: Path, rows: list[dict], filters: Filters | None = None, dedup: Dedup = NOTHING, **options: Any
) -> tuple[list[int], dict[str, int]]:
    """Indices of the rows that stay, and what each rule dropped."""
    found = judged(folder, rows, filters, dedup, **options)
    stay = np.flatnonzero(found.alive.slice(0, len(rows))).tolist()
    return stay, {drops.rule: drops.dropped for drops in found.drops if drops.dropped}


def judged(
    folder: Path, rows: list[dict], filters: Filters | None = None, dedup: Dedup = NOTHING, **options: Any
) -> Scan:
    judge = Judge(listing=Rows(rows), filters=filters or Filters(), dedup=dedup, **options)
    return scan([Shard(0, "list", 1, {})], judge, Workspace(str(folder)), partial(map_shards, here=True))


def test_bounds_are_inclusive_and_a_missing_value_fails(tmp_path: Path) -> None:
    rows = [{"watermark_score": score} for score in (0.1, 0.5, 0.50001, None)]
    assert kept(tmp_path / "1", rows, Filters(max_watermark_score=0.5)) == (
        [0, 1],
        {"max_watermark_score": 2},
    )
    rows = [{"clip_similarity_vitb32": score} for score in (0.3, 0.2999, None)]
    assert kept(tmp_path / "2", rows, Filters(min_clip_similarity_vitb32=0.3)) == (
        [0],
        {"min_clip_similarity_vitb32": 2},
    )


def test_size_is_the_shorter_side_and_aspect_the_longer_by_the_shorter(tmp_path: Path) -> None:
    sizes = [(64, 64), (63, 200), (200, 63), (64, 192), (193, 64), (None, 64), (0, 0)]
    rows = [{"width": width, "height": height} for width, height in sizes]
    stay, dropped = kept(tmp_path / "3", rows, Filters(min_size=64, max_aspect_ratio=3.0))
    assert stay == [0, 3]
    assert dropped == {"min_size": 4, "max_aspect_ratio": 1}


def test_text_length_counts_characters_of_the_text_itself(tmp_path: Path) -> None:
    rows = [{"text": text, "text_length": 99} for text in ("café!", "  abc   ", "", None, "a" * 11)]
    assert kept(tmp_path / "4", rows, Filters(min_text_length=5, max_text_length=10))[0] == [0]


def test_empty_urls_go_first(tmp_path: Path) -> None:
    rows = [{"url": url} for url in ("http://a.test/", "", "  ", None)]
    assert kept(tmp_path / "5", rows, dedup=Dedup(image=False)) == ([0], {"empty_url": 3})


def test_the_first_of_equal_urls_and_images_stays_over_all_batches(tmp_path: Path) -> None:
    rows = [
        {"url": "http://a.test/1", "image_phash": "aa"},
        {"url": "http://a.test/1", "image_phash": "bb"},
        {"url": "http://a.test/2", "image_phash": "aa"},
        {"url": "http://a.test/3", "image_phash": None},
        {"url": "http://a.test/4", "image_phash": None},
        {"url": "http://a.test/5", "image_phash": "bb"},
    ]
    stay, dropped = kept(tmp_path / "6", rows, dedup=Dedup())
    assert stay == [0, 3, 4, 5]
    assert dropped == {"duplicate_url": 1, "duplicate_image": 1}


def test_the_opt_out_list_holds_urls_and_hosts_with_their_subdomains(tmp_path: Path) -> None:
    urls = [
        "http://a.test/1.jpg",
        "http://a.test/2.jpg",
        "https://b.test/1.jpg",
        "https://www.B.test:8080/x",
        "http://notb.test/1.jpg",
        "http://[broken/",
    ]
    stay, dropped = kept(
        tmp_path / "7", [{"url": url} for url in urls], opted_out=["http://a.test/2.jpg", "b.test"]
    )
    assert stay == [0, 4, 5]
    assert dropped == {"opted_out": 3}


def test_rules_are_counted_alone_and_in_order(tmp_path: Path) -> None:
    rows = [
        {"text": "ab", "width": 10, "height": 10, "url": "http://a.test/1"},
        {"text": "abcdef", "width": 10, "height": 10, "url": "http://a.test/1"},
        {"text": "ab", "width": 99, "height": 99, "url": "http://a.test/1"},
        {"text": "abcdef", "width": 99, "height": 99, "url": "http://a.test/1"},
    ]
    filters = Filters(min_size=64, min_text_length=4)
    found = judged(tmp_path, rows, filters, Dedup(image=False))
    counts = {drops.rule: (drops.threshold, drops.alone, drops.dropped) for drops in found.drops}
    assert counts == {
        "empty_url": (None, 0, 0),
        "min_size": (64, 2, 2),
        "min_text_length": (4, 2, 1),
        "duplicate_url": (None, 3, 0),  # the only row that is left has no other before it
    }


def test_every_column_of_coyo_has_a_bound(tmp_path: Path) -> None:
    row = {
        "text": "a text", "width": 300, "height": 200, "word_count": 2, "num_tokens_bert": 4,
        "num_tokens_gpt": 3, "num_faces": 1, "clip_similarity_vitb32": 0.3, "clip_similarity_vitl14": 0.25,
        "nsfw_score_opennsfw2": 0.1, "nsfw_score_gantman": 0.2, "watermark_score": 0.3,
        "aesthetic_score_laion_v2": 5.0,
    }  # fmt: skip
    computed = {"size": 200, "aspect_ratio": 1.5, "text_length": 6}
    for field in fields(Filters):
        side, _, column = field.name.partition("_")
        value = computed.get(column, row.get(column))
        beyond = value + 0.5 if side == "min" else value - 0.5
        assert kept(tmp_path / field.name, [row], Filters(**{field.name: value})) == ([0], {})
        assert kept(tmp_path / f"_{field.name}", [row], Filters(**{field.name: beyond}))[0] == []


def test_images_near_a_held_out_one_are_dropped(tmp_path: Path) -> None:
    held_out = np.array([0xF0F0F0F0F0F0F0F0, 0x123456789ABCDEF0], np.uint64)
    hashes = ["f0f0f0f0f0f0f0f0", "f0f0f0f0f0f0f0f3", "f0f0f0f0f0f0f0f7", None, "923456789abcdef1"]
    rows = [{"image_phash": value} for value in hashes]
    stay, dropped = kept(tmp_path, rows, held_out=held_out, held_out_distance=2)
    assert (stay, dropped) == ([2, 3], {"held_out": 3})


def test_near_duplicates_are_dropped_over_all_batches(tmp_path: Path) -> None:
    hashes = ["ff00ff00ff00ff00", "0000000000000000", "ff00ff00ff00ff01", "8000000000000001", None]
    hashes.append("ff00ff00ff00ff07")
    rows = [{"image_phash": value} for value in hashes]
    near = Dedup(identity=(), image_distance=2)
    # the last row is three bits from the first and two from the third, which falls itself
    assert kept(tmp_path, rows, dedup=near) == ([0, 1, 4], {"near_duplicate_image": 3})


def test_an_image_hash_must_be_hexadecimal(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image_phash must hold hashes.*columns.image_phash"):
        judged(tmp_path, [{"image_phash": "no hash"}], dedup=Dedup())


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["00000000000000ff", "ffffffffffffffff"], [255, 2**64 - 1]),
        (["ff", "00000000000000fe"], [255, 254]),  # not all of sixteen digits
        (["0x000000000000ff", " 0000000000000fe"], [255, 254]),  # sixteen signs that are not all digits
        ([None, "00000000000000ff", ""], [255]),
        ([], []),
    ],
)
def test_image_hashes_are_numbers_however_they_are_written(texts: list, numbers: list[int]) -> None:
    hashes, positions = image_hashes(texts)
    assert hashes.tolist() == numbers and hashes.dtype == np.uint64
    assert positions.tolist() == [i for i, text in enumerate(texts) if text]


def test_a_missing_column_is_named_with_its_rule_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list has no column 'watermark_score'.*'max_watermark_score'.*url"):
        judged(tmp_path, [{}], Filters(max_watermark_score=0.5))
