"""The model card: what the hub reads at its head, and what people read below."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from pipelines.evaluation.results import Evaluation
from pipelines.reports.lineage import Step
from pipelines.reports.report import environment
from reptok.encoder.ssl import HUB
from reptok.model_card import LIBRARY, TAGS

UNKNOWN = "unknown"
"""The hub's name of a licence that nobody has stated."""
MEASURED = {"tokenizer_report": "image-to-image"}
"""The hub's names of what reports measure, where it is not what the model is for."""
TRAINED = ("tokenizer", "generator")
"""Kinds of the artifacts whose weights are in a model."""
_DATASET = re.compile(r"hf://datasets/([\w-][\w.-]*/[\w-][\w.-]*)")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a model was made from, as far as the hub has names for it.

    Attributes:
        license: Of the weights, by the hub's name.
        datasets: Ids of datasets.
        base_models: Ids of the models whose weights are part of it.
    """

    license: str = UNKNOWN
    datasets: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()

    @classmethod
    def of(cls, license: str, steps: Sequence[Step], own: Any) -> Origin:
        """What the steps that led to a model name of the hub.

        Args:
            license: As above.
            steps: All of them, sources first.
            own: Configuration of the model's further parts, as plain values.
        """
        texts = [value for step in steps for value in _values(step.config) if isinstance(value, str)]
        configs = [step.config for step in steps if step.artifact.kind in TRAINED]
        networks = [value for value in _values([*configs, own]) if isinstance(value, Mapping)]
        return cls(
            license=license,
            datasets=tuple(dict.fromkeys(name for text in texts for name in _DATASET.findall(text))),
            base_models=tuple(dict.fromkeys(filter(None, map(_base_model, networks)))),
        )


def front_matter(title: str, task: str, origin: Origin, evaluations: Mapping[str, Evaluation]) -> str:
    """The card's head, in YAML.

    Args:
        title: Name of the model.
        task: What it is for, by the hub's name.
        origin: What it was made from.
        evaluations: By the kinds of their artifacts.
    """
    results = [
        result
        for kind, evaluation in evaluations.items()
        for result in _results(MEASURED.get(kind, task), evaluation, origin)
    ]
    data = ModelCardData(
        library_name=LIBRARY, pipeline_tag=task, license=origin.license, tags=list(TAGS),
        datasets=list(origin.datasets) or None, base_model=list(origin.base_models) or None,
        model_name=title if results else None, eval_results=results or None,
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n\n"


def render_card(
    title: str,
    evaluations: Sequence[Evaluation],
    pictures: Sequence[tuple[str, str]],
    parts: str,
    origin: Origin,
) -> str:
    """Render what people read of the card, as Markdown.

    Args:
        title: Name of the model.
        evaluations: Their scores become tables.
        pictures: Titles with file names inside the model folder.
        parts: Markdown that says what the folder holds.
        origin: What it was made from.
    """
    template = environment().get_template("model_card.md.j2")
    return template.render(
        title=title, evaluations=evaluations, pictures=pictures, parts=parts, origin=origin
    )


def _results(task: str, evaluation: Evaluation, origin: Origin) -> Iterator[EvalResult]:
    """The scores as the hub lists them; they are on the validation split of the model's own data."""
    own = origin.datasets[0] if len(origin.datasets) == 1 else "own"
    for score in evaluation.scores:
        if math.isfinite(score.value):
            unit = f", {score.unit}" if score.unit else ""
            certainty = {"images": score.images or None, "standard_error": score.error}
            yield EvalResult(
                task_type=task, task_name=evaluation.title, dataset_type=own,
                dataset_name="validation split of the model's own data", dataset_split="validation",
                metric_type=re.sub(r"[^a-z0-9]+", "_", score.name.lower()).strip("_"),
                metric_name=score.measured + unit, metric_value=score.value,
                metric_args={key: value for key, value in certainty.items() if value is not None} or None,
            )  # fmt: skip


def _base_model(network: Mapping[str, Any]) -> str | None:
    """The id of a network's weights on the hub; None where it is no network, or its weights are elsewhere."""
    if isinstance(network.get("hub"), str):
        return str(network["hub"])
    name = HUB.get(str(network.get("name"))) if not network.get("path") else None
    return f"timm/{name}" if name else None


def _values(value: Any) -> Iterator[Any]:
    """A plain value and all values in it."""
    yield value
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for item in inside:
        yield from _values(item)
