"""The authors' numbers, where the fixtures lie beside the checkout."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

PARITY = Path(__file__).resolve().parents[4] / "shared" / "parity"


@pytest.fixture(scope="session")
def parity():
    """Load a fixture by file name; the test is skipped where there are none."""

    def load(name):
        path = PARITY / name
        if not path.is_file():
            pytest.skip(f"the parity fixture {name} is not beside this checkout")
        return json.loads(path.read_text()) if path.suffix == ".json" else load_file(path)

    return load
