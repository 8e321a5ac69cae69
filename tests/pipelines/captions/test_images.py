"""The captioning op: a reason for every image without a caption, and none for its neighbours."""

from pathlib import Path

import numpy as np
import pytest

from examples.zoo.crops import CropPool
from pipelines.captions.caption import CaptionerConfig
from pipelines.captions.images import CaptionImages
from pipelines.encoding.device import ComputeConfig
from reptok.configs import VisionLanguageConfig
from reptok.data.images import encode_jpeg

MODEL = VisionLanguageConfig(
    path=str(Path(__file__).parents[3] / "zoo" / "captioner"),
    prompts=("describe the image in one sentence.",),
    max_new_tokens=24,
    temperature=0.8,
)


def op(batch_size=4, **settings):
    config = CaptionerConfig(
        mix=1.0, model=MODEL, compute=ComputeConfig(batch_size=batch_size), attempts=2, **settings
    )
    made = CaptionImages(config)
    made.setup()
    return made


@pytest.fixture(scope="module")
def files():
    return [encode_jpeg(pixels.permute(1, 2, 0).numpy()) for pixels in CropPool.draw("val", 1, 3).pixels]


def batch(files):
    return {"key": [f"{number:012d}" for number in range(len(files))], "jpg": list(files)}


def test_results_do_not_depend_on_the_batch(files):
    whole = op(batch_size=18)(batch(files))["generated"]
    assert op(batch_size=5)(batch(files))["generated"] == whole
    rows = batch(files)
    one = {"key": rows["key"][7:8], "jpg": rows["jpg"][7:8]}
    assert op(batch_size=1)(one)["generated"] == whole[7:8]
    assert {tuple(caption) for own in whole for caption in own} == {("text", "prompt", "seed", "reason")}


def test_images_that_are_none_keep_a_reason_and_their_neighbours_a_caption(files):
    rows = [files[0], None, files[1], b"", files[2], b"<html>", files[3][:300], files[4]]
    found = op()(batch(rows))
    assert found["failure"] == [
        None, "no_image", None, "no_image", None, "undecodable", "undecodable", None,
    ]  # fmt: skip
    assert [len(own) for own in found["generated"]] == [1, 0, 1, 0, 1, 0, 0, 1]
    assert found["generated"][0] == op()(batch(files[:1]))["generated"][0]


class Faulty:
    """The real captioner behind a fault: it raises while `fails` says so."""

    def __init__(self, captioner, fails):
        self.captioner, self.fails, self.calls = captioner, fails, 0

    def __call__(self, images, seeds):
        self.calls += 1
        if self.fails(images, self.calls):
            raise RuntimeError("out of memory")
        return self.captioner(images, seeds)


def broken(made, fails):
    object.__setattr__(made, "_captioner", Faulty(made.captioner, fails))
    made._captioner.tile_size = made._captioner.captioner.tile_size
    return made


def test_an_image_on_which_the_model_fails_is_tried_alone_and_given_up(files, capsys):
    made = op()
    expected = made(batch(files[:6]))["generated"]
    bad = broken(made, lambda images, _: False)._decode(files[2])[0]
    made = broken(made, lambda images, _: any(np.array_equal(image, bad) for image in images))
    found = made(batch(files[:6]))
    assert found["failure"] == [None, None, "captioner_failed", None, None, None]
    assert found["generated"][:2] + found["generated"][3:] == expected[:2] + expected[3:]
    assert found["generated"][2] == []
    assert made._captioner.calls == 1 + 3 + 2 + 1  # the batch, three alone, two attempts, the second batch
    assert "out of memory" in capsys.readouterr().out


def test_what_heals_is_captioned_as_if_nothing_had_been(files):
    expected = op()(batch(files[:4]))
    found = broken(op(), lambda _, calls: calls <= 2)(batch(files[:4]))
    assert found == expected


def test_gates_judge_what_the_model_writes(files):
    from pipelines.captions.gates import GatesConfig

    found = op(gates=GatesConfig(min_words=30))(batch(files[:3]))
    assert [own[0]["reason"] for own in found["generated"]] == ["too_short"] * 3
