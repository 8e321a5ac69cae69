"""Stage: how much of an image does one token hold?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import required
from pipelines.dag.stage import Resources, Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.extractors import WEIGHTS_FILE, Extractors, ExtractorsConfig
from pipelines.evaluation.results import Evaluation, save_figure
from reptok.bounds import Count

if TYPE_CHECKING:
    from pipelines.evaluation.feature_bank import FeatureBank
    from pipelines.evaluation.measured import Sizes


@dataclass(frozen=True, kw_only=True)
class EvaluateTokenizerConfig(ExtractorsConfig):
    """What to measure, on how much.

    Attributes:
        images: validation images, evenly spread over the split; where it has fewer, the scores' names say so.
        decoder_steps: Euler steps of the decoder; the paper's quality saturates at about 20.
        interpolation_pairs: pairs of images of different subjects; likewise.
        interpolation_frames: images from one end of a pair to the other.
        shown_subjects: columns of the reconstruction grid.
        shown_pairs: rows of the interpolation picture.
        reference_tokenizer: folder of another tokenizer to show beside this one; none if empty.
        lpips_weights: file of torchvision's AlexNet weights; without it there is no LPIPS.
    """

    images: Count = 200
    decoder_steps: Count = 20
    interpolation_pairs: Count = 12
    interpolation_frames: Annotated[int, Ge(2)] = 9
    shown_subjects: Count = 20
    shown_pairs: Count = 6
    reference_tokenizer: str = field(default="", metadata={"reference": "network", "named": True})
    lpips_weights: str = field(default="", metadata=WEIGHTS_FILE)


class EvaluateTokenizer(Stage):
    """Score reconstructions between floor and ceiling, recognise them, and walk between tokens."""

    name = "evaluate_tokenizer"
    inputs = ("dataset", "tokenizer")
    output = "tokenizer_report"
    scored = True
    version = 4
    modules = (
        "diffusers.models.autoencoders.autoencoder_kl",
        "pipelines.evaluation.tokenizer_figures",
        "pipelines.evaluation.tokenizer_scores",
        "reptok.metrics.perceptual",
        "reptok.attention",
        "reptok.pretrained",
    )
    config: EvaluateTokenizerConfig

    def __init__(self, config: EvaluateTokenizerConfig):
        """It computes in the driver's process, which on a GPU nobody else may fill meanwhile."""
        super().__init__(config)
        self.resources = Resources(gpus=float(config.device == "cuda"))

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.attention import preferred

        with preferred(self.config.device):
            return self._evaluate(inputs, out)

    def _evaluate(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from pipelines.evaluation import tokenizer_figures as figures
        from pipelines.evaluation.interpolations import run_interpolations
        from pipelines.evaluation.loss_by_time import loss_picture
        from pipelines.evaluation.measured import named
        from pipelines.evaluation.reconstructions import run_reconstructions
        from pipelines.evaluation.tokenizer_scores import measure, scores, sizes_of
        from reptok.metrics.perceptual import Lpips
        from reptok.pretrained import load_tokenizer

        config = self.config
        tokenizer = load_tokenizer(inputs["tokenizer"].local_path()).to(config.device).eval()
        reference = None
        if config.reference_tokenizer:
            folder = required(config.reference_tokenizer, "evaluate.tokenizer.reference_tokenizer")
            reference = load_tokenizer(folder).to(config.device).eval()
        lpips = None
        if config.lpips_weights:
            weights = required(config.lpips_weights, "evaluate.tokenizer.lpips_weights")
            lpips = Lpips(weights, config.device)
        gathered = Extractors.gather(inputs, tokenizer, config.images, config, out)
        view, bank = gathered.view, gathered.bank
        found = run_reconstructions(
            tokenizer,
            reference,
            view,
            bank,
            gathered.extractors,
            lpips=lpips,
            num_steps=config.decoder_steps,
            batch_size=config.batch_size,
            progress=lambda done, total: out.log.progress(done, total, "reconstructions"),
        )
        walk = run_interpolations(
            tokenizer,
            view,
            found.tokens,
            found.partners,
            gathered.frozen,
            pairs=config.interpolation_pairs,
            frames=config.interpolation_frames,
            num_steps=config.decoder_steps,
        )
        measured = measure(found, walk, view, bank)
        sizes = sizes_of(walk, view, bank, config.images, config.interpolation_pairs)
        metrics = {"eval/images": float(len(view)), **named(measured, sizes)}
        pictures = [
            (
                figures.reconstruction_picture(
                    tokenizer, reference, view, found, config.shown_subjects, config.decoder_steps
                ),
                figures.RECONSTRUCTIONS,
            ),
            (figures.interpolation_picture(view, walk, config.shown_pairs), figures.INTERPOLATIONS),
        ]
        if bank.subjects:
            pictures.append((figures.subject_picture(view, bank, found), figures.SUBJECTS))
        pictures.append((loss_picture(found.losses, "image"), figures.LOSSES))
        evaluation = Evaluation(
            title="Tokenizer: from image to one token and back",
            lead=f"Each of {len(view)} validation images was turned into one token and back. What the token "
            "carries lies between the floor (the subject's mean image, or another image's token) and the "
            "ceiling (the VAE alone, which keeps all of its latent).",
            scores=scores(measured, sizes, bank, config.interpolation_frames),
            figures=[save_figure(out, picture, figure) for picture, figure in pictures],
            notes=self._notes(bank, sizes),
            metrics=metrics,
        )
        evaluation.write(out)
        out.log.metrics(metrics)
        return metrics

    def _notes(self, bank: FeatureBank, sizes: Sizes) -> list[str]:
        from pipelines.evaluation.measured import shortfall

        notes = shortfall("evaluate.tokenizer.images", sizes[""])
        notes += shortfall("evaluate.tokenizer.interpolation_pairs", sizes["eval/interpolation"])
        if self.config.reference_tokenizer:
            notes.append(f"The reference is the tokenizer in {self.config.reference_tokenizer}.")
        notes += self.config.notes
        if not self.config.lpips_weights:
            notes.append("No LPIPS: the weights of its AlexNet were not given.")
        if not bank.subjects:
            notes.append("No recognition and no mean image per subject: the dataset names no subjects.")
        return notes
