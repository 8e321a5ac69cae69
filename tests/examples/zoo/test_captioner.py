"""The captioner's recipe: its start, its text, and the folder that it leaves."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from transformers import AutoProcessor

from examples.photographs.subjects import SUBJECTS
from examples.zoo.captioner import build_captioner, start_from_vit, train_captioner
from examples.zoo.captioner_text import IGNORED, build_processor, dialogues
from examples.zoo.encoder import architecture
from examples.zoo.recipes import CaptionerRecipe, EncoderRecipe
from examples.zoo.stages import TrainCaptioner
from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from reptok.captioner import InternVLCaptioner
from reptok.configs import VisionLanguageConfig
from reptok.encoder.vit import save_vit

SMALL = CaptionerRecipe(
    vision_width=48, vision_depth=1, vision_heads=4, width=32, depth=1, crops_per_subject=2,
    crop_size=72, batch_size=6, steps=4, warmup_steps=1, measured_per_subject=1,
)  # fmt: skip
TEXTS = [text for subject in SUBJECTS for text in subject.alt_texts]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a ViT that has no registers, and the network."""
    torch.manual_seed(0)
    shape = architecture(EncoderRecipe(width=48, depth=1, heads=4, registers=0))
    vit = shape.build()
    for parameter in vit.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    folder = tmp_path_factory.mktemp("encoder")
    save_vit(vit, shape, folder)
    return folder, vit.eval()


def test_texts_survive_the_tokenizer():
    tokenizer = build_processor(SMALL, TEXTS).tokenizer
    assert [tokenizer.decode(tokenizer(text).input_ids) for text in TEXTS] == [t.lower() for t in TEXTS]
    assert tokenizer.decode(tokenizer("A  cat's\n zebra").input_ids, skip_special_tokens=True) == "a cat's"


def test_only_the_answer_is_learned():
    processor = build_processor(SMALL, [*TEXTS, *SMALL.prompts, "user", "assistant"])
    ids, mask, labels = dialogues(processor, SMALL.prompts, TEXTS)
    assert len(ids) == len(SMALL.prompts) * len(TEXTS)
    tokenizer = processor.tokenizer
    for row in (0, 30, len(TEXTS) + 5):
        learned = labels[row][labels[row] != IGNORED]
        assert tokenizer.decode(learned) == TEXTS[row % len(TEXTS)].lower() + "<|im_end|>"
        asked = tokenizer.decode(ids[row][(labels[row] == IGNORED) & (mask[row] == 1)])
        assert SMALL.prompts[row // len(TEXTS)] in asked and asked.count("<IMG_CONTEXT>") == 4


def test_the_vision_part_starts_as_the_vit(encoder):
    _, vit = encoder
    model = build_captioner(SMALL, build_processor(SMALL, TEXTS).tokenizer).eval()
    start_from_vit(model.model.vision_tower, vit)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs, ours = vit.forward_features(pixels), model.model.vision_tower(pixels).last_hidden_state
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("no_other_process")
def test_the_stage_leaves_an_internvl_folder(encoder, tmp_path):
    out = Workspace(str(tmp_path / "captioner"))
    stats = TrainCaptioner(SMALL).run({"encoder": Artifact("encoder", "0" * 16, str(encoder[0]))}, out)
    out.remove_scratch()
    out.publish({"stage": "train_captioner"})
    assert set(stats) == {"val_named", "train_named", "val_named_sampled"}
    assert AutoProcessor.from_pretrained(tmp_path / "captioner").image_seq_length == 4
    captioner = InternVLCaptioner(
        VisionLanguageConfig(path=str(tmp_path / "captioner"), prompts=SMALL.prompts[:1], max_new_tokens=4)
    )
    image = torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()
    assert len(captioner([image], [0])[0]) == 1
    with safe_open(tmp_path / "captioner" / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_a_killed_training_ends_with_the_same_weights(encoder, tmp_path):
    folder, _ = encoder

    def train(name, log=lambda figures, step: None, **settings):
        return train_captioner(
            replace(SMALL, **settings), folder, tmp_path / name / "saved", tmp_path / name, log
        )

    class Killed(Exception):
        pass

    def kill(figures, step):
        if step == 3:
            raise Killed

    train("whole")
    with pytest.raises(Killed):
        train("cut", kill, log_every=1, checkpoint_seconds=0.0)
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists()
    train("cut")
    whole, cut = ((tmp_path / name / "saved" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
