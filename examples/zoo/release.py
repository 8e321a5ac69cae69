"""Put what `experiment=zoo`, or another, has trained where the repository keeps it, in float16.

    python -m examples.zoo.release [target=zoo] [experiment=zoo_emoji] [parts=tokenizer] [key=value ...]

The keys are those that the run was given; parts=tokenizer leaves out a generator that is not good enough.
Cards of the small networks are written by hand and stay; the cards of the models come from the run's own
evaluations.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config
from pipelines.dag.artifact import Artifact
from pipelines.dag.planner import plan
from pipelines.dag.progress import duration
from pipelines.workflows import build
from reptok.model_card import default_card
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_generator, load_pretrained, save_pretrained

FOUNDATIONS = {
    "vae": "autoencoder", "encoder": "encoder", "text_encoder": "text_encoder", "captioner": "captioner",
    "emoji_vae": "emoji/autoencoder", "emoji_encoder": "emoji/encoder",
    "emoji_text_encoder": "emoji/text_encoder",
}  # fmt: skip
MODELS = {
    "zoo": (
        "reptok",
        "training crops of the photographs in `examples/photographs/`, with mirror images",
    ),
    "zoo_emoji": ("emoji", "training pictures of emoji, plain and composed (`examples/emoji/`)"),
}
"""The folder of a model by the experiment that trains it, and what its data are."""
CLASS_MODEL = "reptok_class"
LICENSE = "apache-2.0"


def release(
    artifacts: Mapping[str, Artifact],
    target: Path,
    command: str = "",
    experiment: str = "zoo",
    whole: bool = True,
) -> None:
    """Copy the foundations that are among the artifacts, and write the models.

    Args:
        artifacts: by kind; "model" and what it was made from must be there, and perhaps "class_generator".
        target: folder of the folders.
        command: of the run, for the cards.
        experiment: which trained them.
        whole: write the model with its generator; otherwise the tokenizer alone, with a short card.
    """
    name, data = MODELS[experiment]

    def origin(*trained: str) -> str:
        return _origin(artifacts, data, command, *trained)

    for kind, folder in FOUNDATIONS.items():
        if kind in artifacts:
            for file in artifacts[kind].files():
                if Path(file).suffix in (".json", ".jinja", ".safetensors"):
                    _copy(artifacts[kind], file, target / folder / file)
    model = artifacts["model"]
    pipe = load_pretrained(model.local_path())
    to_half(pipe.tokenizer.trainable_state_dict())  # the frozen networks are what the latents were made with
    if not whole:
        alone = RepTokPipeline(pipe.tokenizer)
        save_pretrained(alone, target / name, card=default_card(alone, LICENSE) + origin("tokenizer"))
        return
    assert pipe.generator is not None
    to_half(pipe.generator.state_dict())
    card = model.read_bytes("README.md").decode()
    save_pretrained(pipe, target / name, card=card + origin("tokenizer", "generator"))
    for file in ["report.html", *model.files("pictures/*")]:
        _copy(model, file, target / name / file)
    if "class_generator" not in artifacts:
        return
    generator = load_generator(artifacts["class_generator"].local_path())
    to_half(generator.state_dict())
    names = artifacts["dataset"].read_json("index.json")["class_names"]
    by_class = RepTokPipeline(pipe.tokenizer, generator, class_names=names)
    card = (
        default_card(by_class, LICENSE)
        + f"\nIts tokenizer is the one of `{name}`, whose card has the figures.\n"
    )
    save_pretrained(by_class, target / CLASS_MODEL, card=card + origin("class_generator"))


def to_half(state: Mapping[str, Tensor]) -> None:
    """Round weights to float16 in place; they stay float32 tensors.

    Raises:
        ValueError: A weight is too large for float16.
    """
    for name, weight in state.items():
        weight.data.copy_(weight.half())
        if not weight.isfinite().all():
            raise ValueError(f"{name} holds values that float16 cannot")


def _origin(artifacts: Mapping[str, Artifact], data: str, command: str, *trained: str) -> str:
    """The end of a card: data, command, time, weights."""
    shards = artifacts["dataset"].read_json("index.json")["splits"]["train"]
    count = sum(shard["rows"] for shard in shards)
    times = ", ".join(f"{kind} {duration(artifacts[kind].manifest['seconds'])}" for kind in trained)
    return f"""
## Origin

| | |
|---|---|
| data | {count:,} {data} |
| command | `{command}`, then `examples.zoo.release` |
| time | {times} on two CPU cores, other stages beside them |
| weights | rounded to float16 after the figures were taken; Apache-2.0 |
"""


def _copy(artifact: Artifact, file: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(artifact.local_path(file), target)


def main(arguments: list[str]) -> int:
    """The command line; 0, or 2 where something is not there yet."""
    ours = ("target=", "experiment=", "parts=")
    own = dict(a.split("=", 1) for a in arguments if a.startswith(ours))
    overrides = [a for a in arguments if not a.startswith(ours)]
    experiment, parts = own.get("experiment", "zoo"), own.get("parts", "all")
    if experiment not in MODELS or parts not in ("all", "tokenizer"):
        said = f"experiment is one of {', '.join(MODELS)}, and parts is all or tokenizer"
        print(f"error: {said}, not {experiment} and {parts}", file=sys.stderr)
        return 2
    config = load_config(Config, [f"experiment={experiment}", *overrides])
    planned = plan(build(config), config.root)
    missing = [p.stage.name for p in planned if p.action != "skip"]
    if missing:
        print(f"error: not published yet: {', '.join(missing)}; run the workflow first", file=sys.stderr)
        return 2
    target = Path(own.get("target", "zoo"))
    told = (o for o in overrides if not o.startswith("root="))
    command = " ".join([f"python pipelines/run_all.py experiment={experiment}", *told])
    artifacts = {p.stage.output: p.artifact for p in planned}
    release(artifacts, target, command, experiment, whole=parts == "all")
    print(f"written to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
