"""The text encoder's tokenizer and the weights in the repository."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, CLIPTextModel

from examples.photographs.subjects import SUBJECTS
from examples.zoo.recipes import TextEncoderRecipe
from examples.zoo.text_encoder import build_text_encoder, build_tokenizer

WEIGHTS = Path(__file__).parents[3] / "zoo" / "text_encoder"


def test_words_are_lower_cased_and_unknown_ones_do_no_harm(tmp_path):
    build_tokenizer(["a red cat", "the moon's craters"], 8).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    words = tokenizer.convert_ids_to_tokens(tokenizer("A Red zebra, THE moon").input_ids)
    assert words == ["<s>", "a", "red", "<unk>", "<unk>", "the", "moon", "</s>"]
    assert len(tokenizer("cat " * 50, truncation=True).input_ids) == 8
    assert tokenizer("").input_ids == [2, 3]


def test_padding_does_not_change_a_text():
    tokenizer = build_tokenizer(["a red cat"], 8)
    torch.manual_seed(0)
    model = build_text_encoder(TextEncoderRecipe(width=16, layers=1, heads=2, max_length=8), tokenizer).eval()
    alone = tokenizer("a cat", return_tensors="pt")
    padded = tokenizer("a cat", padding="max_length", return_tensors="pt")
    with torch.no_grad():
        short, long = model(**alone).pooler_output, model(**padded).pooler_output
    assert padded["input_ids"].shape == (1, 8)
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-4)


def test_the_weights_in_the_repository_tell_the_subjects_apart():
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    model = CLIPTextModel.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
    known = tokenizer([s.alt_texts[0] for s in SUBJECTS], padding=True, return_tensors="pt")
    asked = tokenizer([f"a picture of {s.name}" for s in SUBJECTS], padding=True, return_tensors="pt")
    with torch.no_grad():
        texts, questions = (
            torch.nn.functional.normalize(model(**tokens).pooler_output, dim=-1) for tokens in (known, asked)
        )
    right = (questions @ texts.T).argmax(1) == torch.arange(len(SUBJECTS))
    assert right.float().mean() >= 0.9
    assert (WEIGHTS / "model.safetensors").stat().st_size <= 5e6
