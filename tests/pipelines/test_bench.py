"""The benchmarks' clock: both sides in turns, the median of the ratios."""

import pytest

from pipelines.bench import compare as module
from pipelines.bench.compare import compare


def test_the_ratio_is_the_median_of_the_pairs(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(module.time, "process_time", lambda: clock[0])
    durations = {
        "ours": [9.0, 1.0, 2.0, 4.0],
        "theirs": [90.0, 3.0, 4.0, 100.0],
    }  # the first of each warms up

    def side(name):
        def work():
            calls.append(name)
            clock[0] += durations[name].pop(0)

        return work

    found = compare("work", side("ours"), "peer", side("theirs"), "", pairs=3)
    assert calls == ["ours", "theirs"] * 4
    assert (found.ours, found.theirs, found.ratio) == (2.0, 4.0, pytest.approx(3.0))
