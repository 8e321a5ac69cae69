"""The same picture under an earlier key of a table: known hashes, and who is kept."""

from pipelines.filters.duplicates import EXACT, NEAR, SCORE, Duplicates


def rows(*hashes):
    """(file, perceptual hash) of pictures whose keys are their numbers."""
    return [
        {"key": f"{number}", "sha256": file.ljust(64, "0"), "phash": f"{phash:016x}"}
        for number, (file, phash) in enumerate(hashes)
    ]


def found(pictures, distance=2):
    findings = Duplicates(distance=distance).fresh().judge_all(pictures)
    return [(finding.reason, finding.detail) for finding in findings]


KEPT = (None, None)


def test_the_same_file_comes_once_and_the_earlier_key_is_kept():
    assert found(rows(("a", 0), ("b", 0xFF), ("a", 0))) == [KEPT, KEPT, (EXACT, "0")]


def test_nearly_the_same_is_a_question_of_bits():
    assert found(rows(("a", 0b000), ("b", 0b011))) == [KEPT, (NEAR, "0")]
    assert found(rows(("a", 0b000), ("b", 0b111))) == [KEPT, KEPT]
    assert found(rows(("a", 0b000), ("b", 0b111)), distance=3) == [KEPT, (NEAR, "0")]
    assert found(rows(("a", 0b000), ("b", 0b000)), distance=None) == [KEPT, KEPT]


def test_a_picture_that_is_not_kept_is_nobodys_twin():
    """0 - 1 - 2 are a chain: the last is near the dropped one alone."""
    assert found(rows(("a", 0b0000), ("b", 0b0011), ("c", 0b1111))) == [KEPT, (NEAR, "0"), KEPT]


def test_the_score_is_the_distance_to_the_nearest_kept_picture():
    findings = Duplicates(distance=0).fresh().judge_all(rows(("a", 0), ("b", 0xFFFF), ("c", 0xFF)))
    assert [finding.scores for finding in findings] == [{}, {SCORE: 16}, {SCORE: 8}]


def test_more_pictures_than_it_had_room_for():
    pictures = rows(*((f"{number:x}", number << 16) for number in range(3000)))
    again = [{**pictures[2500], "key": "again"}, {**pictures[0], "key": "first"}]
    assert found([*pictures, *again], distance=None)[-2:] == [(EXACT, "2500"), (EXACT, "0")]


def test_every_table_begins_afresh():
    filter_, pictures = Duplicates(), rows(("a", 0))
    assert [filter_.fresh().judge_all(pictures)[0].reason for _ in range(2)] == [None, None]


def test_without_hashes_nothing_is_said():
    assert found([{"key": "0", "sha256": None, "phash": None}] * 2) == [KEPT, KEPT]
