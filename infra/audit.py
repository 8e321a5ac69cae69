"""`make audit`: known vulnerabilities, a bill of materials, and secrets where none may be.

Secrets are looked for by value (the compose cluster's, those in this user's files and environment) in images,
configuration, logs, process arguments, job metadata and MLflow, and by their usual forms in text. A finding
names secret and place, never the value. What could not be looked at is said, and is no pass.

Exit status: 0 nothing found, 1 something found.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TOOLS = {"pip-audit": "pip-audit==2.10.1", "cyclonedx-py": "cyclonedx-bom==7.3.1"}
SHORTEST = 8  # a shorter value would be found by chance
CHUNK, TEXT_LIMIT = 1 << 20, 16 << 20
FORMS = {
    "private key": rb"-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}",
    "AWS key id": rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "hub token": rb"\bhf_[A-Za-z0-9]{30,}",
    "GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36}",
    "password in a URL": rb"://[^\s:/@'\"{}$<>]{1,64}:[^\s:/@'\"{}$<>*]{6,}@[\w.-]+",
}
Found = tuple[str, str]
"""A secret's name, and where it is."""


class CannotRunError(RuntimeError):
    """A part of the audit was not possible; says why."""


def known_secrets(secrets: Path, home: Path, environment: Mapping[str, str]) -> dict[bytes, str]:
    """Secrets' values, each with its name."""
    found: dict[str, str] = {}
    for path in sorted((secrets / "values").glob("*")) if os.access(secrets / "values", os.R_OK) else []:
        found[path.read_text().strip()] = f"compose's {path.name}"
    if (path := home / ".ray" / "auth_token").is_file():
        found[path.read_text().strip()] = "Ray's token"
    for path in (home / ".mlflow" / "credentials", home / ".aws" / "credentials"):
        parser = configparser.ConfigParser(interpolation=None)
        if path.is_file() and parser.read(path):
            for section in parser.values():
                found |= {v: f"{k} of {path}" for k, v in section.items() if "password" in k or "secret" in k}
    for name in ("RAY_AUTH_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        if name in environment:
            found[environment[name]] = name
    return {value.encode(): name for value, name in found.items() if len(value) >= SHORTEST}


def in_bytes(data: bytes, known: Mapping[bytes, str], *, forms: bool = True) -> set[str]:
    """Names of the secrets in some bytes."""
    found = {name for value, name in known.items() if value in data}
    forms = forms and b"\0" not in data[:CHUNK]  # binary: chance writes every form in the end
    return found | ({name for name, form in FORMS.items() if re.search(form, data)} if forms else set())


def in_stream(chunks: Iterable[bytes], known: Mapping[bytes, str]) -> set[str]:
    """Names of the secrets in a stream that memory need not hold; by value alone."""
    longest, rest, found = max(map(len, known), default=1), b"", set()
    for chunk in chunks:
        found |= in_bytes(rest + chunk, known, forms=False)
        rest = (rest + chunk)[-longest:]
    return found


def run(*command: str, seconds: float = 300) -> bytes:
    """Output of a command; CannotRunError with its last line if it fails."""
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRunError(str(error)) from error
    if done.returncode:
        lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise CannotRunError((lines or [f"exit status {done.returncode}"])[-1][:200])
    return done.stdout


def configuration(known: Mapping[bytes, str]) -> Iterator[Found]:
    """Every tracked file."""
    for name in run("git", "ls-files", "-z").decode().split("\0"):
        path = REPOSITORY / name
        if name and path.is_file() and path.stat().st_size < TEXT_LIMIT:
            # Tests hold made-up ones, which are there to be refused.
            data = path.read_bytes()
            yield from ((s, name) for s in in_bytes(data, known, forms=not name.startswith("tests/")))


def compose(known: Mapping[bytes, str]) -> Iterator[Found]:
    """The resolved compose file and what its containers have written and are told."""
    profiles = [f"--profile={name}" for name in ("gpu", "s3", "monitoring")]
    for what in (["config"], ["logs", "--no-color"], ["ps", "--format", "json"]):
        output = run("docker", "compose", *profiles, *what)
        yield from ((s, f"docker compose {what[0]}") for s in in_bytes(output, known))
    if containers := run("docker", "compose", *profiles, "ps", "--quiet").decode().split():
        yield from ((s, "docker inspect") for s in in_bytes(run("docker", "inspect", *containers), known))


def images(known: Mapping[bytes, str]) -> Iterator[Found]:
    """Every byte and the whole history of the images that are built here."""
    found = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").decode().split()
    ours = [name for name in found if re.match(r"reptok(-\w+)?:", name)]
    if not ours:
        raise CannotRunError("no image of ours is built")
    for name in ours:
        described = run("docker", "history", "--no-trunc", name) + run("docker", "image", "inspect", name)
        yield from ((s, f"image {name}: history") for s in in_bytes(described, known))
        with subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE) as saved:
            assert saved.stdout is not None
            chunks = iter(lambda pipe=saved.stdout: pipe.read(CHUNK), b"")
            yield from ((s, f"image {name}") for s in in_stream(chunks, known))


def processes(known: Mapping[bytes, str]) -> Iterator[Found]:
    """Arguments of every process that this user may see, those in containers among them."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes()
        except OSError:
            continue
        yield from ((s, f"arguments of process {path.parent.name}") for s in in_bytes(arguments, known))


def runs(known: Mapping[bytes, str], root: Path) -> Iterator[Found]:
    """Logs, manifests, reports and MLflow's database of an artifact root; weights and data by value alone."""
    if not root.is_dir():
        raise CannotRunError(f"there is no {root}")
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if path.suffix in (".txt", ".log", ".json", ".html", ".md", ".yaml"):
                    yield from ((s, str(path)) for s in in_bytes(file.read(TEXT_LIMIT), known))
                else:
                    yield from (
                        (s, str(path)) for s in in_stream(iter(lambda f=file: f.read(CHUNK), b""), known)
                    )


def jobs(known: Mapping[bytes, str]) -> Iterator[Found]:
    """What the Jobs API tells of its jobs: entry points, environments, metadata."""
    address = os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    token = next((value.decode() for value, name in known.items() if "token" in name.lower()), "")
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            yield from ((s, "job metadata") for s in in_bytes(answer.read(), known))
    except OSError as error:
        raise CannotRunError(f"{address}: {error}") from error


def mlflow(known: Mapping[bytes, str]) -> Iterator[Found]:
    """Parameters, tags and metrics' names of every run of a tracking server."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise CannotRunError("MLFLOW_TRACKING_URI names no server; a database in the root was read with it")
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    try:
        for experiment in client.search_experiments():
            for found in client.search_runs([experiment.experiment_id], max_results=50_000):
                text = json.dumps(found.to_dictionary()).encode()
                yield from ((s, f"MLflow run {found.info.run_id}") for s in in_bytes(text, known))
    except Exception as error:
        raise CannotRunError(f"{type(error).__name__}: {str(error)[:150]}") from error


def vulnerabilities() -> str:
    """Ask the registry's advisories about every locked package."""
    tool = str(Path(sys.executable).with_name("uv"))
    options = ["--requirement", "requirements.lock", "--no-deps", "--disable-pip", "--strict"]
    options += ["--progress-spinner", "off"]
    # Strict: else a registry that has no advisories lets every package pass, with exit status 0.
    run(tool, "tool", "run", "--from", TOOLS["pip-audit"], "pip-audit", *options, seconds=600)
    return "no known vulnerability in requirements.lock"


def materials() -> str:
    """Write the bill of materials, CycloneDX JSON."""
    tool = str(Path(sys.executable).with_name("uv"))
    target = REPOSITORY / "sbom.json"
    arguments = ["cyclonedx-py", "requirements", "requirements.lock", "-o", str(target)]
    run(tool, "tool", "run", "--from", TOOLS["cyclonedx-py"], *arguments, seconds=600)
    return f"{target.name} lists {len(json.loads(target.read_text())['components'])} packages"


def main(arguments: list[str]) -> int:
    """Run every part; `root=FOLDER` names the artifact root to look through (default runs/)."""
    chosen = [argument.removeprefix("root=") for argument in arguments if argument.startswith("root=")]
    root = Path(chosen[-1]) if chosen else REPOSITORY / "runs"
    known = known_secrets(REPOSITORY / ".secrets", Path.home(), os.environ)
    print(f"{len(known)} secrets are known by value")
    status = 0
    scans: dict[str, Callable[[], Iterable[Found]]] = {
        "configuration": lambda: configuration(known),
        "compose": lambda: compose(known),
        "images": lambda: images(known),
        "process arguments": lambda: processes(known),
        "runs, logs": lambda: runs(known, root),
        "job metadata": lambda: jobs(known),
        "MLflow": lambda: mlflow(known),
    }
    for name, scan in scans.items():
        try:
            found = sorted(set(scan()))
        except CannotRunError as error:
            print(f"{name:18} COULD NOT RUN: {error}")
            continue
        for secret, place in found:
            print(f"{name:18} FOUND: {secret} in {place}")
        print(f"{name:18} {'no secret found' if not found else f'{len(found)} findings'}")
        status |= bool(found)
    for name, part in (("vulnerabilities", vulnerabilities), ("materials", materials)):
        try:
            print(f"{name:18} {part()}")
        except CannotRunError as error:
            print(f"{name:18} COULD NOT RUN, or found some: {error}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
