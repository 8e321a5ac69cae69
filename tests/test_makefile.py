"""What `make` says on a machine without a fitting Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PLAIN = "/usr/bin:/bin"


@pytest.mark.skipif(bool(shutil.which("uv", path=PLAIN)), reason="uv is among the system's programs")
def test_without_python_and_uv_one_line_says_what_to_install(tmp_path):
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    venv = tmp_path / "venv"
    done = subprocess.run(
        ["make", "--silent", f"{venv}/.ready", f"VENV={venv}", "PYTHON="],
        cwd=REPOSITORY,
        env={**environment, "PATH": PLAIN},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and not venv.exists()
    (line,) = done.stdout.splitlines()
    assert line.startswith("error: Python 3.11 to 3.13 is needed and was not found; install it (or uv")
