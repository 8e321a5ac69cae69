"""select_urls over real files: streaming, mapping, shards, reports and errors."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples.photographs.coyo import CoyoConfig
from examples.photographs.photograph_web import PhotographWeb
from pipelines import dry_run
from pipelines.dag import tally
from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import fingerprint
from pipelines.dag.shards import Shard
from pipelines.dag.storage import LocalFolder
from pipelines.dag.workspace import Workspace
from pipelines.stages.select_urls import SelectUrls, SelectUrlsConfig
from pipelines.urls import pieces
from pipelines.urls import write as urls_write
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


def by_number(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of `write` that the rows have, sorted."""
    return sorted(int(row["url"].rpartition("/")[2]) for row in rows)


def test_shards_are_of_one_split_and_hold_ascending_ranges_of_keys(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 70)
    write(tmp_path / "b.parquet", 60, start=50)
    config = SelectUrlsConfig(sources=(str(tmp_path / "*.parquet"),), rows_per_shard=20, val_fraction=0.3)
    stats, rows, out = select(tmp_path, config)
    assert by_number(rows) == list(range(110))
    (row,) = (row for row in rows if row["url"] == "http://a.test/3")
    assert row["key"] == hashlib.sha256(b"a.test/3").hexdigest()[:24] and row["score"] == 0.3
    number = {split: sum(row["split"] == split for row in rows) for split in ("train", "val")}
    assert sum(number.values()) == 110 and 15 < number["val"] < 50
    names = [f"urls-{s}-{i:05d}.parquet" for s in ("train", "val") for i in range(-(-number[s] // 20))]
    assert out.files() == ["drops.html", "drops.json", *names]
    for split in number:
        keys = [row["key"] for row in rows if row["split"] == split]
        assert keys == sorted(keys)
    for name in names:
        table = columns.read_table(io.BytesIO(out.read_bytes(name)), columns.URLS, name)
        assert set(table.column("split").to_pylist()) == {name.split("-")[1]}
    assert stats == {
        "rows_in": 130,
        "rows_out": 110,
        "shards": len(names),
        "dropped_empty_url": 0,
        "dropped_duplicate_url": 20,
        "dropped_duplicate_image": 0,
    }
    report = out.read_json("drops.json")
    assert report["rules"][1] == {"rule": "duplicate_url", "threshold": None, "alone": 20, "dropped": 20}
    assert report["sources"] == [{"file": "a.parquet", "rows": 70}, {"file": "b.parquet", "rows": 60}]


def test_a_rows_key_split_and_place_do_not_depend_on_the_order_of_the_list(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).permutation(40)
    for name, order in (("up", range(40)), ("mixed", numbers)):
        for part, some in enumerate(np.array_split(np.asarray(order), 3)):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            urls = [f"http://a.test/{i}" for i in some]
            table = pa.table({"url": urls, "text": ["t"] * len(urls)})
            pq.write_table(table, folder / f"{part}.parquet")
    found = []
    for name in ("up", "mixed"):
        config = SelectUrlsConfig(sources=(str(tmp_path / name),), rows_per_shard=7, val_fraction=0.3,
                                  dedup_image=False)  # fmt: skip
        _, _, out = select(tmp_path / f"of-{name}", config)
        found.append({n: out.read_bytes(n) for n in out.files() if n.startswith("urls-")})
    assert found[0] == found[1] and len(found[0]) > 5


def test_spellings_of_a_url_are_one_sample_and_other_texts_another_if_asked(tmp_path: Path) -> None:
    rows = [
        ("http://a.test/x", "one"), ("https://A.test:443/x#top", "two"), ("http://a.test/X", "one"),
        ("http://a.test/x", "one"),
    ]  # fmt: skip
    pq.write_table(
        pa.table({"url": [u for u, _ in rows], "text": [t for _, t in rows]}), tmp_path / "a.parquet"
    )
    config = SelectUrlsConfig(sources=(str(tmp_path / "a.parquet"),), dedup_image=False)
    _, found, _ = select(tmp_path / "1", config)
    assert {(row["url"], row["text"]) for row in found} == {rows[0], rows[2]}
    stats, found, _ = select(tmp_path / "2", replace(config, dedup_url=False))
    assert {(row["url"], row["text"]) for row in found} == set(rows[:3])
    assert len({row["key"] for row in found}) == 3 and stats["dropped_duplicate_row"] == 1


def test_a_later_part_loses_duplicates_and_adds_files_without_changing_one(tmp_path: Path) -> None:
    write(tmp_path / "first.parquet", 50)
    write(tmp_path / "second.parquet", 40, start=30)
    settings: dict[str, Any] = {"rows_per_shard": 8, "val_fraction": 0.3}
    config = SelectUrlsConfig(sources=(str(tmp_path / "first.parquet"),), **settings)
    _, before, out = select(tmp_path / "1", config)
    old = {name: out.read_bytes(name) for name in out.files() if name.startswith("urls-")}
    grown = replace(config, parts={"second": (str(tmp_path / "second.parquet"),)})
    stats, after, out = select(tmp_path / "2", grown)
    new = {name: out.read_bytes(name) for name in out.files() if name.startswith("urls-")}
    assert {name: new[name] for name in old} == old and len(new) > len(old)
    assert set(by_number(before)) < set(by_number(after)) and stats["dropped_duplicate_url"] == 20
    assert len({row["key"] for row in after}) == len(after)


def test_opting_out_moves_no_other_row(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 60)
    (tmp_path / "out.txt").write_text("http://a.test/0\nhttp://a.test/33\n")
    config = SelectUrlsConfig(sources=(str(tmp_path / "a.parquet"),), rows_per_shard=8, val_fraction=0.3)
    _, before, out = select(tmp_path / "1", config)
    old = {name: out.read_bytes(name) for name in out.files() if name.startswith("urls-")}
    gone = [row for row in before if row["url"] in ("http://a.test/0", "http://a.test/33")]
    stats, after, out = select(tmp_path / "2", replace(config, opt_out=str(tmp_path / "out.txt")))
    assert [row for row in before if row not in gone] == after and stats["dropped_opted_out"] == len(
        gone
    ) == 2
    new = {name: out.read_bytes(name) for name in out.files() if name.startswith("urls-")}
    assert new.keys() == old.keys() and sum(new[name] != old[name] for name in old) in (1, 2)


def test_who_opted_out_still_stands_for_the_same_picture_elsewhere(tmp_path: Path) -> None:
    """Opting out comes after deduplication: the twin of a picture that goes does not come in its place."""
    urls = ["http://a.test/1", "http://b.test/copy"]
    table = pa.table({"url": urls, "text": ["t", "t"], "image_phash": ["ff", "ff"]})
    other = pa.table({"url": ["http://c.test/"], "text": ["t"], "image_phash": ["0f"]})
    pq.write_table(pa.concat_tables([table, other]), tmp_path / "a.parquet")
    (tmp_path / "out.txt").write_text("a.test\n")
    config = SelectUrlsConfig(sources=(str(tmp_path / "a.parquet"),), opt_out=str(tmp_path / "out.txt"))
    assert [row["url"] for row in select(tmp_path, config)[1]] == ["http://c.test/"]


def test_an_unknown_split_of_the_list_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.parquet", 3, split="test")
    with pytest.raises(ValueError, match=r"a\.parquet has split 'test'; a split is one of train, val"):
        select(tmp_path, SelectUrlsConfig(sources=(str(source),)))
    source = write(tmp_path / "b.parquet", 3, split="val")
    _, rows, _ = select(tmp_path / "b", SelectUrlsConfig(sources=(str(source),)))
    assert {row["split"] for row in rows} == {"val"}


def test_csv_columns_are_mapped_and_a_folder_is_searched(tmp_path: Path) -> None:
    source = tmp_path / "lists"
    source.mkdir()
    (source / "list.csv").write_text("link,alt,url\nhttp://a.test/1,one,old\nhttp://a.test/2,two,old\n")
    (source / "notes.md").write_text("not a list")
    mapping = {"url": "link", "text": "alt"}
    config = SelectUrlsConfig(sources=(f"file://{source}",), columns=mapping, dedup_image=False)
    _, rows, _ = select(tmp_path, config)
    assert sorted((row["url"], row["text"], row["url_original"]) for row in rows) == [
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
    assert by_number(rows) == [0, 2]
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


def test_a_piece_is_opened_by_the_shards_of_its_own_range_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six files of 200 rows, sorted 40 at a time: thirty shards of the result, and as many ranges of keys."""
    for number in range(6):
        write(tmp_path / f"{number}.parquet", 200, start=200 * number)
    config = SelectUrlsConfig(
        sources=(str(tmp_path / "*.parquet"),), rows_per_shard=20, val_fraction=0.1, dedup_image=False
    )
    _, rows, at_once = select(tmp_path / "at once", config)
    for module in (pieces, urls_write):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 40)
    opened, plans, open_file = Counter[str](), {}, LocalFolder.open

    def counted(folder: LocalFolder, name: str) -> Any:
        if "/sorted" in folder.url and name.endswith(".parquet"):
            opened[name] += 1
        return open_file(folder, name)

    def noted(shards: Sequence[Shard], out: Workspace) -> Any:
        plans[out.url] = [len(json.dumps(shard.payload)) for shard in shards]
        return write_plan(shards, out)

    write_plan = tally.write_plan
    monkeypatch.setattr(LocalFolder, "open", counted)
    monkeypatch.setattr(tally, "write_plan", noted)
    _, again, out = select(tmp_path, config)
    assert again == rows and len(rows) == 1200
    assert {n: out.read_bytes(n) for n in out.files()} == {n: at_once.read_bytes(n) for n in at_once.files()}
    assert len(opened) > 100, "a piece has some seven rows"
    assert sum(opened.values()) <= 2.5 * len(opened)
    assert len(plans[out.url]) >= 28 and max(plans[out.url]) < 120, "no list of pieces in each of them"


def test_files_may_end_anywhere_within_what_is_written(tmp_path: Path) -> None:
    """Eleven files of one to eleven rows, of which some are dropped whole: rows as of one file."""
    lengths = [3, 1, 11, 2, 1, 1, 7, 4, 1, 9, 5]
    for number, length in enumerate(lengths):
        start = sum(lengths[:number])
        write(tmp_path / f"{number:02d}.parquet", length, start=0 if number in (3, 9) else start)
    for size in (1, 4, 7, 100):
        config = SelectUrlsConfig(sources=(str(tmp_path / "*.parquet"),), rows_per_shard=size)
        _, rows, _ = select(tmp_path / str(size), config)
        seen = dict.fromkeys(
            (0 if number in (3, 9) else sum(lengths[:number])) + i
            for number, length in enumerate(lengths)
            for i in range(length)
        )
        assert by_number(rows) == sorted(seen)


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
    assert by_number(rows) == [0, 1, 2]
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
    kept = by_number(rows)
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
