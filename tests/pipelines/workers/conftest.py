"""Fixtures of the workers's tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="session")
def small_dataset() -> ModuleType:
    """The writers of small `dataset`, `latents` and `tokens` folders."""
    spec = importlib.util.spec_from_file_location("small_dataset", FIXTURES / "small_dataset.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
