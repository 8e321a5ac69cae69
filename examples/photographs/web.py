"""The demo's web: a local server that answers for its symbolic hosts, faults included, and counts."""

from __future__ import annotations

import io
import threading
import zipfile
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from pipelines.dag.artifact import Artifact

TABLE, FILES, FAULTS_FILE = "coyo.parquet", "files.zip", "faults.json"
DRIP_SECONDS = 0.2

_NEVER_SERVED = ("robots_disallowed",)
_JUDGED_BY_THE_ANSWER = (
    "success",
    "robots_tag",
    "truncated",
    "not_an_image",
    "too_many_pixels",
    "too_small",
    "too_many_redirects",
    "timeout",
)


class FaultServer:
    """Serves a `web` artifact on a free loopback port, as a context manager.

    Args:
        files: "host/path" to content.
        faults: the content of faults.json.

    Attributes:
        counts: answers by outcome, every single one; also "redirect", "unavailable" (before it heals),
            "robots_txt" and "unknown" (a URL that the corpus does not have).
    """

    def __init__(self, files: Mapping[str, bytes], faults: Mapping[str, Any]) -> None:
        self.files, self.faults = files, faults
        self.counts: Counter[str] = Counter()
        self._last: dict[str, str] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    @classmethod
    def of(cls, web: Artifact) -> FaultServer:
        """Serve a published `web` artifact."""
        with zipfile.ZipFile(io.BytesIO(web.read_bytes(FILES))) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        return cls(files, web.read_json(FAULTS_FILE))

    def __enter__(self) -> FaultServer:
        handler = type("Handler", (_Handler,), {"web": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def overrides(self) -> dict[str, str]:
        """Symbolic host to the "address:port" that serves it, for the fetcher."""
        return {host: f"127.0.0.1:{self._server.server_address[1]}" for host in self.faults["hosts"]}

    def tally(self) -> Counter[str]:
        """URLs by the outcome of their last answer: however often a URL was asked for, it counts once."""
        with self._lock:
            return Counter(self._last.values())

    def forget(self) -> None:
        """Begin the tally anew; what heals, heals again."""
        with self._lock:
            self._last.clear()

    def answer(self, place: str) -> Mapping[str, Any]:
        """Choose and count the answer to "host/path"."""
        host, _, path = place.partition("/")
        with self._lock:
            if path == "robots.txt":
                self.counts["robots_txt"] += 1
                text = self.faults["robots"].get(host)
                return (
                    {"do": "status", "status": 404} if text is None else {"do": "body", "body": text.encode()}
                )
            missing = {"do": "status", "status": 404, "outcome": "unknown"}
            plain = {"do": "file", "file": place, "outcome": "success"}
            route: Mapping[str, Any] = self.faults["routes"].get(
                place, plain if place in self.files else missing
            )
            if route["do"] == "heal" and place not in self._last:
                route = {"do": "status", "status": 503, "outcome": "unavailable"}
            self.counts[route["outcome"]] += 1
            self._last[place] = route["outcome"]
            return route

    def wait(self, seconds: float) -> bool:
        """Sleep; True if the server is closing."""
        return self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of our worries."""


class _Handler(BaseHTTPRequestHandler):
    web: FaultServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer as the corpus says."""
        host = self.headers.get("Host", "").partition(":")[0].lower()
        route = self.web.answer(host + self.path.partition("?")[0])
        do = route["do"]
        body = self.web.files[route["file"]] if "file" in route else route.get("body", b"")
        self.send_response({"status": route.get("status"), "redirect": 302}.get(do) or 200)
        for name, value in route.get("headers", {}).items():
            self.send_header(name, value)
        if do == "redirect":
            self.send_header("Location", route["location"])
        self.send_header("Content-Type", "text/plain" if do == "body" else "image/jpeg")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if do == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif do == "drip":
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.web.wait(DRIP_SECONDS):
                    break
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The counts say it all."""


def accounting(stats: Mapping[str, float]) -> list[tuple[str, int, int]]:
    """Compare two counts in a download's stats: (outcome, URLs that the web answered so, rows that ended so).

    The web's are `served_<outcome>`. Left out are rows that end before an answer (their host does not exist,
    their address is refused).
    """
    here, there = _by_outcome(stats, "served_"), _by_outcome(stats, "failed_")
    there["success"] = int(stats.get("images_ok", 0))
    outcomes = [
        name for name in sorted({*here, *there}) if name in _JUDGED_BY_THE_ANSWER or name.startswith("http_")
    ]
    compared = [(name, here.get(name, 0), there.get(name, 0)) for name in outcomes]
    return compared + [(f"served although {name}", here.get(name, 0), 0) for name in _NEVER_SERVED]


def _by_outcome(stats: Mapping[str, float], prefix: str) -> dict[str, int]:
    return {key.removeprefix(prefix): int(n) for key, n in stats.items() if key.startswith(prefix)}
