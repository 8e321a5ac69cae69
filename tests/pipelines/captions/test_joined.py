"""Captions of another table are found by name, whatever their number and their hashes."""

import io

import pytest

from pipelines.captions import joined
from pipelines.captions.joined import NAMES, TEXTS, JoinedTexts, write_texts


def written(folder, rows):
    with (folder / TEXTS).open("wb") as texts, (folder / NAMES).open("wb") as names:
        counts = write_texts(rows, texts, names)
    return JoinedTexts(folder), counts


def test_every_name_finds_its_own_caption(tmp_path, monkeypatch):
    monkeypatch.setattr(joined, "BATCH", 7)
    found, counts = written(tmp_path, [(f"n{i}", f"caption {i}") for i in range(100)])
    assert counts == (100, 0) and len(found) == 100
    assert [found.get((f"n{i}",)) for i in range(100)] == [f"caption {i}" for i in range(100)]
    assert found.get(("n100",)) is None and found.get(()) is None


def test_the_first_name_that_is_known_counts(tmp_path):
    found, _ = written(tmp_path, [("a/b", "by the stem"), ("a/c.jpg", "by the path"), ("a/c", "not this")])
    assert found.get(("a/b.jpg", "a/b")) == "by the stem"
    assert found.get(("a/c.jpg", "a/c")) == "by the path"


def test_rows_without_name_or_caption_are_counted_and_of_two_the_first_counts(tmp_path):
    rows = [
        (None, "x"),
        ("a", None),
        ("b", " "),
        (7, "a number's"),
        ("7", "a later one"),
        ("c", "two\nlines"),
    ]
    found, counts = written(tmp_path, rows)
    assert counts == (3, 3)
    assert found.get(("7",)) == "a number's" and found.get(("c",)) == "two lines"


def test_names_of_one_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(joined, "_hash", lambda name: 5)
    found, _ = written(tmp_path, [("a", "A"), ("b", "B")])
    assert (found.get(("b",)), found.get(("a",)), found.get(("c",))) == ("B", "A", None)


def test_nothing_is_an_index_of_nothing(tmp_path):
    found, counts = written(tmp_path, [])
    assert counts == (0, 0) and found.get(("a",)) is None


@pytest.mark.parametrize("text", [3, {"a": 1}, b"bytes"])
def test_what_is_no_text_is_no_caption(text):
    assert write_texts([("a", text)], io.BytesIO(), io.BytesIO()) == (0, 1)
