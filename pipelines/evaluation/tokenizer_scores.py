"""The figures of a tokenizer's evaluation, flat for the log and with their baselines for people."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from pipelines.evaluation.dataset_view import DatasetView
from pipelines.evaluation.feature_bank import FeatureBank
from pipelines.evaluation.interpolations import Interpolations
from pipelines.evaluation.measured import Measured, Sizes, size_of
from pipelines.evaluation.reconstructions import MEAN, REFERENCE, REPTOK, VAE, WRONG, Reconstructions
from pipelines.evaluation.results import Score
from reptok.metrics.evaluator import frechet_of
from reptok.metrics.uncertainty import mean, paired_difference, share

SUFFIXES = {REPTOK: "", VAE: "_vae", REFERENCE: "_reference", MEAN: "_subject_mean", WRONG: "_wrong_token"}
FLOOR = {"subject mean": "_subject_mean", "wrong token": "_wrong_token"}
CEILING = {"reference": "_reference", "VAE alone": "_vae"}


def sizes_of(walk: Interpolations, view: DatasetView, bank: FeatureBank, images: int, pairs: int) -> Sizes:
    """On how many each figure was measured, where `images` and `pairs` of them were asked for."""
    known = int((bank.labels_of(view) >= 0).sum())
    return {
        "": Measured(len(view), images),
        "eval/recognised": Measured(known, images, "validation images of known subjects"),
        "eval/fd_vit_training_images": Measured(min(len(view), len(bank.features)), images),
        "eval/interpolation": Measured(len(walk.pairs), pairs, "pairs of validation images"),
    }


def measure(
    found: Reconstructions, walk: Interpolations, view: DatasetView, bank: FeatureBank
) -> dict[str, float]:
    """Every figure under its flat name; a method's suffix is empty for RepTok itself."""
    metrics: dict[str, float] = {}
    for method, suffix in SUFFIXES.items():
        if method in found.methods:
            values = found.methods[method].run(found.originals)
            metrics |= {f"eval/{name}{suffix}": value for name, value in values}
    own = found.methods[REPTOK]
    metrics |= {f"eval/{name}_error": mean(own.values(name)).error for name in own.per_image}
    real = frechet_of(bank.sample(len(view)), found.originals["vit"])
    metrics["eval/fd_vit_training_images"] = real
    for method in (MEAN, WRONG):
        above = paired_difference(own.values("psnr"), found.methods[method].values("psnr"))
        metrics[f"eval/psnr_above{SUFFIXES[method]}"] = above.value
        metrics[f"eval/psnr_above{SUFFIXES[method]}_error"] = above.error
    if bank.subjects:
        labels = bank.labels_of(view)
        known = labels >= 0

        def accuracy(features: Tensor) -> float:
            return float((bank.recognise(features[known]) == labels[known]).double().mean())

        originals = accuracy(found.originals["vit"])
        metrics["eval/recognised_originals"] = originals
        for method in (REPTOK, VAE, REFERENCE):
            if method in found.methods:
                recognised = accuracy(found.methods[method].features("vit"))
                metrics[f"eval/recognised{SUFFIXES[method]}"] = recognised
        metrics["eval/recognised_error"] = share(metrics["eval/recognised"], int(known.sum())).error
        metrics["eval/recognised_ratio"] = metrics["eval/recognised"] / max(originals, 1e-9)
    for kind, gradual in (("pixels", walk.pixels), ("features", walk.features)):
        longest = mean(gradual.largest_step)
        metrics[f"eval/interpolation_largest_step_{kind}"] = longest.value
        metrics[f"eval/interpolation_largest_step_{kind}_error"] = longest.error
        metrics[f"eval/interpolation_monotone_{kind}"] = float(gradual.monotone.mean())
    losses = found.losses.tolist()
    metrics |= {f"val/loss_segment_{number}": loss for number, loss in enumerate(losses)}
    metrics["val/loss"] = sum(losses) / len(losses)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}  # one image has no error


def scores(
    metrics: Mapping[str, float], sizes: Sizes, bank: FeatureBank, interpolation_frames: int
) -> list[Score]:
    """The figures that matter, each beside what it must be compared with.

    Args:
        metrics: from `measure`.
        sizes: on how many they were measured.
        bank: by which images they were recognised.
        interpolation_frames: images from one end of a pair to the other.
    """

    def beside(name: str, methods: Mapping[str, str], factor: float = 1.0) -> dict[str, float]:
        found = {title: f"eval/{name}{suffix}" for title, suffix in methods.items()}
        return {title: factor * metrics[key] for title, key in found.items() if key in metrics}

    def error(name: str, factor: float = 1.0) -> float | None:
        """The error where it was measured: one image has none."""
        return factor * metrics[f"eval/{name}_error"] if f"eval/{name}_error" in metrics else None

    every, recognised = sizes[""], size_of("eval/recognised", sizes)
    images = every.count
    result = [
        Score(
            name=every.title("PSNR"),
            value=metrics["eval/psnr"],
            unit="dB",
            baselines=beside("psnr", FLOOR | CEILING),
            headline=True,
            images=images,
            error=error("psnr"),
        ),
        Score(name=every.title("SSIM"), value=metrics["eval/ssim"], baselines=beside("ssim", FLOOR | CEILING),
              images=images, error=error("ssim")),
    ]  # fmt: skip
    if "eval/lpips" in metrics:
        others = beside("lpips", CEILING)
        result.append(
            Score(name=every.title("LPIPS"), value=metrics["eval/lpips"], baselines=others,
                  higher_is_better=False, images=images, error=error("lpips"))
        )  # fmt: skip
    if "eval/fid" in metrics:
        result.append(
            Score(
                name=every.title("rFID"),
                value=metrics["eval/fid"],
                baselines=beside("fid", CEILING),
                higher_is_better=False,
                images=images,
            )
        )
    result.append(
        Score(
            name=every.title("Frechet distance, frozen encoder"),
            value=metrics["eval/fd_vit"],
            baselines=beside("fd_vit", {"training images": "_training_images"} | CEILING),
            higher_is_better=False,
            images=images,
        )
    )
    if "eval/recognised" in metrics:
        result.append(
            Score(
                name=recognised.title("Recognised as its subject"),
                value=100 * metrics["eval/recognised"],
                unit="%",
                baselines=beside("recognised", {"originals": "_originals"} | CEILING, 100),
                note=bank.vote,
                headline=True,
                images=recognised.count,
                error=error("recognised", 100),
            )
        )
    even, walked = 1 / (interpolation_frames - 1), size_of("eval/interpolation", sizes)
    result.append(
        Score(
            name=walked.title("Interpolation, longest step"),
            value=metrics["eval/interpolation_largest_step_pixels"],
            baselines={"perfectly even": even, "a jump": 1.0},
            higher_is_better=False,
            note=f"share of the whole way in pixels, mean over {walked.count} pairs",
            error=error("interpolation_largest_step_pixels"),
        )
    )
    return result
