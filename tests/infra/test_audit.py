"""The audit finds what was planted in each place, never repeats it, and says what it could not look at."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import sys

import namespace
import pytest

SCRIPT = namespace.REPOSITORY / "infra" / "audit.py"
spec = importlib.util.spec_from_file_location("audit", SCRIPT)
assert spec is not None and spec.loader is not None
audit = importlib.util.module_from_spec(spec)
sys.modules["audit"] = audit
spec.loader.exec_module(audit)

SECRET = "b7c1f0" * 8
KNOWN = {SECRET.encode(): "compose's ray-token"}


def test_secrets_are_known_from_where_they_are_kept(tmp_path):
    values = tmp_path / "secrets" / "values"
    values.mkdir(parents=True)
    (values / "ray-token").write_text(SECRET + "\n")
    (values / "s3-region").write_text("eu")  # too short to look for
    (tmp_path / ".mlflow").mkdir()
    lines = "[mlflow]\nmlflow_tracking_username = somebody\nmlflow_tracking_password = se%same-open\n"
    (tmp_path / ".mlflow" / "credentials").write_text(lines)
    known = audit.known_secrets(tmp_path / "secrets", tmp_path, {"HF_TOKEN": "hf_0123456789"})
    assert set(known) == {SECRET.encode(), b"se%same-open", b"hf_0123456789"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"Bearer {SECRET}", "compose's ray-token"),
        ("-----BEGIN PRIVATE KEY-----\n" + "A" * 64, "private key"),
        ("id = AKIA" + "ABCDEFGH12345678", "AWS key id"),
        ("postgresql://mlflow:c0rrecthorse@postgres:5432/mlflow", "password in a URL"),
        ("token: hf_" + "a" * 34, "hub token"),
    ],
)
def test_forms_and_values(text, name):
    assert audit.in_bytes(text.encode(), KNOWN) == {name}


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://mlflow@postgres:5432/mlflow", "http://127.0.0.1:8265/a@b", "s3://bucket/runs",
        "https://me:${PASSWORD}@host", "https://user:***@host/", SECRET[:-1], "-----BEGIN PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_what_is_no_secret(text):
    assert audit.in_bytes(text.encode(), KNOWN) == set()


@pytest.mark.parametrize("cut", [0, 1, 20, 47, 48])
def test_a_secret_across_two_chunks_of_an_image(cut):
    data = b"x" * 100 + SECRET.encode() + b"y" * 100
    chunks = [data[: 100 + cut], data[100 + cut :]]
    assert audit.in_stream(chunks, KNOWN) == {"compose's ray-token"}
    assert audit.in_stream([b"x" * 300, b"y" * 300], KNOWN) == set()


def test_the_runs_folder_and_its_database(tmp_path):
    (tmp_path / "images" / "_scratch").mkdir(parents=True)
    log = tmp_path / "images" / "_scratch" / "error.txt"
    log.write_text(f"denied for token {SECRET}")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("CREATE TABLE params (value TEXT)")
        database.execute("INSERT INTO params VALUES (?)", (f"http://x/?t={SECRET}",))
    database.close()
    found = set(audit.runs(KNOWN, tmp_path))
    assert {place for _, place in found} == {str(log), str(tmp_path / "mlflow.db")}
    with pytest.raises(audit.CannotRunError, match="there is no"):
        list(audit.runs(KNOWN, tmp_path / "nowhere"))


def test_an_argument_of_a_process():
    command = [sys.executable, "-c", "print(flush=True); input()", SECRET]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()  # before, the system may know no arguments yet
        found = set(audit.processes(KNOWN))
        process.stdin.write(b"\n")
        process.stdin.close()
    assert ("compose's ray-token", f"arguments of process {process.pid}") in found


def test_this_repository_has_none():
    assert set(audit.configuration(KNOWN)) == set()


def test_images_and_containers_are_asked_of_docker(tmp_path, monkeypatch):
    """Docker's answers here are made up; the scan of real images is `make audit`'s."""
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\ncase \"$*\" in\n"
        "  'image ls'*) echo reptok:0.1.0; echo reptok-mlflow:0.1.0; echo postgres:15.20 ;;\n"
        f"  'history'*mlflow*) echo 'ENV PASSWORD={SECRET}' ;;\n"
        f"  'save reptok:'*) printf 'layer %s' {SECRET} ;;\n"
        f"  *'logs'*) echo token {SECRET} ;;\n"
        "esac\n"
    )  # fmt: skip
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    name = "compose's ray-token"
    assert set(audit.images(KNOWN)) == {
        (name, "image reptok:0.1.0"), (name, "image reptok-mlflow:0.1.0: history")
    }  # fmt: skip
    assert set(audit.compose(KNOWN)) == {(name, "docker compose logs")}


def test_a_finding_is_not_repeated_and_fails(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(audit, "known_secrets", lambda *places: KNOWN)
    for part in ("compose", "images", "configuration", "processes", "jobs", "mlflow"):
        monkeypatch.setattr(audit, part, lambda known: iter(()))
    for part in ("vulnerabilities", "materials"):
        monkeypatch.setattr(audit, part, lambda: "done")
    (tmp_path / "job.log").write_text(SECRET)
    assert audit.main([f"root={tmp_path}"]) == 1
    printed = capsys.readouterr().out
    assert "FOUND: compose's ray-token" in printed and SECRET not in printed
    (tmp_path / "job.log").unlink()
    assert audit.main([f"root={tmp_path}"]) == 0
    assert audit.main([f"root={tmp_path}/nowhere"]) == 0 and "COULD NOT RUN" in capsys.readouterr().out
