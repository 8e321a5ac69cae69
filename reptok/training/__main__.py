"""Train what a folder describes: `python -m reptok.training FOLDER` (see `reptok.training.launch`)."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from reptok.training.failure import failure_file, forget_failure
from reptok.training.launch import child_environment, join, read_description, stopped, torchrun_command
from reptok.training.log import FolderLog
from reptok.training.run import finished_folder, stop_file


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m reptok.training", description=__doc__)
    parser.add_argument("folder", type=Path, help="holds training.json; gets checkpoints and the model")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="of this machine, by torchrun; 1 by default"
    )
    parser.add_argument("--attached", action="store_true", help="end when standard input does")
    given = parser.parse_args()
    folder, rank = given.folder, int(os.environ.get("RANK", "0"))
    try:
        training = read_description(folder)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.processes > 1:
        status = subprocess.call(torchrun_command(folder, given.processes), env=child_environment())
        return 1 if failure_file(folder).exists() else status
    if given.attached:
        threading.Thread(target=_end_with_input, daemon=True).start()
    elif rank == 0 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        stop_file(folder).unlink(missing_ok=True)
        forget_failure(folder)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop_file(folder).touch())
    finished = join(training, folder, FolderLog(folder, echo=rank == 0 and not given.attached))
    if rank == 0 and not given.attached:
        model = finished_folder(folder) / "model"
        ended = "saved" if stopped(folder) else "failed, see above"
        print(f"the model: {model}" if finished else f"{ended}; the same command goes on", flush=True)
    return 0 if finished or stopped(folder) or failure_file(folder).exists() else 1


def _end_with_input() -> None:
    """Whoever started this holds the other end, and is no more when it closes."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
