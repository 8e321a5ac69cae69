"""What the record of runs refers to: artifacts of runs that are named, and models that have an alias."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

PAGE = 1000
PARENT = "mlflow.parentRunId"


def every_run(client: Any) -> Iterator[Any]:
    """Every run of every experiment, deleted ones too."""
    from mlflow.entities import ViewType

    experiments = client.search_experiments(view_type=ViewType.ALL)
    token = None
    while experiments:
        page = client.search_runs(
            [experiment.experiment_id for experiment in experiments],
            run_view_type=ViewType.ALL, max_results=PAGE, page_token=token,
        )  # fmt: skip
        yield from page
        token = page.token
        if not token:
            return


def fingerprints_of(client: Any, names: Collection[str]) -> dict[str, str]:
    """Artifacts that runs of these names or ids, and runs below them, made or read; each with the name."""
    if not names:
        return {}
    runs = list(every_run(client))
    named: dict[str, str] = {}
    for run in runs:
        for name in (run.info.run_id, run.info.run_name):
            if name in names:
                named[run.info.run_id] = name
                for key, value in run.data.tags.items():  # runs that made what this one found published
                    if key.startswith("stage."):
                        named |= dict.fromkeys(value.split()[1:], name)
    found = {}
    for run in runs:
        name = named.get(run.info.run_id) or named.get(run.data.tags.get(PARENT, ""))
        if name:
            for key, value in run.data.tags.items():
                if key == "fingerprint" or key.startswith("input."):
                    found[value] = name
    return found


def aliases(client: Any) -> dict[str, str]:
    """The alias by the URL of each version of a model that has one."""
    found = {}
    for model in client.search_registered_models():
        for alias in model.aliases:
            version = client.get_model_version_by_alias(model.name, alias)
            found[str(version.source)] = f"{model.name}@{alias}"
    return found
