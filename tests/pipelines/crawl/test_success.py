"""The success rate that a person sees while a download runs."""

from __future__ import annotations

from pipelines.crawl.success import SuccessRate


def follow(*shards: tuple[int, int], seconds: float = 0.0) -> list[str]:
    said: list[str] = []
    clock = [0.0]
    rate = SuccessRate(said.append, lambda: clock[0])
    for rows, images in shards:
        clock[0] += seconds
        rate.add(
            {"rows_in": rows, "images_ok": images, "failed_dns_failed": rows - images, "failed_timeout": 0}
        )
    return said


def test_a_collapse_is_said_once_with_its_reasons() -> None:
    said = follow(*[(1000, 700)] * 5, *[(1000, 10)] * 5)
    assert len(said) == 1
    assert said[0].startswith("warning: only ") and "70.0% before (dns_failed " in said[0]
    assert "data.download.reuse=" in said[0]


def test_a_second_collapse_after_a_recovery_is_said_again() -> None:
    good, bad = [(1000, 700)] * 6, [(1000, 0)] * 3
    assert len(follow(*good, *bad, *good, *bad)) == 2


def test_a_list_that_was_never_good_and_small_shards_raise_no_alarm() -> None:
    assert follow(*[(1000, 50)] * 10) == []
    assert follow((1000, 900), (100, 0)) == []


def test_the_rate_is_said_now_and_then() -> None:
    said = follow(*[(1000, 500)] * 4, seconds=10.0)
    assert said == [
        "50.0% of 2,000 URLs gave an image, lately 50.0%",
        "50.0% of 4,000 URLs gave an image, lately 50.0%",
    ]
