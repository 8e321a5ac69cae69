"""The scripts of docker/, which is no package: a library has the name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "docker"


def load(name: str) -> ModuleType:
    """The module of docker/{name}.py."""
    spec = importlib.util.spec_from_file_location(f"docker_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
