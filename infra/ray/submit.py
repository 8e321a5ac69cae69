"""Submit the workflow to a running Ray head: `make submit ARGS="experiment=demo"`.

Prepares what a bare `ray job submit -- python pipelines/run_all.py` needs and does not say: the cluster's
token, a head that is ready to take a job, an absolute artifact root (the job's working folder is a copy that
Ray deletes), and the files that must stay at home. Then it runs that command and follows the job's log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
# Ray leaves out what .gitignore names; these are tracked, or belong to git itself, and no job reads them.
EXCLUDES = [".git", "tests", "docker", "infra", "/runs", "/.venv"]
READY_SECONDS = 180


class NotReadyError(RuntimeError):
    """The head does not take jobs; the message says why and what to do."""


def read_token() -> str:
    """Return the cluster's token from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or Ray's own default file.

    Raises:
        NotReadyError: no token is to be found.
    """
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text().strip()
    except OSError as error:
        raise NotReadyError(
            f"no cluster token at {path} ({error.strerror}); `ray get-auth-token --generate` before "
            "`ray start --head` makes one, or point RAY_AUTH_TOKEN_PATH at the head's token file"
        ) from error


def wait_until_ready(address: str, token: str, seconds: float = READY_SECONDS) -> None:
    """Wait until the Jobs API at `address` answers an authenticated request.

    Raises:
        NotReadyError: the token is refused, or nothing answers within `seconds`.
    """
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise NotReadyError(
                    f"the head at {address} refused the token (HTTP {error.code}); use the token of "
                    "the user who started the head: RAY_AUTH_TOKEN_PATH=<file>"
                ) from error
            reason = f"HTTP {error.code}"
        except OSError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"no Ray head took requests at {address} within {seconds:.0f} s ({reason}); start one with "
                "`.venv/bin/ray start --head --block`, or name another: RAY_ADDRESS=http://host:8265"
            )
        time.sleep(1)


def job_command(address: str, arguments: list[str]) -> list[str]:
    """Return the `ray job submit` command line for `pipelines/run_all.py` with these overrides."""
    if not any(argument.startswith("root=") for argument in arguments):
        arguments = [f"root={REPOSITORY / 'runs'}", *arguments]
    runtime_env: dict[str, object] = {"excludes": EXCLUDES}
    if urlsplit(address).hostname in ("127.0.0.1", "localhost"):
        # A head started by `.venv/bin/ray` has no .venv on its PATH; the job's `python` must be this one.
        runtime_env["env_vars"] = {"PATH": f"{Path(sys.executable).parent}:${{PATH}}"}
    return [
        str(Path(sys.executable).with_name("ray")), "job", "submit",
        "--address", address,
        "--working-dir", str(REPOSITORY),
        "--runtime-env-json", json.dumps(runtime_env),
        "--", "python", "pipelines/run_all.py", *arguments,
    ]  # fmt: skip


def submit(command: list[str], environment: dict[str, str]) -> int:
    """Run `command`, echo its output, and try again while the head's agents are still starting."""
    for attempt in range(10):
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        starting = False
        for line in process.stdout:
            starting |= "No available agent" in line
            print(line, end="", flush=True)
        if process.wait() == 0 or not starting:
            return process.returncode
        print(f"the head is still starting its agents; trying again ({attempt + 1} of 10)", flush=True)
        time.sleep(5)
    return 1


def main(arguments: list[str]) -> int:
    """Submit and follow; return the job's exit status (2: nothing was submitted)."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or DEFAULT_ADDRESS
    if not address.startswith("http"):
        address = DEFAULT_ADDRESS
    try:
        token = read_token()
        wait_until_ready(address, token)
    except NotReadyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    environment.pop("RAY_ADDRESS", None)
    return submit(job_command(address, arguments), environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
