"""A dataset of the hub, served here as the hub serves it: its parquet files are fetched and read."""

import json
import os
import subprocess
import sys
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import hub
from reptok.data.images import encode_jpeg

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROGRAM = """
import sys
from pipelines.sources.layouts import READ, layout_of, open_source
source = open_source(sys.argv[1])
for part in source.parts(100, 0.0):
    for picture in READ[layout_of(source.folder)](source.folder, source.class_names, part.spans[0].place):
        print(picture.name, len(picture.data) > 100, picture.reason, picture.caption)
"""


@pytest.fixture
def endpoint():
    """A hub with the dataset `somebody/pictures`, and what was asked of it."""
    buffer = pa.BufferOutputStream()
    jpg = encode_jpeg(np.full((12, 20, 3), 90, np.uint8))
    pq.write_table(pa.table({"image": [{"bytes": jpg, "path": "x"}] * 2, "text": ["one", "two"]}), buffer)
    files = {"data/train-0.parquet": buffer.getvalue().to_pybytes(), "README.md": b"no", "code.py": b"no"}
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            asked.append(self.path)
            head = f"/datasets/somebody/pictures/resolve/{COMMIT}/"
            if self.path.startswith("/api/datasets/somebody/pictures/revision/main"):
                siblings = [{"rfilename": name} for name in files]
                return self.answer(
                    json.dumps({"id": "somebody/pictures", "sha": COMMIT, "siblings": siblings}).encode()
                )
            if self.path.startswith(f"/api/datasets/somebody/pictures/tree/{COMMIT}"):
                entries = [{"type": "file", "path": n, "size": len(b), "oid": "0"} for n, b in files.items()]
                return self.answer(json.dumps(entries).encode())
            if self.path.removeprefix(head) in files:
                return self.answer(files[self.path.removeprefix(head)])
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def answer(self, body):
            self.send_response(200)
            for name, value in (("Content-Length", len(body)), ("X-Repo-Commit", COMMIT),
                                ("ETag", f'"{sha256(body).hexdigest()}"')):  # fmt: skip
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_pictures_of_the_hub_are_fetched_and_read(endpoint, tmp_path):
    address, asked = endpoint
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    for place in ("hf://datasets/somebody/pictures", "hf://datasets/somebody/pictures@main/data"):
        done = subprocess.run([sys.executable, "-P", "-c", PROGRAM, place],
                              env=environment, capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        names = [line.rpartition("train")[2] for line in done.stdout.splitlines()]
        assert names == ["-0.parquet:0 True  one", "-0.parquet:1 True  two"]
    assert not any("code.py" in path or "README" in path for path in asked)
    missing = subprocess.run([sys.executable, "-P", "-c", PROGRAM, "hf://datasets/somebody/nothing"],
                             env=environment, capture_output=True, text=True)  # fmt: skip
    assert (
        "data.folder=hf://datasets/somebody/nothing means a dataset of the hub, which cannot"
        in missing.stderr
    )


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        ("hf://datasets/a/b", ("a/b", None, "")),
        ("hf://datasets/a/b-c@v1/x/y/", ("a/b-c", "v1", "x/y")),
        ("hf://datasets/a/b@refs%2Fconvert%2Fparquet/default", ("a/b", "refs/convert/parquet", "default")),
    ],
)
def test_a_place_has_name_revision_and_folder(place, parts):
    found = hub.parse(place)
    assert (found.name, found.revision, found.inside) == parts


@pytest.mark.parametrize("place", ["hf://a", "hf://datasets/a", "hf://datasets/a/b@", "hf://a/b"])
def test_what_is_no_dataset_is_refused(place):
    with pytest.raises(ValueError, match="a dataset of the hub is hf://datasets/owner/name"):
        hub.parse(place)
