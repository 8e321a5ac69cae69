"""Run a workflow: compose the config, build the stages, run what is not published yet.

    python pipelines/run_all.py [experiment=NAME] [until=STAGE] [only=STAGE] [force=STAGE] [key=value ...]
    python pipelines/run_all.py verify=true      compare every published file with its manifest

Exit status: 0 all published, 1 a stage failed (or `verify` found a fault), 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

REPOSITORY = str(Path(__file__).resolve().parents[1])
if __name__ == "__main__":
    # Last: what lies in a folder of ours must not hide a module of the same name.
    sys.path[:] = [*(p for p in sys.path if p != str(Path(__file__).resolve().parent)), REPOSITORY]

from pipelines.configuration.compose import load_config  # noqa: E402
from pipelines.dag.redaction import redacted  # noqa: E402

if TYPE_CHECKING:
    from pipelines.configuration.schema import Config
    from pipelines.dag.stage import StageResult


OF_THE_INVOCATION = ("root", "until", "only", "force", "chain", "tracking", "cluster", "estimate")
"""Keys that say how a workflow runs, and not what it makes."""


def run(config: Config, overrides: Sequence[str] = ()) -> int:
    """Run the workflow that `config` describes; 0 if everything is published, 1 if a stage failed.

    Args:
        config: the configuration.
        overrides: what of it the command line set; in MLflow's table of runs, the columns that differ.
    """
    from pipelines import workflows

    results = results_of(config, overrides)
    workflows.summarise(config, results)
    failed = [result.name for result in results if result.action == "failed"]
    if failed:
        print(f"failed: {', '.join(failed)}. The same command goes on where this one ended.", file=sys.stderr)
    return 1 if failed else 0


def results_of(config: Config, overrides: Sequence[str] = ()) -> list[StageResult]:
    """Run the workflow that `config` describes; what became of every stage."""
    from pipelines import workflows
    from pipelines.dag import runner

    for line in workflows.remarks(config):
        print(redacted(line), flush=True)
    return runner.run(
        workflows.build(config),
        root=config.root,
        until=config.until,
        only=config.only,
        force=config.force,
        chain=config.chain,
        cluster=config.cluster,
        tracking=config.tracking,
        name=config.experiment,
        params={"experiment": config.experiment, **chosen(overrides)},
        note=workflows.note,
    )


def chosen(overrides: Sequence[str]) -> dict[str, str]:
    """The values that an invocation set itself, by key, without those that only say how it runs."""
    pairs = (override.lstrip("+~").partition("=") for override in overrides)
    return {
        key: redacted(value) for key, _, value in pairs if re.split(r"[./@]", key)[0] not in OF_THE_INVOCATION
    }


def main(arguments: list[str]) -> int:
    """The command line; returns the exit status."""
    from pipelines.configuration.schema import Config

    verifying = "verify=true" in arguments
    try:
        overrides = [argument for argument in arguments if argument != "verify=true"]
        config = load_config(Config, overrides)
        if verifying:
            from pipelines.dag import verify

            return verify.main([config.root])
        return run(config, overrides)
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2


def command(entry: Callable[[], int]) -> NoReturn:
    """Run a command line as this process; Ctrl-C and SIGTERM end it with status 130 or 143."""
    status = [130]

    def terminate(number: int, frame: object) -> NoReturn:
        status[0] = 128 + number
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for background jobs
    try:
        code = entry()
    except KeyboardInterrupt:
        print("\ninterrupted: what is finished is kept, the same command goes on from there", file=sys.stderr)
        code = status[0]
    except Exception:
        print(redacted(traceback.format_exc()), file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # stages that were interrupted still have threads, which must not outlive this line


if __name__ == "__main__":
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0)
    command(lambda: main(sys.argv[1:]))
