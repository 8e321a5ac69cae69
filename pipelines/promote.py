"""Make the newest published model the champion of the registry, if it beats the one that is.

    python -m pipelines promote [name=reptok] [root=runs] [force=true]

Every published model is a version in MLflow's registry, the newest one `candidate`. It becomes `champion`
where, on the same dataset, a score that belongs on top of the report is better by more than two standard
errors, and none is worse by as much. The first candidate becomes champion at once; `force=true` asks nobody.

MLflow is the server of MLFLOW_TRACKING_URI, else the record beside the artifacts of `root`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from pipelines.dag import embedded_tracking
from pipelines.dag.redaction import redacted
from pipelines.dag.stage_log import CANDIDATE, CHAMPION
from pipelines.evaluation.results import REPORTS
from pipelines.reports.comparison import Run, find_runs, scores_of


def verdict(champion: Run, candidate: Run) -> tuple[list[str], list[str]]:
    """Headline scores in which the candidate is better, and in which it is worse, a line each.

    Raises:
        ValueError: They were evaluated on other data, so that their scores say nothing about each other.
    """
    old_data, new_data = (
        {step.artifact.fingerprint for step in run.steps if step.artifact.kind == "dataset"}
        for run in (champion, candidate)
    )
    if not old_data or old_data != new_data:
        raise ValueError(
            "they were evaluated on different datasets, and their scores do not compare; score both by one "
            "protocol (experiment=evaluate), and promote with force=true"
        )
    better: list[str] = []
    worse: list[str] = []
    for kind in REPORTS:
        for line in scores_of([champion, candidate], kind):
            old, new = line.scores
            if old is None or new is None or not new.headline or not line.resolved:
                continue
            told = f"{line.name}: {old.show()} ({old.certainty}) -> {new.show()} ({new.certainty})"
            (better if 1 in line.best else worse).append(told)
    return better, worse


def promote(client: Any, name: str, force: bool) -> bool:
    """Compare and give the alias; whether it was given.

    Raises:
        ValueError: There is no such model or no candidate, or the two do not compare.
    """
    if not client.search_registered_models(f"name = '{name}'"):
        raise ValueError(f"no model {name!r} is registered; a workflow that publishes one registers it")
    aliases = client.get_registered_model(name).aliases
    if CANDIDATE not in aliases:
        raise ValueError(f"{name} has no version that is called {CANDIDATE}")
    candidate = client.get_model_version(name, aliases[CANDIDATE])
    said = f"{name} version {candidate.version} ({candidate.source})"
    if aliases.get(CHAMPION) == candidate.version:
        print(f"{said} is the {CHAMPION} already")
        return True
    if CHAMPION in aliases and not force:
        champion = client.get_model_version(name, aliases[CHAMPION])
        better, worse = verdict(*find_runs([champion.source, candidate.source]))
        for title, lines in (("better", better), ("worse", worse)):
            for line in lines:
                print(f"{title}   {line}")
        if not better or worse:
            print(f"{said} does not beat version {champion.version}: it stays {CANDIDATE}")
            return False
    client.set_registered_model_alias(name, CHAMPION, candidate.version)
    print(f"{said} is the {CHAMPION} now")
    return True


def main(arguments: Sequence[str]) -> int:
    """The command line; 0, 1 if the candidate is not better, 2 for wrong use."""
    given = {"root": "runs", "name": "reptok", "force": "false"}
    given |= dict(argument.partition("=")[::2] for argument in arguments)
    try:
        if given.keys() - {"root", "name", "force"} or given["force"] not in ("true", "false"):
            raise ValueError(f"name=, root= and force=true are what this takes, not {' '.join(arguments)}")
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            if not embedded_tracking.database(given["root"]).is_file():
                raise FileNotFoundError(
                    f"no runs are recorded in {given['root']}; name the store with root=..."
                )
            embedded_tracking.relocate(given["root"])
            uri = embedded_tracking.uri(given["root"])
        from mlflow import MlflowClient

        return 0 if promote(MlflowClient(uri), given["name"], given["force"] == "true") else 1
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
