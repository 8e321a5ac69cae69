"""select_urls over real files: streaming, mapping, shards, reports and errors."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from pipelines.demo.coyo import CoyoConfig
from pipelines.ops.url_rules import Filters
from pipelines.stages.photograph_web import PhotographWeb
from pipelines.stages.select_urls import SelectUrls, SelectUrlsConfig
from reptok.data import columns


def select(
    folder: Path, config: SelectUrlsConfig
) -> tuple[Mapping[str, float], list[dict[str, Any]], Workspace]:
    out = Workspace(str(folder / "urls"))
    stats = SelectUrls(config).run({}, out)
    rows: list[dict[str, Any]] = []
    for name in out.files():
        if name.endswith(".parquet"):
            table = columns.read_table(io.BytesIO(out.read_bytes(name)), columns.URLS, name)
            rows += table.to_pylist()
    return stats, rows, out


def write(path: Path, rows: int, start: int = 0, **extra: Any) -> Path:
    numbers = range(start, start + rows)
    pq.write_table(
        pa.table(
            {
                "url": [f"http://a.test/{i}" for i in numbers],
                "text": [f"picture {i}" for i in numbers],
                "image_phash": [f"{i:016x}" for i in numbers],
                "score": [i / 10 for i in numbers],
                **{name: [value] * rows for name, value in extra.items()},
            }
        ),
        path,
    )
    return path


def test_shards_have_ascending_unique_keys_and_keep_all_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 7)
    write(tmp_path / "b.parquet", 6, start=5)
    config = SelectUrlsConfig(sources=(str(tmp_path / "*.parquet"),), rows_per_shard=4)
    stats, rows, out = select(tmp_path, config)
    assert [row["key"] for row in rows] == [f"{i:012d}" for i in range(11)]
    assert [row["url"] for row in rows] == [f"http://a.test/{i}" for i in range(11)]
    assert rows[3]["score"] == 0.3
    assert out.files() == ["drops.html", "drops.json", *(f"urls-{i:05d}.parquet" for i in range(3))]
    assert stats == {
        "rows_in": 13,
        "rows_out": 11,
        "shards": 3,
        "dropped_empty_url": 0,
        "dropped_duplicate_url": 2,
        "dropped_duplicate_image": 0,
    }
    report = out.read_json("drops.json")
    assert report["rules"][1] == {"rule": "duplicate_url", "threshold": None, "alone": 2, "dropped": 2}
    assert report["sources"] == [{"file": "a.parquet", "rows": 7}, {"file": "b.parquet", "rows": 6}]


def test_csv_columns_are_mapped_and_a_folder_is_searched(tmp_path: Path) -> None:
    source = tmp_path / "lists"
    source.mkdir()
    (source / "list.csv").write_text("link,alt,url\nhttp://a.test/1,one,old\nhttp://a.test/2,two,old\n")
    (source / "notes.md").write_text("not a list")
    mapping = {"url": "link", "text": "alt"}
    config = SelectUrlsConfig(sources=(f"file://{source}",), columns=mapping, dedup_image=False)
    _, rows, _ = select(tmp_path, config)
    assert [(row["url"], row["text"], row["url_original"]) for row in rows] == [
        ("http://a.test/1", "one", "old"),
        ("http://a.test/2", "two", "old"),
    ]


def test_the_opt_out_list_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "opt_out.txt").write_text("# wishes\nhttp://a.test/1\n\n")
    source = write(tmp_path / "a.parquet", 3)
    stats, rows, _ = select(
        tmp_path, SelectUrlsConfig(sources=(str(source),), opt_out=str(tmp_path / "opt_out.txt"))
    )
    assert [row["url"] for row in rows] == ["http://a.test/0", "http://a.test/2"]
    assert stats["dropped_opted_out"] == 1


def test_running_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", 10)
    config = SelectUrlsConfig(sources=(str(source),), rows_per_shard=4)
    _, _, out = select(tmp_path, config)
    first = {name: out.read_bytes(name) for name in out.files()}
    _, _, out = select(tmp_path, config)
    assert {name: out.read_bytes(name) for name in out.files()} == first


def test_errors_name_the_column_the_file_and_the_cure(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", 3)

    def error(**config: Any) -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            select(tmp_path, SelectUrlsConfig(**{"sources": (str(source),), **config}))
        return str(caught.value)

    message = error(columns={"url": "link"})
    assert "a.parquet" in message and "'link'" in message and "url, text, image_phash, score" in message
    message = error(filters=Filters(max_watermark_score=0.5))
    assert "a.parquet" in message and "'watermark_score'" in message and "score" in message
    assert "nothing.parquet" in error(sources=(str(tmp_path / "nothing.parquet"),))
    assert "no URL is left" in error(filters=Filters(min_text_length=100))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no PAR1")
    assert "broken.parquet is not readable" in error(sources=(str(tmp_path / "broken.parquet"),))


def test_the_demos_web_loses_exactly_the_rows_that_it_says(tmp_path: Path) -> None:
    web = Workspace(str(tmp_path / "web"))
    PhotographWeb(CoyoConfig(images=54, fault_fraction=0.5)).run({}, web)
    web.publish({})
    artifact = Artifact("web", "", web.url)
    filters = Filters(
        min_size=64,
        min_text_length=5,
        min_clip_similarity_vitb32=0.2,
        max_watermark_score=0.5,
        max_nsfw_score_opennsfw2=0.5,
    )
    stage = SelectUrls(SelectUrlsConfig(filters=filters))
    assert stage.inputs == ("web",)
    out = Workspace(str(tmp_path / "urls"))
    stats = stage.run({"web": artifact}, out)
    expected = [row["expected"] for row in artifact.read_json("faults.json")["rows"].values()]
    for rule in out.read_json("drops.json")["rules"]:
        assert rule["dropped"] == expected.count(f"dropped_{rule['rule']}"), rule
    assert stats["rows_in"] == stats["rows_out"] + sum(
        v for k, v in stats.items() if k.startswith("dropped_")
    )
