"""The figures of a generator's evaluation, flat for the log and with their baselines for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pipelines.evaluation.dataset_view import DatasetView
from pipelines.evaluation.feature_bank import FeatureBank
from pipelines.evaluation.measured import Measured, Sizes
from pipelines.evaluation.results import Score
from pipelines.evaluation.samples import Samples
from reptok.metrics.evaluator import frechet_name, frechet_of
from reptok.metrics.own_picture import PERMUTED, own_picture
from reptok.metrics.uncertainty import Estimate, share
from reptok.vocabulary import Words

FEWEST_PICTURES = 3
COPY_QUANTILE = 0.99
"""A sample is very close to a training image beyond this quantile of real validation images."""


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """Whether images were recognised as their subject, (N,) bool: real ones, and samples per guidance."""

    real: Tensor
    made: dict[float, Tensor]


def recognise(found: Samples, view: DatasetView, bank: FeatureBank) -> Recognition | None:
    """Compare each image's recognised subject with the one asked for; None where there are no subjects."""
    if not bank.subjects:
        return None
    labels = bank.labels_of(view)
    return Recognition(
        real=bank.recognise(found.originals["vit"]) == labels,
        made={scale: bank.recognise(features["vit"]) == labels for scale, features in found.features.items()},
    )


def sizes_of(view: DatasetView, bank: FeatureBank, samples: int) -> Sizes:
    """On how many each figure was measured, where `samples` validation images were asked for."""
    captions = len(view) + len(bank.view)
    return {
        "": Measured(len(view), samples),
        "eval/fd_vit_training_images": Measured(min(len(view), len(bank.features)), samples),
        "eval/unknown_words": Measured(captions, captions, "captions"),
    }


def measure(
    found: Samples,
    view: DatasetView,
    bank: FeatureBank,
    recognition: Recognition | None,
    clip_scores: Mapping[float, Estimate],
    words: Words | None = None,
    *,
    asked: bool = True,
) -> dict[str, float]:
    """Every figure under its flat name; the guidance is the suffix ("eval/recognised_cfg_1.5").

    Args:
        found: the samples, and the validation images beside them.
        view: the validation images, (N) of them.
        bank: training images.
        recognition: from `recognise`.
        clip_scores: by guidance.
        words: what the text encoder knows of the captions.
        asked: whether each sample was asked for what its validation image shows.
    """
    metrics: dict[str, float] = {}
    if words is not None:
        metrics["eval/unknown_words"] = words.unknown_share
    centre = bank.features.mean(0)
    real_similarity = bank.nearest(found.originals["vit"])[0]
    close = real_similarity.quantile(COPY_QUANTILE)
    metrics["eval/nearest_similarity_real"] = float(real_similarity.mean())
    metrics["eval/fd_vit_training_images"] = frechet_of(bank.sample(len(view)), found.originals["vit"])
    if recognition is not None:
        metrics["eval/recognised_real"] = float(recognition.real.double().mean())
    for scale, features in found.features.items():
        suffix = f"_cfg_{scale:g}"
        for name, values in features.items():
            metrics[f"eval/g{frechet_name(name)}{suffix}"] = frechet_of(values, found.originals[name])
        similarity = bank.nearest(features["vit"])[0]
        metrics[f"eval/nearest_similarity{suffix}"] = float(similarity.mean())
        metrics[f"eval/close_to_training{suffix}"] = float((similarity > close).double().mean())
        if asked and len(view) >= FEWEST_PICTURES:
            own = own_picture(features["vit"], found.originals["vit"], centre)
            metrics[f"eval/own_picture{suffix}"] = own.share
            metrics[f"eval/own_picture_error{suffix}"] = own.error
        if recognition is not None:
            recognised = recognition.made[scale].double()
            found_share = share(float(recognised.mean()), len(recognised))
            metrics[f"eval/recognised{suffix}"] = found_share.value
            metrics[f"eval/recognised_error{suffix}"] = found_share.error
            real = max(metrics["eval/recognised_real"], 1e-9)
            metrics[f"eval/recognised_ratio{suffix}"] = found_share.value / real
        if scale in clip_scores:
            metrics[f"eval/clip_score{suffix}"] = clip_scores[scale].value
            if (error := clip_scores[scale].known_error) is not None:
                metrics[f"eval/clip_score_error{suffix}"] = error
    losses = found.losses.tolist()
    metrics |= {f"val/loss_segment_{number}": loss for number, loss in enumerate(losses)}
    metrics["val/loss"] = sum(losses) / len(losses)
    return metrics


def scores(
    metrics: Mapping[str, float], sizes: Sizes, bank: FeatureBank, guidance: tuple[float, ...], chance: float
) -> list[Score]:
    """The figures that matter; the highest guidance leads, the others stand beside it.

    Args:
        metrics: from `measure`.
        sizes: on how many they were measured.
        bank: by which images samples were recognised.
        guidance: scales that were sampled.
        chance: share of images that a blind guess recognises.
    """
    lead = max(guidance)

    def others(name: str, factor: float = 1.0) -> dict[str, float]:
        rest = [scale for scale in guidance if scale != lead]
        return {f"guidance {scale:g}": factor * metrics[f"eval/{name}_cfg_{scale:g}"] for scale in rest}

    every = sizes[""]
    images = every.count
    result = []
    if "eval/recognised_real" in metrics:
        result.append(
            Score(
                name=every.title(f"Recognised as asked for, guidance {lead:g}"),
                value=100 * metrics[f"eval/recognised_cfg_{lead:g}"],
                unit="%",
                baselines={
                    "blind guess": 100 * chance,
                    **others("recognised", 100),
                    "real images": 100 * metrics["eval/recognised_real"],
                },
                note=bank.vote,
                headline=True,
                images=images,
                error=100 * metrics[f"eval/recognised_error_cfg_{lead:g}"],
            )
        )
    if f"eval/own_picture_cfg_{lead:g}" in metrics:
        result.append(_own_picture(metrics, every, lead, others("own_picture", 100)))
    if "eval/unknown_words" in metrics:
        result.append(
            Score(name="Words of the captions that the text encoder does not know", unit="%",
                  value=100 * metrics["eval/unknown_words"], higher_is_better=False,
                  note="such words are all alike to the generator; of "
                  f"{sizes['eval/unknown_words'].count:,} captions"))  # fmt: skip
    for name, title in (("gfid", "gFID"), ("gfd_vit", "Frechet distance, frozen encoder")):
        if f"eval/{name}_cfg_{lead:g}" in metrics:
            baselines = others(name)
            if name == "gfd_vit":
                baselines["training images"] = metrics["eval/fd_vit_training_images"]
            value = metrics[f"eval/{name}_cfg_{lead:g}"]
            result.append(
                Score(
                    name=every.title(f"{title}, guidance {lead:g}"),
                    value=value,
                    baselines=baselines,
                    higher_is_better=False,
                    images=images,
                )
            )
    if f"eval/clip_score_cfg_{lead:g}" in metrics:
        value = metrics[f"eval/clip_score_cfg_{lead:g}"]
        result.append(
            Score(
                name=every.title(f"CLIP score, guidance {lead:g}"),
                value=value,
                baselines=others("clip_score"),
                note="100 max(cos, 0), mean over samples with their captions",
                images=images,
                error=metrics.get(f"eval/clip_score_error_cfg_{lead:g}"),
            )
        )
    result.append(
        Score(
            name=every.title(f"Very close to a training image, guidance {lead:g}"),
            value=100 * metrics[f"eval/close_to_training_cfg_{lead:g}"],
            unit="%",
            baselines={**others("close_to_training", 100), "real images": 100 * (1 - COPY_QUANTILE)},
            higher_is_better=False,
            note="closer than all but 1 % of the real validation images are",
            images=images,
        )
    )
    result.append(
        Score(
            name=every.title("Validation loss"),
            value=metrics["val/loss"],
            higher_is_better=False,
            images=images,
            note="mean over eight bins of flow time",
        )
    )
    return result


def _own_picture(
    metrics: Mapping[str, float], every: Measured, lead: float, others: dict[str, float]
) -> Score:
    error = 100 * metrics[f"eval/own_picture_error_cfg_{lead:g}"]
    return Score(
        name=every.title(f"Nearer to its own picture than to another, guidance {lead:g}"),
        value=100 * metrics[f"eval/own_picture_cfg_{lead:g}"],
        unit="%",
        baselines={"captions permuted": 100 * PERMUTED, **others},
        note="every sample against each other validation picture, by the frozen encoder's features",
        headline=True,
        images=every.count,
        error=error,
    )
