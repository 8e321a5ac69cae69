"""Parquet tables: deterministic bytes, typed columns, and errors that say what to rerun."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reptok.data import columns

ROWS = [
    {
        "key": f"{i:012d}",
        "caption": f"a photo {i}",
        "source": "alt_text",
        "reason": None if i % 2 else "empty",
        "alt_text": f"photo {i}" if i % 2 else None,
        "generated": [{"text": "a dog", "prompt": "what?", "seed": i, "reason": None}] * (i % 3),
        "model": "a/b",
        "revision": None,
        "decoding": "{}",
    }
    for i in range(2500)
]


def written(rows, schema) -> bytes:
    buffer = io.BytesIO()
    columns.write_table(buffer, rows, schema)
    return buffer.getvalue()


def test_rows_come_back_as_they_went_in():
    data = written(ROWS, columns.CAPTIONS)
    assert columns.read_table(io.BytesIO(data), columns.CAPTIONS).to_pylist() == ROWS
    assert list(columns.iterate_rows(io.BytesIO(data), columns.CAPTIONS)) == ROWS
    assert columns.count_rows(io.BytesIO(data)) == 2500


def test_same_rows_give_same_bytes_however_they_are_handed_over():
    as_columns = {name: [row[name] for row in ROWS] for name in columns.CAPTIONS.names}
    chunked = pa.concat_tables(
        [columns.to_table(ROWS[:7], columns.CAPTIONS), columns.to_table(ROWS[7:], columns.CAPTIONS)]
    )
    reference = written(ROWS, columns.CAPTIONS)
    assert written(as_columns, columns.CAPTIONS) == reference
    assert written(chunked, columns.CAPTIONS) == reference


def test_absent_nullable_columns_are_null_and_extra_columns_are_kept():
    data = written([{"key": "0", "url": "http://a", "clip_similarity": 0.25}], columns.URLS)
    (row,) = columns.read_table(io.BytesIO(data), columns.URLS).to_pylist()
    assert row == {
        "key": "0",
        "url": "http://a",
        "text": None,
        "split": None,
        "label": None,
        "subject": None,
        "clip_similarity": 0.25,
    }


def test_no_rows_still_give_typed_columns():
    table = columns.read_table(io.BytesIO(written([], columns.IMAGES)), columns.IMAGES)
    assert table.num_rows == 0
    assert table.schema.field("jpg").type == pa.binary()


def test_missing_column_error_names_file_column_and_stage(tmp_path):
    path = tmp_path / "images-00003.parquet"
    pq.write_table(pa.table({"key": ["0"], "status": ["success"]}), path)
    with pytest.raises(ValueError, match=r"images-00003\.parquet has no column 'url'.*rerun `download`"):
        columns.read_table(path, columns.IMAGES)


def test_wrong_column_type_is_refused(tmp_path):
    path = tmp_path / "captions-00000.parquet"
    pq.write_table(pa.table({"key": [1], "caption": ["a"], "source": ["b"], "reason": ["c"]}), path)
    with pytest.raises(ValueError, match="column 'key' is int64, expected string; rerun `caption`"):
        columns.read_table(path, columns.CAPTIONS)


def test_truncated_file_is_refused(tmp_path):
    path = tmp_path / "captions-00000.parquet"
    path.write_bytes(written(ROWS, columns.CAPTIONS)[:-100])
    with pytest.raises(ValueError, match="not a readable parquet file"):
        columns.read_table(path, columns.CAPTIONS)


def test_required_column_may_not_be_null():
    with pytest.raises(ValueError, match="'caption' of `captions` may not be empty"):
        columns.to_table([{"key": "0", "source": "alt_text"}], columns.CAPTIONS)


def test_value_of_wrong_type_is_refused():
    with pytest.raises(ValueError, match="column 'label' of `urls` must be int64"):
        columns.to_table([{"key": "0", "url": "u", "label": "cat"}], columns.URLS)
