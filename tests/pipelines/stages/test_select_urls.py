"""select_urls over real files: streaming, mapping, shards, reports and errors."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.photographs.coyo import CoyoConfig
from examples.photographs.photograph_web import PhotographWeb
from pipelines import dry_run
from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import fingerprint
from pipelines.dag.workspace import Workspace
from pipelines.stages.select_urls import SelectUrls, SelectUrlsConfig
from pipelines.urls.listing import UrlList
from pipelines.urls.rules import Filters
from reptok.data import columns


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


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


@pytest.mark.parametrize(
    "text", ["# wishes\nhttp://a.test/1\n\n", "\ufeffhttp://a.test/1\r\n", "\ufeff# x\n a.test/1"]
)
def test_the_opt_out_list_is_read_from_a_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "opt_out.txt").write_bytes(text.encode())  # with a byte order mark, as some editors write
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


def test_a_run_that_was_ended_goes_on_at_the_file_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate("abc"):
        write(tmp_path / f"{name}.parquet", 10, start=8 * number)
    config = SelectUrlsConfig(sources=(str(tmp_path / "*.parquet"),), rows_per_shard=4)
    _, _, undisturbed = select(tmp_path / "undisturbed", config)
    tables, judged, broken = UrlList.tables, [], [True]

    def noted(self: UrlList, file: Mapping[str, str], only: Any) -> Any:
        if only is not None:  # not when it is copied
            judged.append(Path(file["file"]).stem)
            if broken and judged[-1] == "c":
                raise RuntimeError("the power is gone")
        return tables(self, file, only)

    monkeypatch.setattr(UrlList, "tables", noted)
    with pytest.raises(RuntimeError, match="the power is gone"):
        select(tmp_path, config)
    broken.clear()
    _, _, out = select(tmp_path, config)
    assert judged == ["a", "b", "c", "c"]
    assert {n: out.read_bytes(n) for n in out.files()} == {
        n: undisturbed.read_bytes(n) for n in undisturbed.files()
    }


def test_files_may_end_anywhere_within_what_is_written(tmp_path: Path) -> None:
    """Eleven files of one to eleven rows, of which some are dropped whole: keys and rows as of one file."""
    lengths = [3, 1, 11, 2, 1, 1, 7, 4, 1, 9, 5]
    for number, length in enumerate(lengths):
        start = sum(lengths[:number])
        write(tmp_path / f"{number:02d}.parquet", length, start=0 if number in (3, 9) else start)
    for size in (1, 4, 7, 100):
        config = SelectUrlsConfig(sources=(str(tmp_path / "*.parquet"),), rows_per_shard=size)
        stats, rows, _ = select(tmp_path / str(size), config)
        seen = dict.fromkeys(
            (0 if number in (3, 9) else sum(lengths[:number])) + i
            for number, length in enumerate(lengths)
            for i in range(length)
        )
        assert [row["url"] for row in rows] == [f"http://a.test/{i}" for i in seen]
        assert [row["key"] for row in rows] == [f"{i:012d}" for i in range(len(seen))]
        assert stats["shards"] == -(-len(seen) // size)


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
    stage = SelectUrls(SelectUrlsConfig(sources=("artifact:web/coyo.parquet",), filters=filters))
    assert stage.inputs == ("web",)
    out = Workspace(str(tmp_path / "urls"))
    stats = stage.run({"web": artifact}, out)
    expected = [row["expected"] for row in artifact.read_json("faults.json")["rows"].values()]
    for rule in out.read_json("drops.json")["rules"]:
        assert rule["dropped"] == expected.count(f"dropped_{rule['rule']}"), rule
    assert stats["rows_in"] == stats["rows_out"] + sum(
        v for k, v in stats.items() if k.startswith("dropped_")
    )


def test_another_opt_out_list_makes_another_artifact_wherever_it_lies(tmp_path: Path) -> None:
    def config(name: str, text: str) -> SelectUrlsConfig:
        (tmp_path / name).write_text(text)
        return SelectUrls(SelectUrlsConfig(sources=("a.parquet",), opt_out=str(tmp_path / name))).config

    def identity(name: str, text: str) -> str:
        return fingerprint("select_urls", 2, config(name, text), {})

    first = identity("one.txt", "a.test\nb.test\n")
    assert identity("two.txt", "# the same\nb.test\na.test\n") == first
    assert identity("one.txt", "a.test\nb.test\nc.test\n") != first


def test_lists_are_read_from_a_web_server_and_from_other_file_systems(tmp_path: Path) -> None:
    write(tmp_path / "list.parquet", 3)
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/list.parquet"
        _, rows, _ = select(tmp_path / "http", SelectUrlsConfig(sources=(url,)))
        server.shutdown()
    assert [row["url"] for row in rows] == [f"http://a.test/{i}" for i in range(3)]
    with fsspec.open("memory://lists/list.parquet", "wb") as file:
        file.write((tmp_path / "list.parquet").read_bytes())
    _, again, _ = select(tmp_path / "memory", SelectUrlsConfig(sources=("memory://lists/*.parquet",)))
    assert again == rows


def test_a_store_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gs://bucket/a\.parquet.*install gcsfs"):
        select(tmp_path, SelectUrlsConfig(sources=("gs://bucket/a.parquet",)))


def test_the_held_out_set_and_near_duplicates_go(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", 40)  # hashes 0 to 39
    (tmp_path / "held_out.txt").write_text("0000000000000007\n")
    config = SelectUrlsConfig(
        sources=(str(source),), held_out=str(tmp_path / "held_out.txt"), held_out_distance=0, dedup_distance=1
    )
    stats, rows, out = select(tmp_path, config)
    kept = [int(row["image_phash"], 16) for row in rows]
    others = [n for n in range(40) if n != 7]
    expected = [n for n in others if not any((n ^ m).bit_count() <= 1 for m in others if m < n)]
    assert kept == expected
    assert stats["dropped_held_out"] == 1
    page = out.read_bytes("drops.html").decode()
    assert "near_duplicate_image" in page and f"<h1>{len(expected)} of 40 rows stay" in page


def test_the_report_escapes_what_a_list_says(tmp_path: Path) -> None:
    source = write(tmp_path / "<b>.parquet", 3)
    _, _, out = select(tmp_path, SelectUrlsConfig(sources=(str(source),)))
    assert "&lt;b&gt;.parquet" in out.read_bytes("drops.html").decode()


def test_a_dry_run_says_what_the_stage_then_does_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.parquet", 30, width=300, height=200)
    write(tmp_path / "b.parquet", 10, start=25, width=100, height=200)
    before = sorted(tmp_path.iterdir())
    asked = ["experiment=t2i_coyo", f"data.select_urls.sources=[{tmp_path}/*.parquet]"]
    scores = ("min_clip_similarity_vitb32", "min_aesthetic_score_laion_v2", "max_watermark_score")
    unsafe = ("max_nsfw_score_opennsfw2", "max_nsfw_score_gantman")
    asked += [f"data.select_urls.filters.{name}=null" for name in (*scores, *unsafe)]
    asked += ["data.select_urls.filters.min_size=150", "data.select_urls.dedup_distance=0"]
    assert dry_run.main(asked) == 0
    said = capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert lines["min_size"] == ["min_size", "150", "10", "(25.0%)", "10", "(25.0%)"]
    assert lines["duplicate_url"] == ["duplicate_url", "5", "(12.5%)", "0", "(0.0%)"]
    assert "30 of 40 rows would stay" in said
    assert dry_run.main([*asked, "rows=30"]) == 0
    assert "30 of 30 rows" in capsys.readouterr().out
    assert dry_run.main(["data.select_urls.sources=[/no/such.parquet]"]) == 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    """The process is measured at two sizes; a Python set of digests would take 100 bytes a row."""
    program = Path(__file__).with_name("scan_memory.py")
    peaks = {}
    for rows in (1_000_000, 4_000_000):
        command = [sys.executable, str(program), str(tmp_path / str(rows)), str(rows)]
        peaks[rows] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    growth = (peaks[4_000_000]["bytes"] - peaks[1_000_000]["bytes"]) / 3_000_000
    print(peaks, f"{growth:.1f} bytes of memory per row")
    assert growth < 8
