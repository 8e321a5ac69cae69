"""kill -9 in the middle of each stage, one after the other: the bytes are those of an undisturbed run."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest

from tests.integration.conftest import DATA_ARTIFACTS, manifest, wait_for
from tests.integration.test_workflow import STAGES

pytestmark = pytest.mark.slow


@pytest.mark.timeout(3000)
def test_killed_in_every_stage(smoke, started, tmp_path):
    undisturbed = [json.loads(path.read_text()) for path in smoke.glob("*/*/manifest.json")]
    seconds = {published["stage"]: published["seconds"] for published in undisturbed}
    root, draw, killed = tmp_path / "root", random.Random(0), []
    for stage in STAGES:
        process, log = started("run_all.py", "experiment=smoke", f"root={root}", f"until={stage}")
        if wait_for(process, log, rf"{stage}: (run|resume) \("):
            time.sleep(draw.uniform(0.0, 0.5) * seconds[stage])
            if process.poll() is None and f"{stage}: done" not in log.read_text():
                killed.append(stage)
            process.send_signal(signal.SIGKILL)
        process.wait()
    process, log = started("run_all.py", "experiment=smoke", f"root={root}")
    assert process.wait() == 0, log.read_text()[-3000:]
    assert len(killed) >= len(STAGES) - 1, f"only {killed} were in the middle of their work"
    for kind in (*DATA_ARTIFACTS, "tokenizer", "tokens", "generator"):
        assert manifest(root, kind)["files"] == manifest(smoke, kind)["files"], kind
