"""A full disk and a read-only one: the message says what to do, and a rerun completes with the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def test_a_data_stage_says_that_the_disk_is_full_or_read_only_and_completes(tmp_path):
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode:
        pytest.skip("needs a mount namespace")
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0)
    for number in range(12):
        pixels = noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    mount = "mount -t tmpfs -o size=512k none /mnt && head -c 440k /dev/zero > /mnt/ballast"
    script = Path(__file__).with_name("full_disk.py")
    command = f"{mount} && exec {sys.executable} {script} {tmp_path}/pictures {tmp_path}/elsewhere"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command],
        env={**os.environ, "PYTHONPATH": str(script.parents[1] / "dag")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line.split(": ")[0] in NAMES)
    assert "cannot write /mnt/store/dataset" in done.stdout and "no space is left on the disk" in done.stdout
    assert (said["free"], said["equal"], said["writable"]) == ("done", "True", "done")
    assert "read-only" in said["read-only"] and "root=" in said["read-only"]


NAMES = ("full", "free", "equal", "read-only", "writable")
