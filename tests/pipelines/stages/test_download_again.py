"""A later download asks only for what may be better; the engine img2dataset fills the same columns."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from pipelines.crawl.img2dataset_engine import UNGUARDED, reason_of
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.reasons import is_reason
from pipelines.crawl.resize import ResizeConfig
from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import plain
from pipelines.dag.workspace import Workspace
from pipelines.stages.download import Download, DownloadConfig
from reptok.data import columns

RESIZE = ResizeConfig(image_size=32, min_size=32)


def jpeg(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (96, 80), (red, 90, 30)).save(file, "JPEG", quality=95)
    return file.getvalue()


class World:
    """A list of URLs in shards of four, and a place for what is made of it."""

    def __init__(self, root: Path, web: ModuleType) -> None:
        self.root, self.web = root, web
        fetch = FetchConfig(
            allow_hosts=(web.ADDRESS,), host_rate=0, second_pass_seconds=0, retries=0, contact="a test"
        )
        self.config = {"fetch": fetch, "resize": RESIZE}

    def urls(self, name: str, urls: list[str]) -> Artifact:
        out = Workspace(str(self.root / "urls" / name), name)
        for number, start in enumerate(range(0, len(urls), 4)):
            part = urls[start : start + 4]
            keys = [f"{start + row:012d}" for row in range(len(part))]
            with out.create(f"urls-{number:05d}.parquet") as file:
                columns.write_table(file, {"key": keys, "url": part}, columns.URLS)
        out.publish({})
        return Artifact("urls", name, out.url)

    def run(self, name: str, urls: Artifact, **config: Any) -> tuple[list[dict[str, Any]], dict[str, float]]:
        stage = Download(DownloadConfig(**{**self.config, **config}))
        out = Workspace(str(self.root / "images" / name), name)
        stats = dict(stage.run({"urls": urls}, out))
        out.publish({"config": plain(stage.config)})
        rows: list[dict[str, Any]] = []
        for file in out.files():
            if file.startswith("images-"):
                rows += columns.read_table(io.BytesIO(out.read_bytes(file)), columns.IMAGES).to_pylist()
        return rows, stats


@pytest.fixture
def world(tmp_path: Path, in_process: None, hostile_web: ModuleType) -> World:
    return World(tmp_path, hostile_web)


def test_a_later_run_asks_only_for_what_may_heal_and_what_is_new(world: World) -> None:
    answer = world.web.answer
    pages = {f"/{number}": answer(200, jpeg(20 * number)) for number in range(8)}
    pages |= {"/1": answer(503), "/2": answer(404), "/6": answer(200, b"no image")}
    with world.web.HostileWeb(pages) as web:
        first = world.urls("first", [web.url(f"/{number}") for number in range(8)])
        before, stats = world.run("aaaa", first)
        assert stats["images_ok"] == 5 and "rows_reused" not in stats
        web.pages["/1"] = answer(200, jpeg(200))
        web.pages["/2"] = answer(200, jpeg(200))
        web.pages["/new"] = answer(200, jpeg(100))
        web.asked = Counter()
        # the list has changed: /0 is gone (its owner opted out), /new came, the order is another
        second = world.urls("second", [web.url(f"/{number}") for number in ("new", 7, 6, 5, 4, 3, 2, 1)])
        after, stats = world.run("bbbb", second, reuse="aaaa")
    assert web.asked == {"/robots.txt": 1, "/1": 1, "/new": 1}  # rules are known from shard to shard
    assert stats["rows_reused"] == 6 and stats["images_ok"] == 6
    old = {row["url"]: row for row in before}
    for row in after:
        if row["url"] in old and not row["url"].endswith("/1"):
            assert {**row, "key": ""} == {**old[row["url"]], "key": ""}
    fates = {row["url"].rpartition("/")[2]: row["reason"] or row["status"] for row in after}
    assert fates["1"] == fates["new"] == "success"
    assert (fates["2"], fates["6"]) == ("http_404", "not_an_image")


def test_reusing_needs_published_images_of_the_same_settings(world: World) -> None:
    with world.web.HostileWeb({"/0": world.web.answer(200, jpeg(9))}) as web:
        urls = world.urls("first", [web.url("/0")])
        world.run("aaaa", urls)
        with pytest.raises(ValueError, match=r"download.reuse=bbbb: .*bbbb holds no published images"):
            world.run("cccc", urls, reuse="bbbb")
        larger = ResizeConfig(image_size=64, min_size=32)
        with pytest.raises(ValueError, match="made with another resize"):
            world.run("cccc", urls, reuse="aaaa", resize=larger)


def test_how_long_requests_took_stands_in_the_done_record_alone(world: World) -> None:
    with world.web.HostileWeb({"/0": world.web.answer(200, jpeg(9))}) as web:
        world.run("aaaa", world.urls("first", [web.url("/0"), "file:///etc/hostname"]))
    place = world.root / "images" / "aaaa"
    record = json.loads((place / "_scratch/shards/done/000000.json").read_text())
    (found,) = record["summaries"].values()
    refused, asked = sorted(found, key=float)
    assert found[refused] == found[asked] == 1 and float(asked) > 0 == float(refused)
    assert not [p for p in place.rglob("*") if p.is_file() and "times" in str(p)]


def test_img2dataset_fills_the_same_columns_and_says_what_it_does_not_guard(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = world.web.answer
    pages = {
        "/good": answer(200, jpeg(150)),
        "/gone": answer(404),
        "/html": answer(200, b"<html>"),
        "/noai": answer(200, jpeg(1), "X-Robots-Tag: noai"),
        "/small": answer(200, small()),
    }
    with world.web.HostileWeb(pages) as web:
        urls = world.urls("first", [web.url(path) for path in pages])
        theirs, stats = world.run("aaaa", urls, engine="img2dataset")
        os.write(1, b"still here\n")
        ours, _ = world.run("bbbb", urls)
    assert "/robots.txt" in web.asked  # by ours alone
    assert [row["reason"] for row in theirs] == [None, "http_404", "undecodable", "robots_tag", "too_small"]
    statuses = ["success", "failed_to_download", "failed_to_resize", "failed_to_download", "failed_to_resize"]
    assert [row["status"] for row in theirs] == [row["status"] for row in ours] == statuses
    assert stats["images_ok"] == 1
    assert theirs[0].keys() == ours[0].keys()
    same = ("key", "url", "width", "height", "original_width", "original_height", "phash")
    assert [theirs[0][name] for name in same] == [ours[0][name] for name in same]
    assert UNGUARDED in capsys.readouterr().out


def small() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "JPEG")
    return file.getvalue()


def test_the_open_web_is_asked_only_with_a_contact(world: World) -> None:
    urls = world.urls("first", ["http://a.invalid/1.jpg"])
    with pytest.raises(ValueError, match=r"data\.download\.fetch\.contact=mailto"):
        world.run("aaaa", urls, fetch=FetchConfig())


def test_the_demos_web_is_not_for_img2dataset() -> None:
    with pytest.raises(ValueError, match="cannot reach a web that is served here"):
        DownloadConfig(engine="img2dataset", serve="photographs")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("HTTP Error 404: Not Found", "http_404"),
        ("HTTP Error 302: The HTTP server returned a redirect error that would lead to an infinite loop",
         "too_many_redirects"),
        ("<urlopen error [Errno -2] Name or service not known>", "dns_failed"),
        ("<urlopen error [Errno 111] Connection refused>", "connect_failed"),
        ("<urlopen error timed out>", "timeout"),
        ("Use of image disallowed by X-Robots-Tag directive", "robots_tag"),
        ("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed>", "tls_failed"),
        ("Remote end closed connection without response", "connection_reset"),
        ("IncompleteRead(5 bytes read, 5 more expected)", "truncated"),
        ("unknown url type: 'a.jpg'", "bad_url"),
        ("image too small", "too_small"),
        ("aspect ratio too large", "too_elongated"),
        ("something that nobody foresaw", "engine_failed"),
    ],
)  # fmt: skip
def test_its_messages_in_the_words_of_the_vocabulary(message: str, reason: str) -> None:
    assert reason_of(message) == reason and is_reason(reason)
