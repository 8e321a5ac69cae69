"""C5: bytes stored for bytes of payload, packed blocks against webdataset's member for each array."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.blocks import LATENT_BYTES, TOKEN_BYTES, _write_both
from benchmarks.compare import Comparison

SAMPLES = 4000


def run() -> Comparison:
    """No time is measured: the two numbers are bytes per byte."""
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_both(Path(folder), SAMPLES)
        payload = SAMPLES * (TOKEN_BYTES + LATENT_BYTES)
        ours, theirs = (path.stat().st_size / payload for path in paths)
    return Comparison(
        name="C5 bytes stored per byte of latents and tokens",
        ours=ours,
        peer="webdataset, a member each",
        theirs=theirs,
        ratio=theirs / ours,
        checked=f"goal 1.03, stretch 1.02; {payload:,} bytes of payload",
    )
