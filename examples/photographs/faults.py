"""What goes wrong on the demo's web: each kind of fault, how it is served, and what should become of its row.

A route tells the server how to answer one URL:
    do        "file", "status", "redirect", "cut" (ends before its Content-Length), "drip" (a byte at a time),
              "heal" (503, then the file)
    outcome   what a careful client concludes; the server counts by it
    file, status, location, headers   as far as `do` needs them
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

PHOTOS, MIRROR, SLOW = "photos.reptok.test", "mirror.reptok.test", "slow.reptok.test"
HOSTS = (PHOTOS, MIRROR, SLOW)
"""The symbolic hosts that the demo's server stands for."""

GONE_HOST = "gone.reptok.invalid"
METADATA_SERVICE = "http://169.254.169.254/latest/meta-data/"
ROBOTS = {PHOTOS: "User-agent: *\nDisallow: /private/\n"}

Row = dict[str, Any]


@dataclass
class Web:
    """The files and routes of the demo's web while it is being made.

    Attributes:
        files: "host/path" to content.
        routes: "host/path" to how it is served, if not simply as a file.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def put(self, url: str, content: bytes) -> str:
        """Store a file under its URL and return its name."""
        name = place(url)
        self.files[name] = content
        return name

    def route(self, url: str, do: str, outcome: str, **how: Any) -> None:
        """Say how a URL is answered."""
        self.routes[place(url)] = {"do": do, "outcome": outcome, **how}


def place(url: str) -> str:
    """Host and path of a URL: the name under which the server knows it."""
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}"


def _status(status: int, outcome: str = "", **headers: str) -> Callable[[Web, Row, bytes], str]:
    def apply(web: Web, row: Row, jpeg: bytes) -> str:
        expected = outcome or f"http_{status}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        web.route(row["url"], "status", expected, status=status, headers=named)
        return expected

    return apply


def _content(outcome: str, make: Callable[[bytes], bytes], **how: Any) -> Callable[[Web, Row, bytes], str]:
    def apply(web: Web, row: Row, jpeg: bytes) -> str:
        name = web.put(row["url"], make(jpeg))
        web.route(row["url"], how.get("do", "file"), outcome, file=name, headers=how.get("headers", {}))
        return outcome

    return apply


def _redirect(outcome: str, location: Callable[[str], str]) -> Callable[[Web, Row, bytes], str]:
    def apply(web: Web, row: Row, jpeg: bytes) -> str:
        target = location(row["url"])
        web.route(row["url"], "redirect", outcome, location=target)
        return outcome

    return apply


def _moved(web: Web, row: Row, jpeg: bytes) -> str:
    target = row["url"].replace(PHOTOS, MIRROR)
    web.put(target, jpeg)
    web.route(row["url"], "redirect", "redirect", location=target)
    return "success"


def _elsewhere(outcome: str, url: Callable[[str], str]) -> Callable[[Web, Row, bytes], str]:
    def apply(web: Web, row: Row, jpeg: bytes) -> str:
        row["url"] = url(row["url"])
        return outcome

    return apply


def _slow(web: Web, row: Row, jpeg: bytes) -> str:
    row["url"] = row["url"].replace(PHOTOS, SLOW)
    name = web.put(row["url"], jpeg)
    web.route(row["url"], "drip", "timeout", file=name)
    return "timeout"


def _values(outcome: str, **values: Any) -> Callable[[Web, Row, bytes], str]:
    def apply(web: Web, row: Row, jpeg: bytes) -> str:
        web.put(row["url"], jpeg)
        row.update(values)
        return outcome

    return apply


def _rotated(jpeg: bytes) -> bytes:
    """The picture as a camera held sideways stores it."""
    image = Image.open(io.BytesIO(jpeg))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", quality=90, exif=exif.tobytes())
    return file.getvalue()


def _thumbnail(jpeg: bytes) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).resize((24, 24)).save(file, "JPEG")
    return file.getvalue()


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    """A PNG of 400 million pixels in 50 kB."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((20_000, 20_000), bool)).save(file, "PNG")
    return file.getvalue()


_HTML = b"<!doctype html><title>Photo</title><p>This photo has moved.</p>"

FAULTS: dict[str, Callable[[Web, Row, bytes], str]] = {
    "missing": _status(404),
    "gone": _status(410),
    "down": _status(503),
    "forbidden_noai": _status(403, "robots_tag", X_Robots_Tag="noai"),
    "noai": _content("robots_tag", lambda jpeg: jpeg, headers={"X-Robots-Tag": "noai, noimageai"}),
    "cut_body": _content("truncated", lambda jpeg: jpeg, do="cut"),
    "cut_image": _content("truncated", lambda jpeg: jpeg[: len(jpeg) // 2]),
    "html": _content("not_an_image", lambda _: _HTML),
    "bomb": _content("too_many_pixels", lambda _: _bomb()),
    "thumbnail": _content("too_small", _thumbnail),
    "rotated": _content("success", _rotated),
    "heals": _content("success", lambda jpeg: jpeg, do="heal"),
    "moved": _moved,
    "redirect_loop": _redirect("too_many_redirects", lambda url: url),
    "redirect_private": _redirect("address_refused", lambda _: METADATA_SERVICE),
    "slow": _slow,
    "robots": _elsewhere("robots_disallowed", lambda url: url.replace("/photos/", "/private/")),
    "dead_host": _elsewhere("dns_failed", lambda url: url.replace(PHOTOS, GONE_HOST)),
    "private_address": _elsewhere("address_refused", lambda url: METADATA_SERVICE + url.rsplit("/", 1)[1]),
    "local_file": _elsewhere("scheme_refused", lambda url: "file:///" + url.rsplit("/", 1)[1]),
    "tiny": _values("dropped_min_size", width=40, height=40),
    "unrelated": _values("dropped_min_clip_similarity_vitb32", clip_similarity_vitb32=0.09),
    "watermark": _values("dropped_max_watermark_score", watermark_score=0.93),
    "unsafe": _values("dropped_max_nsfw_score_opennsfw2", nsfw_score_opennsfw2=0.96),
    "short_text": _values("dropped_min_text_length", text="img", text_length=3, word_count=1),
}
"""Kind of fault to the function that changes a row and the web accordingly and returns what becomes of it:
"success", a reason of the download, or "dropped_<rule>" of the selection.
"""
