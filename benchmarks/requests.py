"""C17: requests to an object store for each shard more, over the data path from URLs to latents.

    python -m benchmarks.requests          in a chain, by Ray
    python -m benchmarks.requests here     stage by stage, in one process

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
HERE = """
import sys
from pipelines import run_all
from pipelines.dag import shards
shards._stream = lambda missing, job, out, *_: shards._here(missing, job, out)
sys.exit(run_all.main([*sys.argv[1:], "chain=false"]))
"""
"""The program, with no process beside it."""
ACCESS = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class CountedServer:
    """moto's S3 with the bucket `reptok`.

    Attributes:
        counts: requests by method.
        shards: tars of latents among what was put.
    """

    def __init__(self) -> None:
        import boto3
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.counts: Counter[str] = Counter()
        self.shards = 0
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
        self.shards += (
            method == "PUT" and "/latents/" in environ["PATH_INFO"] and environ["PATH_INFO"].endswith(".tar")
        )
        return self._app(environ, start)


def run(*, here: bool = False) -> Comparison:
    """Requests of a whole data path for each shard more; below 15 is the goal."""
    (few, few_shards), (many, many_shards) = (_requests(shards, here) for shards in SHARDS)
    each = {
        method: (many[method] - few[method]) / (many_shards - few_shards) for method in sorted(few | many)
    }
    total = sum(each.values())
    parts = ", ".join(f"{value:.1f} {method}" for method, value in each.items())
    return Comparison(
        name="C17 requests to the store for each shard more, from URLs to latents",
        ours=total,
        peer="goal",
        theirs=GOAL,
        ratio=GOAL / total,
        checked=f"{parts}; six artifacts, {few_shards} shards with {few.total()} in all, and {many_shards}",
    )


def _requests(shards: int, here: bool) -> tuple[Counter[str], int]:
    """Requests, and shards of data and of validation."""
    server = CountedServer()
    program = ["-c", HERE] if here else ["-P", "pipelines/run_all.py"]
    given = {**ACCESS, "AWS_ENDPOINT_URL": server.url}
    try:
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [
                    sys.executable, *program, "experiment=smoke", f"root=s3://reptok/{shards}",
                    "until=encode_latents", "tracking=off", f"data.photographs.images={shards * ROWS}",
                    f"data.select_urls.rows_per_shard={ROWS}",
                ],
                cwd=Path(__file__).parents[1], env={**os.environ, **given, "REPTOK_CACHE": cache},
                capture_output=True, text=True,
            )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return server.counts, server.shards
    finally:
        server.stop()


if __name__ == "__main__":
    found = run(here="here" in sys.argv[1:])
    print(f"{found.name}: {found.ours:.1f} ({found.checked}); goal {found.theirs:g}: {found.ratio:.2f} x")
