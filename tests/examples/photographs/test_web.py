"""The demo's server: it answers as the corpus says and counts every answer."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any

import pytest

from examples.photographs.faults import PHOTOS, Web
from examples.photographs.web import FaultServer, accounting

URL = f"http://{PHOTOS}/photos/"


def make_web() -> Web:
    web = Web()
    web.put(URL + "a.jpg", b"image")
    for name, do in (("cut", "cut"), ("heals", "heal"), ("slow", "drip")):
        web.route(URL + name, do, {"heal": "success"}.get(do, do), file=web.put(URL + name, b"image"))
    web.route(URL + "moved", "redirect", "redirect", location=URL + "a.jpg")
    web.route(URL + "noai", "status", "robots_tag", status=403, headers={"X-Robots-Tag": "noai"})
    return web


@pytest.fixture
def server() -> Iterator[FaultServer]:
    web = make_web()
    faults = {"hosts": [PHOTOS], "robots": {PHOTOS: "User-agent: *\n"}, "routes": web.routes, "rows": {}}
    with FaultServer(web.files, faults) as running:
        yield running


def ask(server: FaultServer, path: str, host: str = PHOTOS) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(server.overrides[PHOTOS], timeout=20)
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return response, response.read(1 if path.endswith("slow") else None)
    finally:
        connection.close()


def test_it_listens_on_loopback_only(server: FaultServer) -> None:
    assert server.overrides == {PHOTOS: f"127.0.0.1:{server._server.server_address[1]}"}


def test_files_statuses_redirects_and_robots(server: FaultServer) -> None:
    response, body = ask(server, "/photos/a.jpg?size=big")
    assert (response.status, response.headers["Content-Type"], body) == (200, "image/jpeg", b"image")
    response, _ = ask(server, "/photos/noai")
    assert (response.status, response.headers["X-Robots-Tag"]) == (403, "noai")
    response, _ = ask(server, "/photos/moved")
    assert (response.status, response.headers["Location"]) == (302, URL + "a.jpg")
    assert ask(server, "/robots.txt")[1] == b"User-agent: *\n"
    assert ask(server, "/robots.txt", host="other.test")[0].status == 404
    assert ask(server, "/photos/a.jpg", host="other.test")[0].status == 404
    assert server.counts == {"success": 1, "robots_tag": 1, "redirect": 1, "robots_txt": 2, "unknown": 1}


def test_a_cut_body_is_shorter_than_promised(server: FaultServer) -> None:
    with pytest.raises(http.client.IncompleteRead):
        ask(server, "/photos/cut")


def test_healing_takes_one_more_try_and_counts_as_one_url(server: FaultServer) -> None:
    assert [ask(server, "/photos/heals")[0].status for _ in range(3)] == [503, 200, 200]
    assert server.counts == {"unavailable": 1, "success": 2}
    assert server.tally() == {"success": 1}
    server.forget()
    assert server.tally() == {} and ask(server, "/photos/heals")[0].status == 503


def test_a_drip_gives_byte_after_byte_and_ends_with_the_server(server: FaultServer) -> None:
    response, first = ask(server, "/photos/slow")
    assert (response.headers["Content-Length"], first) == ("5", b"i")


def test_the_accounting_names_what_differs(server: FaultServer) -> None:
    for path in ("/photos/a.jpg", "/photos/noai", "/photos/noai"):
        ask(server, path)
    served = {f"served_{outcome}": n for outcome, n in server.tally().items()}

    def differing(stats: dict[str, Any]) -> list[str]:
        return [outcome for outcome, here, there in accounting({**served, **stats}) if here != there]

    honest = {"images_ok": 1, "failed_robots_tag": 1, "failed_dns_failed": 7}
    assert differing(honest) == []
    assert differing({**honest, "failed_http_404": 2, "images_ok": 0}) == ["http_404", "success"]
