"""The linters of their trade over Dockerfiles and shell scripts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted(REPOSITORY.glob("docker/**/Dockerfile"))
SCRIPTS = sorted(REPOSITORY.glob("docker/**/*.sh"))


def lint(tool: str, *files: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(tool)
    if not program.exists():
        pytest.skip(f"{tool} is not installed; the extra `dev` has it")
    return subprocess.run([str(program), *map(str, files)], capture_output=True, text=True)


def test_hadolint_finds_nothing():
    done = lint("hadolint", *DOCKERFILES)
    assert len(DOCKERFILES) == 2 and done.returncode == 0, done.stdout


def test_shellcheck_finds_nothing():
    done = lint("shellcheck", *SCRIPTS)
    assert len(SCRIPTS) >= 5 and done.returncode == 0, done.stdout


def test_every_script_can_be_started():
    assert all(script.stat().st_mode & 0o111 for script in SCRIPTS)
