"""What is asked of MLflow's client for a run: where it belongs, whether it exists, its params and inputs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipelines.dag import embedded_tracking
from pipelines.dag.storage import LocalFolder, open_folder

PARAM_LIMIT, PARAMS_PER_CALL = 500, 100
VIEW = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's page of an experiment opens with trainings and their curves, not with traces of agents."""


def experiment(client: Any, name: str, root: str) -> str:
    """The id of an experiment, which is made where there is none."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    folder = open_folder(root)
    local = isinstance(folder, LocalFolder) and str(client.tracking_uri).startswith("sqlite")
    place = folder.url_of(embedded_tracking.FILES) if local else None
    return str(client.create_experiment(name, artifact_location=place, tags=VIEW))


def reopen(client: Any, run_id: str) -> bool:
    """Whether an interrupted run still exists; it is running again then."""
    try:
        client.update_run(run_id, status="RUNNING")
    except Exception as error:
        if "RESOURCE_DOES_NOT_EXIST" in str(getattr(error, "error_code", "")):
            return False
        raise
    return True


def log_params(client: Any, run_id: str, params: Mapping[str, Any]) -> None:
    """Record parameters, cut to what MLflow takes."""
    from mlflow.entities import Param

    entries = [Param(key_of(key), str(value)[:PARAM_LIMIT]) for key, value in params.items()]
    for begin in range(0, len(entries), PARAMS_PER_CALL):
        client.log_batch(run_id, params=entries[begin : begin + PARAMS_PER_CALL])


def log_inputs(client: Any, run_id: str, inputs: Mapping[str, tuple[str, str]]) -> None:
    """Record input artifacts: kind -> (url, digest)."""
    from mlflow.entities import Dataset, DatasetInput

    datasets = [
        DatasetInput(Dataset(kind, digest[:36], "artifact", f'{{"uri": "{url}"}}'))
        for kind, (url, digest) in inputs.items()
    ]
    if datasets:
        client.log_inputs(run_id, datasets)


def register_model(client: Any, run_id: str, name: str, url: str, alias: str) -> None:
    """Make a folder a version of a model, which is made where there is none, and give it an alias."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    known = [version for version in client.search_model_versions(f"name = '{name}'") if version.source == url]
    version = known[0] if known else client.create_model_version(name, url, run_id)
    client.set_registered_model_alias(name, alias, version.version)


def key_of(name: str) -> str:
    """A name that MLflow accepts as a key."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]
