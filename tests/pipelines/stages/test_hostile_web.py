"""The whole stage against a hostile list: no connection goes astray, and no bomb goes off."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines.crawl import names as names_module
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.reasons import is_reason
from pipelines.crawl.resize import ResizeConfig
from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from pipelines.stages.download import Download, DownloadConfig
from reptok.data import columns

PRIVATE = """
    http://127.0.0.1:{trap}/a.jpg http://127.0.0.1.:{trap}/a.jpg http://127.1:{trap}/ http://127.0.1:{trap}/
    http://2130706433:{trap}/ http://0x7f000001:{trap}/ http://0x7f.1:{trap}/
    http://0x7F.0x0.0x0.0x1:{trap}/ http://0177.0.0.1:{trap}/ http://017700000001:{trap}/ http://0:{trap}/
    http://0.0.0.0:{trap}/ http://localhost:{trap}/ http://LOCALHOST.:{trap}/ http://127.8.9.10:{trap}/
    http://127.255.255.254:{trap}/ http://[::1]:{trap}/ http://[::]:{trap}/ http://[0:0:0:0:0:0:0:1]:{trap}/
    http://[::ffff:127.0.0.1]:{trap}/ http://[::ffff:7f00:1]:{trap}/
    http://[0:0:0:0:0:ffff:127.0.0.1]:{trap}/ http://[::127.0.0.1]:{trap}/ http://[64:ff9b::7f00:1]:{trap}/
    http://[64:ff9b:1::7f00:1]:{trap}/ http://[2002:7f00:1::]:{trap}/ http://[2001:0:7f00:1::]:{trap}/
    http://[fe80::1%25lo]:{trap}/ http://[fc00::1]:{trap}/ http://[fec0::1]:{trap}/ http://[ff02::1]:{trap}/
    http://[2001:db8::1]:{trap}/ http://user:secret@127.0.0.1:{trap}/ http://example.com@127.0.0.1:{trap}/
    http://example.com:80@127.0.0.1:{trap}/ http://①②⑦.⓪.⓪.①:{trap}/ http://127。0。0。1:{trap}/
    http://10.0.0.1/ http://172.16.0.1/ http://192.168.0.1/ http://100.64.0.1/ http://192.0.2.1/
    http://198.18.0.1/ http://224.0.0.1/ http://240.0.0.1/ http://255.255.255.255/
    http://169.254.169.254/latest/meta-data/ http://2852039166/latest/meta-data/
    http://0xA9FEA9FE/latest/meta-data/ http://0251.0376.0251.0376/ http://169.254.43518/
    http://[::ffff:a9fe:a9fe]/latest/meta-data/ http://[fd00:ec2::254]/latest/meta-data/
    http://168.63.129.16/machine http://169.254.170.2/v2/credentials http://192.0.0.192/
    https://127.0.0.1:{trap}/ https://[::1]:{trap}/ http://loop.example:{trap}/ http://loop6.example:{trap}/
    http://mapped.example:{trap}/ http://metadata.example/ http://mixed.example:{trap}/
    http://flip.example:{trap}/
"""
MALFORMED = {
    "http://user:secret@photos.example/a.jpg": "bad_url",
    "http://example.com\\@127.0.0.1:{trap}/": "bad_url",
    "http://127.0.0.1\t.example.com:{trap}/": "bad_url",
    "http://127.0.0.1:{trap}:80/": "bad_url",
    "http://127.0.0.1:99999/": "bad_url",
    "http://[::1/": "bad_url",
    "http:///a.jpg": "bad_url",
    "//127.0.0.1:{trap}/": "scheme_refused",
    "file:///etc/hostname": "scheme_refused",
    "file://127.0.0.1/etc/hostname": "scheme_refused",
    "data:image/png;base64,AAAA": "scheme_refused",
    "ftp://127.0.0.1:{trap}/": "scheme_refused",
    "gopher://127.0.0.1:{trap}/": "scheme_refused",
    "unix:///var/run/docker.sock": "scheme_refused",
    "javascript:alert(1)": "scheme_refused",
    "jar:http://127.0.0.1:{trap}/!/": "scheme_refused",
    "a.jpg": "scheme_refused",
}
REDIRECTED = (
    "http://127.0.0.1:{trap}/", "http://[::1]:{trap}/", "http://2130706433:{trap}/", "//127.0.0.1:{trap}/",
    "http://169.254.169.254/latest/meta-data/", "http://loop.example:{trap}/", "file:///etc/hostname",
    "http://user@127.0.0.1:{trap}/",
)  # fmt: skip
HOPS = 5
RESIZE = ResizeConfig(image_size=64, min_size=8)


def quick(address: str, **settings: Any) -> FetchConfig:
    limits = {
        "contact": "a test",
        "attempt_seconds": 2.0,
        "total_seconds": 4.0,
        "backoff_seconds": 0.05,
        "host_rate": 0,
        "second_pass_seconds": 0,
    }
    return FetchConfig(**{"allow_hosts": (address,), "host_failures": 10**6, **limits, **settings})


def publish_urls(folder: Path, urls: list[str]) -> Artifact:
    out = Workspace(str(folder / "urls" / "0"))
    with out.create("urls-00000.parquet") as file:
        keys = [f"{number:012d}" for number in range(len(urls))]
        columns.write_table(file, {"key": keys, "url": urls}, columns.URLS)
    out.publish({})
    return Artifact("urls", "0", out.url)


def download(folder: Path, urls: list[str], fetch: FetchConfig) -> dict[str, dict[str, Any]]:
    """Run the stage and return its rows by URL."""
    out = Workspace(str(folder / "images" / "0"), "0")
    config = DownloadConfig(fetch=fetch, resize=RESIZE)
    stats = Download(config).run({"urls": publish_urls(folder, urls)}, out)
    with out.folder.open("images-00000.parquet") as file:
        rows = columns.read_table(file, columns.IMAGES).to_pylist()
    assert [row["url"] for row in rows] == urls
    assert stats["rows_in"] == stats["rows_out"] == len(urls)
    assert stats["images_ok"] + sum(v for k, v in stats.items() if k.startswith("failed_")) == len(urls)
    assert all(is_reason(row["reason"]) for row in rows if row["status"] != columns.SUCCESS)
    return {row["url"]: row for row in rows}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name servers of an attacker; nothing else can be looked up."""
    flips = iter(["10.0.0.1", "127.0.0.1", "::1", "169.254.169.254"] * 100)
    table: dict[str, Callable[[], list[str]]] = {
        "loop.example": lambda: ["127.0.0.1"],
        "loop6.example": lambda: ["::1"],
        "mapped.example": lambda: ["::ffff:127.0.0.1"],
        "metadata.example": lambda: ["169.254.169.254"],
        "mixed.example": lambda: ["127.0.0.1", "93.184.215.14"],
        "flip.example": lambda: [next(flips)],
        "localhost": lambda: ["127.0.0.1", "::1"],
    }

    async def lookup(host: str, port: int) -> list[str]:
        if host not in table:
            raise OSError(f"{host}: unknown")
        return table[host]()

    monkeypatch.setattr(names_module, "system_lookup", lookup)


def test_no_hostile_url_leads_to_an_address_that_is_not_public(
    tmp_path: Path, in_process: None, names: None, hostile_web: ModuleType
) -> None:
    web = hostile_web.HostileWeb({})
    with web, hostile_web.Witness() as witness:
        expected = {url.format(trap=web.trap): "address_refused" for url in PRIVATE.split()}
        expected |= {url.format(trap=web.trap): reason for url, reason in MALFORMED.items()}
        for number, target in enumerate(REDIRECTED):
            refused = "scheme_refused" if target.startswith("file") else "address_refused"
            for hop in range(1, HOPS + 1):  # the last of `hop` redirects leaves the allowed host
                place = target.format(trap=web.trap) if hop == 1 else f"/{number}/{hop - 1}"
                web.pages[f"/{number}/{hop}"] = hostile_web.answer(302, b"", f"Location: {place}")
                expected[web.url(f"/{number}/{hop}")] = refused
        rows = download(tmp_path, list(expected), quick(hostile_web.ADDRESS, allow_ports=(80, 443, web.trap)))
    assert len(expected) >= 100
    assert {url: row["reason"] for url, row in rows.items()} == expected
    assert web.trapped == 0
    assert witness.targets == {(hostile_web.ADDRESS, web.port)}
    assert web.asked[f"/0/{HOPS}"] == 1 and web.asked["/0/1"] == HOPS


def bombs(hostile_web: ModuleType) -> dict[str, tuple[Any, str]]:
    """Path to page and expected reason."""
    from examples.photographs.faults import _bomb

    answer, png = hostile_web.answer, _bomb()
    assert len(png) < 60_000
    scans = jpeg_of_many_scans()
    found = {
        "/400-megapixels.png": (answer(200, png), "too_many_pixels"),
        "/drip.jpg": (hostile_web.drip, "timeout"),
        "/slow-headers.jpg": (hostile_web.drip_headers, "timeout"),
        "/silence.jpg": (hostile_web.silence, "timeout"),
        "/gzip.png": (hostile_web.gzip_of_zeros, "too_large"),
        "/endless.png": (hostile_web.endless_body, "too_large"),
        "/ten-gigabytes.png": (
            b"HTTP/1.1 200 X\r\nContent-Length: 10737418240\r\n\r\n" + bytes(9000), "too_large",
        ),
        "/huge-header.png": (answer(200, b"", "X: " + "y" * 10_000_000), "headers_too_large"),
        "/many-headers.png": (answer(200, b"", *["X: y"] * 100_000), "headers_too_large"),
        "/endless-headers.png": (hostile_web.endless_headers, "headers_too_large"),
        "/endless-interim.png": (hostile_web.endless_interim, "timeout"),
        "/scans.jpg": (answer(200, scans), "too_many_scans"),
        "/redirects/0": (b"", "too_many_redirects"),
    }  # fmt: skip
    for number in range(1000):
        page = answer(302, b"", f"Location: /redirects/{number + 1}")
        found[f"/redirects/{number}"] = (page, "too_many_redirects")
    return found


def jpeg_of_many_scans() -> bytes:
    """A progressive JPEG of 16 megapixels whose last scan comes a thousand times."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 1000 + data[-2:]


def explode(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Download every bomb at once in a process of its own: reasons, seconds, and the memory that it took."""
    program = Path(__file__).with_name("explode.py")
    command = [sys.executable, str(program), str(folder), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "settings",
    [
        {"attempt_seconds": 2.0, "total_seconds": 4.0, "retries": 1, "max_bytes": 1_000_000},
        pytest.param({"retries": 0}, marks=pytest.mark.slow),
    ],
)
def test_bombs_are_rejected_soon_and_in_little_memory(tmp_path: Path, settings: dict[str, Any]) -> None:
    found = explode(tmp_path, settings)
    reasons = {row["url"]: row["reason"] for row in found["rows"]}
    (interim,) = (url for url in reasons if url.endswith("/endless-interim.png"))
    # Interim answers count as bytes received: the limit that a machine reaches first ends them.
    assert reasons.pop(interim) in ("too_large", "timeout") and found["expected"].pop(interim) == "timeout"
    assert reasons == found["expected"]
    assert len(reasons) == 12
    assert found["slowest"] < 10
    assert found["megabytes"] < 200
