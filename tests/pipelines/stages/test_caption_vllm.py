"""The way through ray.data.llm; in the place of vLLM stands transformers, asked as vLLM would be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.data.llm import vLLMEngineProcessorConfig
from ray.llm._internal.batch.processor.base import wrap_postprocess, wrap_preprocess
from ray.llm._internal.batch.stages.base import StatefulStageUDF
from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMEngineStage

from examples.zoo.crops import CropPool
from pipelines.captions.caption import CaptionerConfig
from pipelines.captions.gates import GatesConfig
from pipelines.captions.vllm import VllmCaptions, answered, engine_config, request
from pipelines.dag.asking import UNASKED, Answers, write_answers
from pipelines.dag.shard_actor import ShardActor
from pipelines.dag.shards import ShardWork
from pipelines.dag.workspace import Workspace
from pipelines.encoding.device import ComputeConfig
from pipelines.stages.caption import Caption, CaptionConfig
from reptok.captioner import InternVLCaptioner
from reptok.configs import VisionLanguageConfig
from reptok.data.columns import CAPTIONS, IMAGES, read_table, write_table
from reptok.data.images import encode_jpeg

ZOO = str(Path(__file__).resolve().parents[3] / "zoo" / "captioner")
MODEL = VisionLanguageConfig(
    backend="vllm", path=ZOO, prompts=("Describe the image.", "What is this?"), captions_per_image=2,
    max_new_tokens=12,
)  # fmt: skip
CONFIG = CaptionerConfig(
    model=MODEL, mix=0.6, gates=GatesConfig(max_share=1.0), compute=ComputeConfig(batch_size=4)
)
DATA, PICTURES = "__data", 8


class Transformers(StatefulStageUDF):
    """Answers the rows of the engine's stage: prompt and picture go through the model's own processor."""

    captioner: InternVLCaptioner

    async def udf(self, rows: list[dict[str, Any]]) -> Any:
        for row in reversed(rows):
            (image,) = row.pop("multimodal_data").values()
            told = self.captioner.processor(text=row["prompt"], images=image, return_tensors="pt")
            sampling = row.pop("sampling_params")
            assert sampling.pop("seed") == row["seed"]
            assert sampling == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 12}
            with torch.no_grad():
                tokens = self.captioner.model.generate(**told, max_new_tokens=12, do_sample=False)
            start = told["input_ids"].shape[1]
            text = self.captioner.processor.tokenizer.decode(tokens[0, start:], skip_special_tokens=True)
            done = {"generated_text": text + " ", UNASKED: ""}
            yield {**done, self.IDX_IN_BATCH_COLUMN: row[self.IDX_IN_BATCH_COLUMN]}


@pytest.fixture(scope="module")
def captioner() -> InternVLCaptioner:
    return InternVLCaptioner(replace(MODEL, backend="transformers"))


@pytest.fixture
def images(make_artifact: Any) -> Any:
    def write(out: Workspace) -> None:
        crops = [pixels.permute(1, 2, 0).numpy() for pixels in CropPool.draw("val", 1, 3).pixels[:PICTURES]]
        jpegs = [encode_jpeg(pixels.repeat(1 + n % 2, 0)) for n, pixels in enumerate(crops)]
        rows = [
            {"key": f"{number:012d}", "text": "" if number % 2 else f"a thing of number {number}",
             "status": "success", "jpg": jpg, "split": "train"}
            for number, jpg in enumerate([*jpegs, b"no picture", None])
        ]  # fmt: skip
        with out.create("images-00000.parquet") as file:
            write_table(file, rows, IMAGES)  # type: ignore[arg-type]

    return make_artifact("images", write)


def through(
    asking: VllmCaptions, questions: list[dict[str, Any]], captioner: InternVLCaptioner
) -> Iterator[Any]:
    """Rows as ray.data.llm sends them through its stages, with its own wrappers."""
    place = {"place": 0, "shard": 0, "lane": ""}
    before = wrap_preprocess(lambda row: request(asking.config, row), DATA)
    after = wrap_postprocess(answered, DATA, include_error_column=True)
    engine = Transformers(DATA, list(stage(asking.config).get_required_input_keys()))
    engine.captioner = captioner
    rows = [before({**place, "number": n, **row}) for n, row in enumerate(questions)]

    async def run() -> list[Any]:
        return [found async for found in engine({DATA: [row[DATA] for row in rows]})]

    (batch,) = asyncio.run(run())
    yield from (after({DATA: row}) for row in batch[DATA])


def stage(config: CaptionerConfig) -> vLLMEngineStage:
    told = engine_config(config, 3)
    arguments = {"engine_kwargs": told.engine_kwargs, "task_type": told.task_type}
    return vLLMEngineStage(fn_constructor_kwargs=arguments, map_batches_kwargs={})


def work_of(images: Any, config: CaptionerConfig, out: Workspace) -> ShardWork:
    return Caption(CaptionConfig(captioner=config)).work({"images": images}, out)


def captions(work: ShardWork, out: Workspace) -> list[dict[str, Any]]:
    row = ShardActor(work.job, out)({"shard": json.dumps(asdict(work.shards[0]))})
    assert not row["failure"], row
    with out.folder.open("captions-00000.parquet") as file:
        return read_table(file, CAPTIONS, "captions").to_pylist()


def test_the_captions_are_those_of_transformers(
    images: Any, captioner: InternVLCaptioner, tmp_path: Path
) -> None:
    """Prompts, pictures, seeds, gates, the mix, what is no picture: all but the kernels."""
    out = Workspace(str(tmp_path / "vllm"))
    work = work_of(images, CONFIG, out)
    asking = work.job.asking
    assert asking is not None
    asking.setup()
    questions = list(asking.questions(work.shards[0]))
    asked = {row["key"] for row in questions}
    assert 2 * len(asked) == len(questions) and len(asked) < PICTURES + 2, "some have an alt-text that does"
    answers = [asking.answer(row) for row in through(asking, questions, captioner)]
    assert {answer["failure"] for answer in answers} == {"", "undecodable", "no_image"}
    write_answers(Answers(dict(enumerate(answers)), {}, ""), 0, out)
    found = captions(work, out)

    plain = replace(CONFIG, model=replace(MODEL, backend="transformers"))
    other = Workspace(str(tmp_path / "transformers"))
    wanted = captions(work_of(images, plain, other), other)
    for row in (*found, *wanted):
        decoding = json.loads(row["decoding"] or "{}")
        assert decoding.pop("backend", None) == (
            None if not row["decoding"] else "vllm" if row in found else "transformers"
        )
        row["decoding"] = decoding
    assert found == wanted
    assert sum(bool(row["generated"]) for row in found) == len(asked) - 2


def test_a_lane_without_a_question_comes_to_its_end() -> None:
    """Ray prepares every row: also a last one that is alone in its block."""
    before = wrap_preprocess(lambda row: request(CONFIG, row), DATA)
    end = before({"place": 0, "shard": -1, "number": -1, "lane": "[]", UNASKED: "the end of a lane"})
    after = wrap_postprocess(answered, DATA, include_error_column=True)(end)
    assert (after["lane"], after[UNASKED]) == ("[]", "the end of a lane")


def test_a_shard_is_not_done_before_it_is_answered(images: Any, tmp_path: Path) -> None:
    out = Workspace(str(tmp_path / "out"))
    work = work_of(images, CONFIG, out)
    with pytest.raises(FileNotFoundError):
        ShardActor(work.job, out)._job(work.shards[0], out)


def test_an_engine_that_fails_on_a_picture_is_its_reason(captioner: InternVLCaptioner) -> None:
    row = {"key": "a", "asked": "What?", "seed": 7, "image": None, UNASKED: "EngineError: no memory"}
    asking = VllmCaptions(CONFIG, lambda shard: ())
    failed = asking.answer(row)
    heals = {reason: asking.heals({**row, UNASKED: reason}) for reason in ("no_image", "undecodable", "")}
    assert asking.heals(row) and not any(heals.values())
    assert failed == {"key": "a", "prompt": "What?", "seed": 7, "failure": "captioner_failed", "text": ""}


def test_rays_own_classes_take_the_configuration() -> None:
    config = replace(CONFIG, model=replace(MODEL, path="OpenGVLab/InternVL3-1B-hf", revision="c0ffee"))
    told = engine_config(config, 8)
    assert isinstance(told, vLLMEngineProcessorConfig)
    assert told.get_concurrency(autoscaling_enabled=True) == {"min_size": 1, "max_size": 8}
    assert told.engine_kwargs["revision"] == "c0ffee" and told.model_source == "OpenGVLab/InternVL3-1B-hf"
    assert told.batch_size * told.max_concurrent_batches == 64
    engine = stage(config)
    assert engine.map_batches_kwargs["num_gpus"] == 1
    taken = {*engine.get_required_input_keys(), *engine.get_optional_input_keys()}
    given = {"prompt", *request(config, {"image": None, "seed": 1})} - {"image"}  # sent once, not twice
    assert set(engine.get_required_input_keys()) <= given <= taken


def test_what_to_install_is_said() -> None:
    with pytest.raises(ImportError, match=r"pip install 'reptok\[vllm\]'"):
        VllmCaptions(CONFIG, lambda shard: ()).processor(1)
