"""Stage: everything that a user needs, in one folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import plain
from pipelines.dag.linking import link
from pipelines.dag.reference import located
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.results import REPORTS, Evaluation
from reptok.configs import TextEncoderConfig
from reptok.data.columns import SAMPLES, read_table
from reptok.data.croissant import DatasetFacts
from reptok.kept import CHECKPOINTS

if TYPE_CHECKING:
    from pipelines.reports.lineage import Step
    from reptok.pipeline import RepTokPipeline
    from reptok.training_keys import TrainingKeys

REPORT_FILE = "report.html"
PICTURES = "pictures"
DATASET = "dataset"
"""Folder of the card and the Croissant metadata of what the model was trained on."""
LOOKS, LOOK_SHARDS, LOOKS_AT_ONCE = 2048, 16, 64
"""Training samples of which the record of training keys has the look, and shards that they are read from."""


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """The model's name and what travels with it.

    Attributes:
        name: name in the model registry.
        title: heading of the report and of the model card.
        license: of the weights, by the hub's name for it (apache-2.0, cc-by-nc-4.0 ...); the card states it.
        text_encoder: the frozen language model the generator was trained with; None without text.
        dataset: what the card of its dataset says that only people know.
    """

    name: str = "reptok"
    title: str = "RepTok: one token per image"
    license: str = "unknown"
    text_encoder: TextEncoderConfig | None = None
    dataset: DatasetFacts = field(default_factory=DatasetFacts)


class Publish(Stage):
    """Write tokenizer, generator and text encoder as one model with its card, report and its data's card."""

    name = "publish"
    output = "model"
    version = 3
    modules = (
        "pipelines.evaluation.dataset_view",
        "pipelines.reports.dataset_card",
        "pipelines.reports.model_card",
        "reptok.pipeline",
        "reptok.pretrained",
        "reptok.training_keys",
    )
    config: PublishConfig

    def __init__(self, config: PublishConfig, reports: tuple[str, ...] = REPORTS):
        """Read the artifacts of kinds `reports`."""
        self.reports = reports
        self.inputs = ("dataset", "tokenizer", "generator", *reports)
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from pipelines.reports.dataset_card import dataset_card
        from pipelines.reports.lineage import lineage
        from pipelines.reports.report import chapter_of, render_report, training_pictures
        from reptok.pretrained import save_pretrained
        from reptok.training_keys import FILE as TRAINING_KEYS

        pipe, steps = self._pipeline(inputs), lineage(inputs.values())
        reports = [inputs[kind] for kind in self.reports]
        folder = out.scratch / "model"
        save_pretrained(
            pipe, folder, card=self._card(pipe, steps, reports, self._copy_pictures(reports, out))
        )
        out.publish_folder(folder)
        for part in ("tokenizer", "generator"):
            for name in inputs[part].files(f"{CHECKPOINTS}/*"):
                link(inputs[part].folder, name, out.folder, f"{part}/{name}")

        trainings = {"Tokenizer": inputs["tokenizer"], "Generator": inputs["generator"]}
        html = render_report(
            self.config.title,
            [chapter_of(report) for report in reports],
            training_pictures(trainings),
            steps,
        )
        out.write_bytes(REPORT_FILE, html.encode())
        for name, content in dataset_card(inputs["dataset"], self.config.dataset).items():
            out.write_bytes(f"{DATASET}/{name}", content)
        out.write_bytes(TRAINING_KEYS, _known(inputs["dataset"], steps).as_bytes())
        out.log.text(REPORT_FILE, html)
        out.log.model(self.config.name, out.url)
        return {"parameters": float(sum(parameter.numel() for parameter in pipe.parameters()))}

    def _card(
        self,
        pipe: RepTokPipeline,
        steps: Sequence[Step],
        reports: Sequence[Artifact],
        pictures: Sequence[tuple[str, str]],
    ) -> str:
        from pipelines.reports.model_card import Origin, front_matter, render_card
        from reptok.model_card import parts_table, task_of

        title = self.config.title
        origin = Origin.of(self.config.license, steps, plain(self.config.text_encoder))
        evaluations = {report.kind: Evaluation.read(report) for report in reports}
        head = front_matter(title, task_of(pipe), origin, evaluations)
        return head + render_card(title, list(evaluations.values()), pictures, parts_table(pipe), origin)

    def _pipeline(self, inputs: Mapping[str, Artifact]) -> RepTokPipeline:
        from reptok.pipeline import RepTokPipeline
        from reptok.pretrained import load_generator, load_tokenizer
        from reptok.text_encoder import TextEncoder

        generator = load_generator(inputs["generator"].local_path())
        text_encoder = None
        if generator.reads.reads_text:
            if self.config.text_encoder is None:
                raise ValueError(
                    "the generator reads text: set publish.text_encoder to what it was trained with"
                )
            text_encoder = TextEncoder(located(self.config.text_encoder, inputs))
        names = inputs["dataset"].read_json("index.json").get("class_names")
        return RepTokPipeline(
            tokenizer=load_tokenizer(inputs["tokenizer"].local_path()),
            generator=generator,
            text_encoder=text_encoder,
            class_names=names if generator.reads.reads_classes else None,
        )

    def _copy_pictures(self, reports: list[Artifact], out: Workspace) -> list[tuple[str, str]]:
        """Put the reports' pictures beside the card; titles with files."""
        files = []
        for report in reports:
            for figure in Evaluation.read(report).figures:
                file = f"{PICTURES}/{report.kind}/{figure.file}"
                out.write_bytes(file, report.read_bytes(figure.file))
                files.append((figure.title, file))
        return files


def _known(dataset: Artifact, steps: Sequence[Step]) -> TrainingKeys:
    """The samples that the trainings were given, and the models that they began with."""
    from reptok.training_keys import TrainingKeys

    def keys() -> Iterator[Sequence[str]]:
        for name in dataset.files("train-*.parquet"):
            with dataset.open(name) as file:
                yield read_table(file, SAMPLES, name, ["key"]).column("key").to_pylist()

    began = [step.config.get("init") for step in steps if isinstance(step.config, Mapping)]
    models = [init["path"] for init in began if isinstance(init, Mapping)]
    began_with = ", ".join(dict.fromkeys(models))
    return TrainingKeys.of(keys(), dataset.fingerprint, started_from=began_with, looks=_looks(dataset))


def _looks(dataset: Artifact) -> dict[str, int]:
    """Looks of training samples by key."""
    from pipelines.crawl.phash import look
    from pipelines.evaluation.dataset_view import DatasetView
    from reptok.data.transforms import to_uint8

    view = DatasetView(dataset, "train", LOOKS, shards=LOOK_SHARDS)
    found: dict[str, int] = {}
    for positions, images in view.batches(LOOKS_AT_ONCE):
        pixels = to_uint8(images)
        found |= {view.examples[n].key: look(one) for n, one in zip(positions, pixels, strict=True)}
    return found
