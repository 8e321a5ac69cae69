"""A call in another process: its result, its death, and the death of who called."""

import math
import operator
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.dag.own_process import ProcessDied, call

REPOSITORY = Path(__file__).parents[3]


def test_the_result_comes_from_another_process():
    assert call(math.sqrt, 2.25) == 1.5
    assert call(os.getpid) != os.getpid()
    assert call(bytes.upper, b"x" * 10**6) == b"X" * 10**6, "more than a pipe holds"


def test_what_is_printed_is_no_answer():
    assert call(print, "hello", 3) is None


def test_threads_are_those_asked_for_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert call(os.getenv, "OMP_NUM_THREADS", threads=3) == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert call(os.getenv, "OMP_NUM_THREADS", threads=3) == "2"


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (os._exit, (7,), "exit status 7"),
        (exec, ("import os; os.kill(os.getpid(), 9)",), "exit status -9"),
        (operator.floordiv, (1, 0), "ZeroDivisionError"),
    ],
)
def test_death_is_an_error_with_its_last_words(function, arguments, words):
    with pytest.raises(ProcessDied, match=words):
        call(function, *arguments)


def test_it_ends_with_who_called(tmp_path):
    place = tmp_path / "pid"
    work = f"import os, time; open({str(place)!r}, 'w').write(f'{{os.getpid()}}.'); time.sleep(300)"
    program = f"from pipelines.dag.own_process import call; call(exec, {work!r})"
    caller = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY)
    end = time.monotonic() + 60
    while not (place.exists() and place.read_text().endswith(".")) and time.monotonic() < end:
        time.sleep(0.05)
    child = psutil.Process(int(place.read_text()[:-1]))
    caller.kill()
    caller.wait()
    child.wait(timeout=60)
