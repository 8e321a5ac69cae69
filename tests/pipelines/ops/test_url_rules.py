"""The rules that select rows: what they keep, what they count, what they demand."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.ops.url_rules import Filters, check_columns, make_rules


def kept(
    rows: list[dict], filters: Filters | None = None, **options: object
) -> tuple[list[int], dict[str, int]]:
    """Indices of the rows that stay, fed two at a time, and what each rule dropped."""
    options = {"dedup_url": False, "dedup_image": False, **options}
    rules = make_rules(filters or Filters(), **options)  # type: ignore[arg-type]
    table = pa.Table.from_pylist(
        [{"url": f"http://a.test/{i}", **row, "index": i} for i, row in enumerate(rows)]
    )
    stay: list[int] = []
    for start in range(0, table.num_rows, 2):
        part = table.slice(start, 2)
        for rule in rules:
            part = rule(part)
        stay += part["index"].to_pylist()
    return stay, {rule.name: rule.dropped for rule in rules if rule.dropped}


def test_bounds_are_inclusive_and_a_missing_value_fails() -> None:
    rows = [{"watermark_score": score} for score in (0.1, 0.5, 0.50001, None)]
    assert kept(rows, Filters(max_watermark_score=0.5)) == ([0, 1], {"max_watermark_score": 2})
    rows = [{"clip_similarity_vitb32": score} for score in (0.3, 0.2999, None)]
    assert kept(rows, Filters(min_clip_similarity_vitb32=0.3)) == ([0], {"min_clip_similarity_vitb32": 2})


def test_size_is_the_shorter_side_and_aspect_the_longer_by_the_shorter() -> None:
    sizes = [(64, 64), (63, 200), (200, 63), (64, 192), (193, 64), (None, 64), (0, 0)]
    rows = [{"width": width, "height": height} for width, height in sizes]
    stay, dropped = kept(rows, Filters(min_size=64, max_aspect_ratio=3.0))
    assert stay == [0, 3]
    assert dropped == {"min_size": 4, "max_aspect_ratio": 1}


def test_text_length_counts_characters_of_the_text_itself() -> None:
    rows = [{"text": text, "text_length": 99} for text in ("café!", "  abc   ", "", None, "a" * 11)]
    assert kept(rows, Filters(min_text_length=5, max_text_length=10))[0] == [0]


def test_empty_urls_go_first() -> None:
    rows = [{"url": url} for url in ("http://a.test/", "", "  ", None)]
    assert kept(rows, dedup_url=True) == ([0], {"empty_url": 3})


def test_the_first_of_equal_urls_and_images_stays_over_all_batches() -> None:
    rows = [
        {"url": "http://a.test/1", "image_phash": "aa"},
        {"url": "http://a.test/1", "image_phash": "bb"},
        {"url": "http://a.test/2", "image_phash": "aa"},
        {"url": "http://a.test/3", "image_phash": None},
        {"url": "http://a.test/4", "image_phash": None},
        {"url": "http://a.test/5", "image_phash": "bb"},
    ]
    stay, dropped = kept(rows, dedup_url=True, dedup_image=True)
    assert stay == [0, 3, 4, 5]
    assert dropped == {"duplicate_url": 1, "duplicate_image": 1}


def test_the_opt_out_list_holds_urls_and_hosts_with_their_subdomains() -> None:
    urls = [
        "http://a.test/1.jpg",
        "http://a.test/2.jpg",
        "https://b.test/1.jpg",
        "https://www.B.test:8080/x",
        "http://notb.test/1.jpg",
        "http://[broken/",
    ]
    stay, dropped = kept([{"url": url} for url in urls], opted_out=["http://a.test/2.jpg", "b.test"])
    assert stay == [0, 4, 5]
    assert dropped == {"opted_out": 3}


def test_a_missing_column_is_named_with_its_rule_and_the_file() -> None:
    rules = make_rules(Filters(max_watermark_score=0.5))
    with pytest.raises(
        ValueError, match=r"list.csv has no column 'watermark_score'.*'max_watermark_score'.*url, text"
    ):
        check_columns(rules, ["url", "text"], "list.csv")
