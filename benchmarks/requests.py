"""C17: requests to an object store for each shard more, over the data path from URLs to latents.

    python -m benchmarks.requests

The smallest workflow on an S3 server of this machine, once in few and once in more shards of the same size:
what is asked for once falls out of the difference.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.compare import Comparison

GOAL, ROWS, SHARDS = 15.0, 40, (3, 9)
ACCESS = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class CountedServer:
    """moto's S3 with the bucket `reptok` and a count of requests by method."""

    def __init__(self) -> None:
        import boto3
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.counts: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()
        keys = {name.lower(): ACCESS[name.upper()] for name in ("aws_access_key_id", "aws_secret_access_key")}
        client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="reptok")

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        method = "LIST" if "list-type" in environ.get("QUERY_STRING", "") else environ["REQUEST_METHOD"]
        self.counts[method] += 1
        return self._app(environ, start)


def run() -> Comparison:
    """Requests of a whole data path for each shard more; below 15 is the goal."""
    counts = [_requests(shards) for shards in SHARDS]
    few, many = SHARDS
    each = {
        method: (counts[1][method] - counts[0][method]) / (many - few)
        for method in sorted(counts[0] | counts[1])
    }
    total = sum(each.values())
    parts = ", ".join(f"{value:.1f} {method}" for method, value in each.items())
    return Comparison(
        name="C17 requests to the store for each shard more, from URLs to latents",
        ours=total,
        peer="goal",
        theirs=GOAL,
        ratio=GOAL / total,
        checked=f"{parts}; six artifacts, {few} and {many} shards, {counts[0].total()} in all with {few}",
    )


def _requests(shards: int) -> Counter[str]:
    server = CountedServer()
    given = {**ACCESS, "AWS_ENDPOINT_URL": server.url}
    try:
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [
                    sys.executable, "-P", "pipelines/run_all.py", "experiment=smoke", "root=s3://reptok/runs",
                    "until=encode_latents", "tracking=off", f"data.photographs.images={shards * ROWS}",
                    f"data.select_urls.rows_per_shard={ROWS}",
                ],
                cwd=Path(__file__).parents[1], env={**os.environ, **given, "REPTOK_CACHE": cache},
                capture_output=True, text=True,
            )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return server.counts
    finally:
        server.stop()


if __name__ == "__main__":
    found = run()
    print(f"{found.name}: {found.ours:.1f} ({found.checked}); goal {found.theirs:g}: {found.ratio:.2f} x")
