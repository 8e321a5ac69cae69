"""Captions by the zoo's InternVL: a function of image, prompt and seed, whatever stands beside them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.photographs.subjects import SUBJECTS
from examples.zoo.captioner import names
from examples.zoo.crops import CropPool
from reptok.captioner import InternVLCaptioner, SeededSampling, load_captioner
from reptok.configs import VisionLanguageConfig

ZOO = Path(__file__).parents[2] / "zoo"
PROMPTS = ("describe the image in one sentence.", "what does the picture show?")


def config(**settings):
    return VisionLanguageConfig(
        **{"path": str(ZOO / "captioner"), "prompts": PROMPTS, "max_new_tokens": 24, **settings}
    )


@pytest.fixture(scope="module")
def captioner():
    return InternVLCaptioner(config())


@pytest.fixture(scope="module")
def crops():
    pool = CropPool.draw("val", 1, 3)
    return [pixels.permute(1, 2, 0).numpy() for pixels in pool.pixels]


def first_logits(captioner, images, prompts):
    pixels, tiles = captioner.pixels(images)
    with torch.no_grad():
        return captioner.model(**captioner.questions(prompts, tiles), pixel_values=pixels).logits[:, -1]


def test_the_zoos_captions_name_the_subjects_of_validation_crops(captioner):
    pool = CropPool.draw("val", 8, 11)
    images = [pixels.permute(1, 2, 0).numpy() for pixels in pool.pixels]
    found = captioner(images, [0] * len(images))
    right = [names(own[0].text, SUBJECTS[label]) for own, label in zip(found, pool.labels, strict=True)]
    assert sum(right) / len(right) >= 0.75
    assert sum(file.stat().st_size for file in (ZOO / "captioner").iterdir()) <= 5e6


def test_padding_and_neighbours_change_no_logit(captioner, crops):
    longer = "what does the picture show? describe the image in one sentence."
    prompts = [PROMPTS[0], PROMPTS[1], longer, PROMPTS[0]]
    batch = first_logits(captioner, crops[:4], prompts)
    mask = captioner.questions(prompts, [1] * 4)["attention_mask"]
    assert mask[:, -1].all() and (mask[:, 0] == 0).sum() == 3  # padded on the left, all but the longest
    for image, prompt, logits in zip(crops, prompts, batch, strict=False):
        alone = first_logits(captioner, [image], [prompt])[0]
        torch.testing.assert_close(alone, logits, atol=1e-5, rtol=1e-5)
    other = first_logits(captioner, [crops[9]], [PROMPTS[0]])[0]
    assert (other - batch[0]).abs().max() > 0.1  # the comparison could fail


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_captions_are_the_same_alone_and_in_any_batch(crops, temperature):
    captioner = InternVLCaptioner(config(temperature=temperature, captions_per_image=2))
    seeds = [1000 + number for number in range(8)]
    together = captioner(crops[:8], seeds)
    order = [5, 2, 7, 0, 1]
    assert captioner([crops[i] for i in order], [seeds[i] for i in order]) == [together[i] for i in order]
    alone = [captioner([image], [seed])[0] for image, seed in zip(crops[:8], seeds, strict=True)]
    assert alone == together
    assert [caption.prompt for caption in together[0]] == list(PROMPTS)
    assert len({caption.seed for own in together for caption in own}) == 16


def test_another_seed_draws_other_captions(crops):
    captioner = InternVLCaptioner(config(temperature=1.0))
    images = [crops[0]] * 12
    texts = {own[0].text for own in captioner(images, list(range(12)))}
    assert len(texts) > 3
    assert len({own[0].text for own in captioner(images, [4] * 12)}) == 1


def test_seeded_sampling_follows_the_distribution():
    settings = config(temperature=2.0, max_new_tokens=1)
    logits = torch.tensor([0.0, 2.0, -1.0, 1.0]).expand(20_000, -1)
    drawn = SeededSampling(range(20_000), settings, 3, torch.device("cpu"))(torch.zeros(20_000, 3), logits)
    assert ((drawn == 0).sum(1) == 1).all() and (drawn.isinf().sum(1) == 3).all()
    shares = (drawn == 0).float().mean(0)
    torch.testing.assert_close(shares, (logits[0] / 2).softmax(0), atol=0.015, rtol=0)  # four deviations


def test_seeded_sampling_stays_in_the_nucleus():
    settings = config(temperature=1.0, top_p=0.6, max_new_tokens=1)
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(5000, -1)
    drawn = SeededSampling(range(5000), settings, 0, torch.device("cpu"))(torch.zeros(5000, 0), logits)
    shares = (drawn == 0).float().mean(0)
    assert shares[2:].tolist() == [0, 0]  # 0.5 is not yet 0.6, 0.5 + 0.3 is enough
    assert abs(shares[0].item() - 0.625) < 0.03


def test_tiles_and_tokens_are_those_of_internvls_own_processor(captioner):
    noise = np.random.default_rng(0)
    image = noise.integers(0, 256, (50, 90, 3), dtype=np.uint8).repeat(3, 0).repeat(3, 1)
    content = [{"type": "image"}, {"type": "text", "text": PROMPTS[0]}]
    text = captioner.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    for tiles, settings in ((1, config()), (4, config(max_tiles=4))):
        theirs = captioner.processor(
            images=[image], text=[text], crop_to_patches=tiles > 1, max_patches=tiles, return_tensors="pt"
        )
        ours = InternVLCaptioner(settings)
        pixels, counts = ours.pixels([image])
        torch.testing.assert_close(pixels, theirs["pixel_values"], atol=1e-5, rtol=0)
        asked = ours.questions([PROMPTS[0]], counts)
        assert asked["input_ids"].tolist() == theirs["input_ids"].tolist()
        assert counts == [1 if tiles == 1 else 3]  # 150 x 270: two tiles side by side, and the thumbnail


def test_images_of_several_tiles_are_captioned_alike_in_a_batch(crops):
    captioner = InternVLCaptioner(config(max_tiles=4))
    wide = np.concatenate([crops[3], crops[3]], axis=1).repeat(2, 0).repeat(2, 1)
    images = [wide, crops[0], crops[5]]
    alone = [captioner([image], [seed])[0] for seed, image in enumerate(images)]
    assert captioner(images, [0, 1, 2]) == alone


def test_no_images_are_no_captions_and_seeds_must_match(captioner, crops):
    assert captioner([], []) == []
    with pytest.raises(ValueError, match="2 images came with 1 seeds"):
        captioner(crops[:2], [1])


def test_a_hub_id_out_of_reach_says_what_to_do(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match=r"no InternVL at 'OpenGVLab/InternVL3-1B-hf'.*hf download"):
        load_captioner(VisionLanguageConfig())


def test_a_folder_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="text_encoder"):
        load_captioner(config(path=str(ZOO / "text_encoder")))


def test_vllm_is_the_pipelines():
    with pytest.raises(ValueError, match="backend=vllm writes captions in the pipeline alone"):
        load_captioner(config(backend="vllm"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "oracle"}, "backend"),
        ({"prompts": ()}, "prompts"),
        ({"prompts": (" ",)}, "prompts"),
        ({"top_p": 0.0}, "top_p"),
        ({"temperature": -1.0}, "temperature"),
        ({"captions_per_image": 3}, "would repeat"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_the_subjects_names_are_told_apart():
    for subject in SUBJECTS:
        told = Counter(other.name for other in SUBJECTS for text in subject.alt_texts if names(text, other))
        assert told[subject.name] == len(subject.alt_texts)
        assert set(told) == {subject.name}
