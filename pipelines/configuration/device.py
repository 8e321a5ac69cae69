"""What follows from `device`: where every network computes, and how many GPUs that occupies."""

from __future__ import annotations

import sys
from typing import Any

from pipelines.configuration.compose import dotted, put
from pipelines.configuration.construct import ConfigError

DEVICES = (
    "encode.compute.device",
    "captioner.compute.device",
    "data.filter_images.clip.compute.device",
    "evaluate.tokenizer.device",
    "evaluate.generator.device",
    "evaluate.samples.compute.device",
    "evaluate.scores.device",
)
GPUS = {
    "encode.workers.gpus": "encode.workers.workers",
    "captioner.workers.gpus": "captioner.workers.workers",
    "data.filter_images.workers.gpus": "data.filter_images.workers.workers",
    "evaluate.samples.workers.gpus": "evaluate.samples.workers.workers",
    "evaluate.scores.workers.gpus": "evaluate.scores.workers.workers",
    "train.tokenizer.gpus_per_worker": "train.tokenizer.workers",
    "train.generator.gpus_per_worker": "train.generator.workers",
}
"""GPUs of a process, and how many processes there are."""
WORKERS = {
    f"{part}.workers.workers": 2
    for part in ("encode", "captioner", "data.filter_images", "evaluate.samples", "evaluate.scores")
}
"""Defaults that are not 1."""
OWN_GPUS = "cluster.num_gpus"


def derive_device(values: dict[str, Any]) -> None:
    """Hand `device` down to whatever computes; on a GPU of this machine, to no more processes than fit.

    Raises:
        ConfigError: A key that is typed contradicts it.
    """
    device = values.get("device") or "cpu"
    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device is one of cpu, cuda, not {device!r}")
    cuda = device == "cuda"
    for key in filter(lambda key: _used(values, key), DEVICES):
        typed = dotted(values, key)
        if typed not in (None, device):
            raise ConfigError(
                f"{key}={typed} contradicts device={device}; leave {key} out, or set device={typed}"
            )
        put(values, key, device)
    for key in filter(lambda key: _used(values, key), GPUS):
        typed = dotted(values, key)
        if isinstance(typed, (int, float)) and (typed > 0) != cuda:
            raise ConfigError(
                f"{key}={typed:g} contradicts device={device}; leave {key} out, or set "
                f"device={'cuda' if typed else 'cpu'}"
            )
        if cuda and typed is None:
            put(values, key, 1)
    if cuda and not dotted(values, "cluster.address"):
        _fit(values)


def _used(values: dict[str, Any], key: str) -> bool:
    """Whether there is something that the key speaks of: a captioner, a model that is scored."""
    if key.startswith("data.filter_images."):
        return bool(dotted(values, "data.filter_images.clip"))
    if key.startswith("captioner."):
        return bool(dotted(values, "captioner.model"))
    return not key.startswith(("evaluate.samples.", "evaluate.scores.")) or bool(values.get("model"))


def _fit(values: dict[str, Any]) -> None:
    """One GPU, unless `cluster.num_gpus` says more; a local Ray would wait for others for ever."""
    there = dotted(values, OWN_GPUS)
    if there is None:
        there = 1
        put(values, OWN_GPUS, there)
    if not isinstance(there, (int, float)) or there < 1:
        raise ConfigError(
            f"{OWN_GPUS}={there} contradicts device=cuda; leave {OWN_GPUS} out, or set device=cpu"
        )
    for key, processes in GPUS.items():
        if not _used(values, key):
            continue
        each, typed = dotted(values, key), dotted(values, processes)
        wanted = WORKERS.get(processes, 1) if typed is None else typed
        most = max(1, int(there / each))
        if wanted > most:
            put(values, processes, most)
            if typed is not None:
                print(f"note: {processes}={most}, not {wanted}: {OWN_GPUS}={there:g}", file=sys.stderr)
