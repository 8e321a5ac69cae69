"""A function call in a Python process of its own, which ends with this one.

What is called may take its process down (a decoder that crashes, memory that runs out) without harm to the
caller. Its start costs a second, that of a local Ray ten.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from pipelines.dag.processes import import_path

SIZE_BYTES = 8


class ProcessDied(RuntimeError):
    """The process ended without an answer."""


def call(function: Callable[..., Any], *arguments: Any, threads: int = 1, shown: bool = False) -> Any:
    """Return `function(*arguments)`, computed in another process.

    Args:
        function: importable by its name, with no exception left to raise: one ends the process.
        arguments: whatever pickles, as must the result.
        threads: of its numerical libraries, unless OMP_NUM_THREADS is set.
        shown: let what it prints through, to standard error.

    Raises:
        ProcessDied: with the last line that it wrote, if there is one that was not shown.
    """
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    environment["PYTHONPATH"] = import_path()
    question = pickle.dumps((function, arguments))
    with tempfile.TemporaryFile() as written:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipelines.dag.own_process"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=None if shown else written,
            start_new_session=True,  # Ctrl-C is for the caller, whose end is its end
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        with process:
            try:
                process.stdin.write(len(question).to_bytes(SIZE_BYTES, "big") + question)
                process.stdin.flush()
            except BrokenPipeError:
                pass  # it is dead, and the answer empty
            answer = process.stdout.read()
            process.wait()  # its standard input closes with this block, and ends it
        if process.returncode:
            written.seek(0)
            lines = written.read().decode(errors="replace").strip().splitlines()
            raise ProcessDied(lines[-1] if lines else f"exit status {process.returncode}")
        return pickle.loads(answer)


def _answer() -> None:
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)  # what is printed is no answer
        size = int.from_bytes(sys.stdin.buffer.read(SIZE_BYTES), "big")
        question = sys.stdin.buffer.read(size)
        threading.Thread(target=_end_with_caller, daemon=True).start()
        function, arguments = pickle.loads(question)
        pickle.dump(function(*arguments), answer)


def _end_with_caller() -> None:
    """The caller's end of the pipe stays open until it has the answer, or is no more."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    _answer()
