"""Submit the workflow to a running Ray head: `make submit ARGS="experiment=demo"`.

A cluster of this folder's `compose.yaml` runs the program that its images hold: nothing is uploaded, and no
path of this host is sent. Any other head (`RAY_ADDRESS=http://host:8265`) gets this folder, without what no
job reads. Either way the head must ask for a token, there may be one live job for an artifact root, and a job
whose driver's machine is gone is named and submitted again, here and while its log is followed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import posixpath
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
IN_PLACE = "--in-place"  # the program lies on the cluster already; for the call inside a compose head
# Ray leaves out what .gitignore names; these are tracked, or belong to git itself, and no job reads them.
EXCLUDES = [".git", "tests", "docker", "infra", "/runs", "/.venv"]
READY_SECONDS, POLL_SECONDS, LAST_LINES_SECONDS = 180.0, 5.0, 5.0
SUBMISSIONS = 3
ROOT = re.compile(r"\+{0,2}root=(?:(['\"])(.*)\1|(.*))", re.DOTALL)  # as the configuration reads it
LIVE, ENDED, LOST = ("PENDING", "RUNNING"), ("SUCCEEDED", "FAILED", "STOPPED"), "LOST"


class RefusedError(RuntimeError):
    """Nothing was submitted; the message says why and what to do."""


class Head:
    """A Ray head's Jobs API, asked without Ray's own client, whose import takes seconds."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self._token = address.rstrip("/"), token

    def get(self, path: str, *, anonymous: bool = False) -> Any:
        """Return the JSON at `path`; urllib's errors are the caller's."""
        headers = {} if anonymous else {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(self.address + path, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def require_token(self, seconds: float = READY_SECONDS) -> None:
        """Wait until the head takes requests, and see that it takes them with our token only.

        Raises:
            RefusedError: it answers anybody, refuses the token, or nothing answers within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.get("/api/jobs/", anonymous=True)
                raise RefusedError(
                    f"the head at {self.address} takes jobs from anybody who reaches it; start it with "
                    "RAY_AUTH_MODE=token and a token file (`ray get-auth-token --generate`)"
                )
            except urllib.error.HTTPError as error:
                if error.code in (401, 403):
                    break
                reason = f"HTTP {error.code}"
            except OSError as error:
                reason = str(error)
            if time.monotonic() > deadline:
                raise RefusedError(
                    f"no Ray head took requests at {self.address} within {seconds:.0f} s ({reason}); start "
                    "one with `docker compose up --wait` or `.venv/bin/ray start --head --block`, or name "
                    "another: RAY_ADDRESS=http://host:8265"
                )
            time.sleep(1)
        try:
            self.get("/api/jobs/")
        except urllib.error.HTTPError as error:
            raise RefusedError(
                f"the head at {self.address} refused the token (HTTP {error.code}); use the token of the "
                "user who started the head: RAY_AUTH_TOKEN_PATH=<file>"
            ) from error

    def driver_is_gone(self, job: Mapping[str, Any]) -> bool:
        """Whether the node of the job's driver is dead; the job says RUNNING for ever then."""
        node = job.get("driver_node_id")
        if not node:
            return False
        raylets = [entry.get("raylet", {}) for entry in self.get("/nodes?view=summary")["data"]["summary"]]
        states = {raylet["nodeId"]: raylet["state"] for raylet in raylets if raylet.get("nodeId")}
        return bool(states) and states.get(node, "DEAD") == "DEAD"

    def clear_root(self, root: str) -> None:
        """See that no live job works on `root`, else RefusedError; name those whose driver is gone."""
        for job in self.get("/api/jobs/"):
            if job["status"] not in LIVE or root_of_job(job) != root:
                continue
            name = job["submission_id"] or job["job_id"]
            if not self.driver_is_gone(job):
                raise RefusedError(
                    f"job {name} works on {root} and is {job['status']}; follow it with `ray job logs -f "
                    f"{name}`, stop it with `ray job stop {name}`, or choose another root=..."
                )
            print(f"job {name} says {job['status']}, but its driver's machine is gone; submitting again")


def refuse_credentials(words: Sequence[str]) -> None:
    """Refuse what a dashboard, a list of processes or a message would show of them."""
    sys.path.append(str(Path(__file__).resolve().parents[2]))  # last: nothing there hides another module
    from pipelines.dag.redaction import redacted

    if shown := [redacted(word) for word in words if redacted(word) != word]:
        raise RefusedError(f"{shown[0]} holds credentials; give them to the nodes by their environment")


def root_of(arguments: Sequence[str], default: str) -> str:
    """The artifact root that `run_all.py` with these arguments uses, in one spelling."""
    chosen = [found[2] if found[1] else found[3] for found in map(ROOT.fullmatch, arguments) if found]
    root = chosen[-1] if chosen else default
    scheme, separator, path = root.rpartition("://")
    return scheme + separator + posixpath.normpath(path) if path else root


def root_of_job(job: Mapping[str, Any]) -> str | None:
    """The root of a job, also of one that `ray job submit` sent; None if it runs something else."""
    if known := (job.get("metadata") or {}).get("root"):
        return str(known)
    with suppress(ValueError):
        words = shlex.split(job["entrypoint"])
        for number, word in enumerate(words):
            if word.endswith("run_all.py"):
                return root_of(words[number + 1 :], os.environ.get("REPTOK_ROOT", "runs"))
    return None


def read_token() -> str:
    """Return the token of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or Ray's own file, else RefusedError."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text().strip()
    except OSError as error:
        raise RefusedError(
            f"no cluster token at {path} ({error.strerror}); `ray get-auth-token --generate` before "
            "`ray start --head` makes one, or point RAY_AUTH_TOKEN_PATH at the head's token file"
        ) from error


def job_of(address: str, arguments: Sequence[str], in_place: bool) -> dict[str, Any]:
    """What Ray's client is to submit; RefusedError if no root says what this and another machine see."""
    local = urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")
    environment: dict[str, Any] = {}
    if in_place:
        root = root_of(arguments, os.environ.get("REPTOK_ROOT", "runs"))
    else:
        repository = Path(__file__).resolve().parents[2]
        named = any(map(ROOT.fullmatch, arguments))
        if not local and not named:
            raise RefusedError(
                f"{address} is another machine: name an artifact root that all its nodes see, root=s3://... "
                "or root=/a/shared/folder"
            )
        # Absolute: the job's working folder is a copy that Ray deletes.
        arguments = arguments if named else [f"root={repository / 'runs'}", *arguments]
        root = root_of(arguments, "")
        environment = {"working_dir": str(repository), "excludes": EXCLUDES}
        if local:
            # A head started by `.venv/bin/ray` has no .venv on its PATH; the job's `python` must be this one.
            environment["env_vars"] = {"PATH": f"{Path(sys.executable).parent}:${{PATH}}"}
    return {
        "entrypoint": shlex.join(["python", "pipelines/run_all.py", *arguments]),
        "runtime_env": environment,
        "metadata": {"root": root},
    }


def submit(client: Any, job: Mapping[str, Any], attempts: int = 10) -> str:
    """Submit, and try again while the head's agents are still starting; returns the job's name."""
    name = f"reptok-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    try:
        return str(client.submit_job(submission_id=name, **job))
    except RuntimeError as error:
        if "No available agent" not in str(error) or attempts == 1:
            raise
    print(f"the head is still starting its agents; up to {attempts - 1} more tries", flush=True)
    time.sleep(5)
    return submit(client, job, attempts - 1)


async def follow(client: Any, head: Head, name: str) -> str:
    """Print the job's log until it ends; returns its last status, LOST if its driver's machine is gone."""
    seen, silent_since = 0, None

    async def tail() -> None:
        nonlocal seen
        position = 0
        async for text in client.tail_job_logs(name):
            print(text[max(0, seen - position) :], end="", flush=True)
            position += len(text)
            seen = max(seen, position)

    reader = asyncio.create_task(tail())
    while True:
        await asyncio.wait({reader}, timeout=POLL_SECONDS)
        try:
            job = await asyncio.to_thread(head.get, f"/api/jobs/{name}")
            ended = job["status"] in ENDED
            # A head that kept its database misses the driver of a dead machine, and calls the job FAILED.
            told = ended and (job["status"] != "FAILED" or job.get("driver_exit_code") is not None)
            gone = not told and await asyncio.to_thread(head.driver_is_gone, job)
            if ended and not gone:
                await asyncio.wait({reader}, timeout=LAST_LINES_SECONDS)
                reader.cancel()
                return str(job["status"])
            silent_since = None
        except urllib.error.HTTPError as error:
            gone = error.code == 404  # a new head, which knows nothing of the one before
        except OSError:
            silent_since = silent_since or time.monotonic()
            gone = time.monotonic() - silent_since > READY_SECONDS
        if gone:
            reader.cancel()
            return LOST
        if reader.done():  # the connection broke
            with suppress(Exception):
                reader.result()
            reader = asyncio.create_task(tail())


def run(head: Head, arguments: Sequence[str], in_place: bool) -> int:
    """Submit, follow, submit again what is lost; returns the exit status."""
    job = job_of(head.address, arguments, in_place)
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.WARNING)  # it names every file that it leaves at home
    for _ in range(SUBMISSIONS):
        head.require_token()
        head.clear_root(job["metadata"]["root"])
        client = JobSubmissionClient(head.address)
        name = submit(client, job)
        print(f"submitted {name}; Ctrl-C ends the following, the job goes on", flush=True)
        try:
            status = asyncio.run(follow(client, head, name))
        except KeyboardInterrupt:
            print(f"\n{name} goes on: `ray job logs -f {name}` follows, `ray job stop {name}` stops it")
            return 130
        print(f"job {name}: {status}", flush=True)
        if status != LOST:
            return 0 if status == "SUCCEEDED" else 1
        print("its driver's machine is gone; what is finished is kept, submitting again", flush=True)
    return 1


def compose_head() -> list[str] | None:
    """The command that runs something in the head of this folder's compose cluster, if that is up."""
    repository = Path(__file__).resolve().parents[2]
    if not (repository / "compose.yaml").exists() or not shutil.which("docker"):
        return None
    compose = ["docker", "compose", "--project-directory", str(repository)]
    listed = [*compose, "ps", "--status", "running", "--quiet", "head"]
    with suppress(subprocess.TimeoutExpired):
        found = subprocess.run(listed, capture_output=True, text=True, timeout=30)
        if found.returncode == 0 and found.stdout.strip():
            return [*compose, "exec", "-T", "head"]
    return None


def main(arguments: list[str]) -> int:
    """Submit and follow; return the job's exit status (2: nothing was submitted)."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or ""
    in_place = arguments[:1] == [IN_PLACE]
    try:
        if not in_place:
            refuse_credentials([address, *arguments])
            if not address.startswith("http") and (inside := compose_head()):
                inside += ["python", "-", IN_PLACE, *arguments]
                with open(__file__) as script:  # the image need not hold this file
                    return subprocess.run(inside, stdin=script).returncode
        address = address if address.startswith("http") else DEFAULT_ADDRESS
        head = Head(address, read_token())
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": read_token()}
        os.environ.pop("RAY_ADDRESS", None)
        return run(head, arguments[1:] if in_place else arguments, in_place)
    except RefusedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
