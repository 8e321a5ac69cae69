"""Show the runs that a store has recorded, in MLflow's pages, on this machine alone.

    python pipelines/ui.py [root=runs] [port=5000]

A record on a server of its own (`tracking=server`) is shown by that server.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

REPOSITORY = str(Path(__file__).resolve().parents[1])
if __name__ == "__main__":
    # Last: what lies in a folder of ours must not hide a module of the same name.
    sys.path[:] = [*(p for p in sys.path if p != str(Path(__file__).resolve().parent)), REPOSITORY]

from pipelines.dag import embedded_tracking  # noqa: E402
from pipelines.dag.redaction import redacted  # noqa: E402

DEFAULT_ROOT = "runs"


def serve(root: str, port: int) -> NoReturn:
    """Become MLflow's server over the record of this store.

    Raises:
        FileNotFoundError: there is none.
    """
    address, record = embedded_tracking.uri(root), embedded_tracking.database(root)
    if not record.is_file():
        raise FileNotFoundError(f"no runs are recorded in {record}; name the store of a run with root=...")
    embedded_tracking.relocate(root)
    program = str(Path(sys.executable).with_name("mlflow"))
    command = [
        program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", address,
        "--default-artifact-root", str(record.with_name(embedded_tracking.FILES)),
    ]  # fmt: skip
    print(f"the runs of {record.parent} are shown on http://127.0.0.1:{port}", flush=True)
    os.execve(program, command, {**os.environ, "PYTHONSAFEPATH": "1"})


def main(arguments: list[str]) -> int:
    """The command line; 2 for wrong use, and else it ends as the server does."""
    given = {"root": DEFAULT_ROOT, "port": "5000"}
    given |= dict(argument.partition("=")[::2] for argument in arguments)
    try:
        if given.keys() - {"root", "port"} or not given["port"].isdigit():
            raise ValueError(f"root=... and port=... are what this takes, not {' '.join(arguments)}")
        serve(given["root"], int(given["port"]))
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
