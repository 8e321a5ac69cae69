"""Stage: does the generator make what it is asked for, and does it make it up?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import located, required
from pipelines.dag.stage import Resources, Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.extractors import WEIGHTS_FILE, Extractors, ExtractorsConfig
from pipelines.evaluation.results import Evaluation, save_figure
from pipelines.evaluation.sampling import SolverName
from reptok.bounds import Count, Number, Share
from reptok.configs import TextEncoderConfig

if TYPE_CHECKING:
    from pipelines.evaluation.dataset_view import DatasetView
    from pipelines.evaluation.feature_bank import FeatureBank
    from pipelines.evaluation.measured import Sizes
    from pipelines.evaluation.samples import Sampler, Samples
    from reptok.metrics.uncertainty import Estimate
    from reptok.vocabulary import Words


@dataclass(frozen=True, kw_only=True)
class EvaluateGeneratorConfig(ExtractorsConfig):
    """What to sample, on how much.

    Attributes:
        samples: validation images whose captions or labels are asked for, evenly spread over the split; where
            it has fewer, the scores' names say so.
        guidance: scales of classifier-free guidance; 1 is none.
        guidance_interval: flow times between which guidance acts.
        generator_steps: solver steps of the generator.
        decoder_steps: solver steps of the decoder.
        solver: of both: euler, heun, sde (stochastic), or adaptive: dopri5, dopri8, bosh3, adaptive_heun.
        shown_prompts: rows of the picture of samples.
        shown_samples: columns of it per guidance.
        text_encoder: the frozen language model the generator was trained with; None without text.
        clip_weights: file of an open_clip model's weights; without it there is no CLIP score.
        clip_architecture: open_clip's name of that model.
    """

    samples: Count = 200
    guidance: tuple[Number, ...] = (1.0, 1.5)
    guidance_interval: tuple[Share, Share] = (0.3, 0.9)
    generator_steps: Count = 50
    decoder_steps: Count = 20
    solver: SolverName = "euler"
    shown_prompts: Count = 10
    shown_samples: Count = 4
    text_encoder: TextEncoderConfig | None = None
    clip_weights: str = field(default="", metadata=WEIGHTS_FILE)
    clip_architecture: str = "ViT-B-16"

    def __post_init__(self) -> None:
        if not self.guidance:
            raise ValueError("guidance must name at least one scale, such as [1.0, 1.5]")
        if self.guidance_interval[0] >= self.guidance_interval[1]:
            raise ValueError(f"guidance_interval must rise, unlike {list(self.guidance_interval)}")


class EvaluateGenerator(Stage):
    """Sample what validation images show, recognise it, measure it, and look for copies."""

    name = "evaluate_generator"
    inputs: tuple[str, ...] = ("dataset", "tokenizer", "generator")
    output = "generator_report"
    scored = True
    version = 4
    modules = (
        "diffusers.models.autoencoders.autoencoder_kl",
        "pipelines.evaluation.generator_figures",
        "pipelines.evaluation.generator_scores",
        "reptok.metrics.clip_score",
        "reptok.metrics.uncertainty",
        "reptok.attention",
        "reptok.pretrained",
    )
    config: EvaluateGeneratorConfig

    def __init__(self, config: EvaluateGeneratorConfig):
        """It computes in the driver's process, which on a GPU nobody else may fill meanwhile."""
        super().__init__(config)
        self.resources = Resources(gpus=float(config.device == "cuda"))

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.attention import preferred

        with preferred(self.config.device):
            return self._evaluate(inputs, out)

    def _evaluate(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from pipelines.evaluation import generator_figures as figures
        from pipelines.evaluation.generator_scores import measure, recognise, scores, sizes_of
        from pipelines.evaluation.loss_by_time import loss_picture
        from pipelines.evaluation.measured import named
        from pipelines.evaluation.samples import run_samples

        config = self.config
        sampler = self._sampler(inputs)
        gathered = Extractors.gather(inputs, sampler.pipe.tokenizer, config.samples, config, out)
        view, bank = gathered.view, gathered.bank
        found = run_samples(
            sampler,
            view,
            gathered.extractors,
            guidance=config.guidance,
            batch_size=config.batch_size,
            progress=lambda done, total: out.log.progress(done, total, "prompts"),
        )
        told = sampler.pipe.conditioner.told
        recognition = recognise(found, view, bank) if told else None
        words = self._words(inputs, view, bank)
        clip_scores = self._clip_scores(found, view) if told else {}
        measured = measure(found, view, bank, recognition, clip_scores, words, asked=bool(told))
        sizes = sizes_of(view, bank, config.samples)
        metrics = {"eval/samples": float(len(view)), **named(measured, sizes)}
        lead = max(config.guidance)
        similarity, nearest = bank.nearest(found.features[lead]["vit"])
        pictures = [
            (
                figures.samples_picture(
                    sampler, view, config.guidance, config.shown_prompts, config.shown_samples
                ),
                figures.SAMPLES,
            ),
            (
                figures.neighbours_picture(view, bank, found.images[lead], similarity, nearest, shown=10),
                figures.NEIGHBOURS,
            ),
        ]
        if recognition is not None:
            picture = figures.recognition_picture(view, bank, recognition.real, recognition.made)
            pictures.append((picture, figures.RECOGNITION))
        pictures.append((loss_picture(found.losses, "token"), figures.LOSSES))
        evaluation = Evaluation(
            title="Generator: from words to a token"
            if sampler.generator.reads.reads_text
            else "Generator: tokens from noise",
            lead=(f"Asked for {told} of {len(view)} validation images, " if told else f"{len(view)} times, ")
            + "the generator drew a token from noise and the tokenizer's decoder made it an image. Only the "
            "pixels are judged: the frozen encoder looks at them as it looks at real validation images.",
            scores=scores(measured, sizes, bank, config.guidance, _chance(view)),
            figures=[save_figure(out, picture, figure) for picture, figure in pictures],
            notes=self._notes(bank, sampler, words, sizes),
            metrics=metrics,
        )
        evaluation.write(out)
        out.log.metrics(metrics)
        return metrics

    def _sampler(self, inputs: Mapping[str, Artifact]) -> Sampler:
        from pipelines.evaluation.samples import Sampler
        from reptok.pipeline import RepTokPipeline
        from reptok.pretrained import load_generator, load_tokenizer
        from reptok.text_encoder import TextEncoder

        config = self.config
        generator = load_generator(inputs["generator"].local_path())
        text_encoder = None
        if generator.reads.reads_text:
            if config.text_encoder is None:
                raise ValueError("the generator reads text: set evaluate_generator.text_encoder to its own")
            text_encoder = TextEncoder(located(config.text_encoder, inputs))
        tokenizer = load_tokenizer(inputs["tokenizer"].local_path())
        return Sampler(
            pipe=RepTokPipeline(tokenizer, generator, text_encoder).to(config.device).eval(),
            generator_steps=config.generator_steps,
            decoder_steps=config.decoder_steps,
            guidance_interval=config.guidance_interval,
            solver=config.solver,
        )

    def _clip_scores(self, found: Samples, view: DatasetView) -> dict[float, Estimate]:
        """By guidance, the mean over images and its error."""
        config = self.config
        if not config.clip_weights:
            return {}
        from reptok.metrics.clip_score import ClipScore
        from reptok.metrics.uncertainty import mean

        weights = required(config.clip_weights, "evaluate.generator.clip_weights")
        score = ClipScore.from_weights(str(weights), config.clip_architecture, config.device)
        captions = [example.caption for example in view.examples]
        return {
            scale: mean(score.of_all(images, captions, config.batch_size))
            for scale, images in found.images.items()
        }

    def _words(self, inputs: Mapping[str, Artifact], view: DatasetView, bank: FeatureBank) -> Words | None:
        """What the language model knows of the captions of the training and validation images."""
        from reptok.folder import local_folder
        from reptok.vocabulary import words_of

        text = self.config.text_encoder
        if text is None or text.kind == "open_clip":
            return None
        examples = [*view.examples, *bank.view.examples]
        folder = local_folder(located(text, inputs).path)
        return words_of(folder, (example.caption for example in examples))

    def _notes(self, bank: FeatureBank, sampler: Sampler, words: Words | None, sizes: Sizes) -> list[str]:
        from pipelines.evaluation.measured import shortfall

        notes = [*shortfall("evaluate.generator.samples", sizes[""]), *self.config.notes]
        if words is not None and words.unknown:
            notes.append(f"{words}.")
        if not self.config.clip_weights and sampler.generator.reads.reads_text:
            notes.append("No CLIP score: the weights of a CLIP model were not given.")
        if not sampler.pipe.conditioner.told:
            notes.append("No recognition: the generator is asked for nothing.")
        elif not bank.subjects:
            notes.append("No recognition: the dataset names no subjects.")
        return notes


def _chance(view: DatasetView) -> float:
    """Share that is right when one always answers with the most frequent subject."""
    counts = Counter(example.subject for example in view.examples)
    return max(counts.values()) / len(view)
