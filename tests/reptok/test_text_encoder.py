"""Language models of every kind, tiny and random, in the folder formats that the hubs' loaders read."""

import json

import pytest
import torch
from safetensors.torch import save_file

from reptok.configs import TextEncoderConfig
from reptok.text_encoder import TextEncoder

WORDS = ["<unk>", "<pad>", "<s>", "</s>", "a", "photo", "of", "cat", "dog", "grass"]
SMALL = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
CAPTIONS = ["a photo of a cat", "dog", ""]


def write_tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    ).save_pretrained(folder)


def write_gemma(folder):
    from transformers import GemmaConfig, GemmaForCausalLM

    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    GemmaForCausalLM(GemmaConfig(**SMALL, **heads, pad_token_id=1)).save_pretrained(folder)


def write_internvl(folder):
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": [32, 32], "patch_size": [16, 16]}  # fmt: skip
    text = {"model_type": "qwen2", "num_attention_heads": 2, "num_key_value_heads": 1, **SMALL}
    config = InternVLConfig(vision_config=vision, text_config=text, image_token_id=0, pad_token_id=1)
    InternVLForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.parametrize("write", [write_gemma, write_internvl])
def test_a_language_models_last_states_and_nothing_of_the_padding(write, tmp_path):
    torch.manual_seed(0)
    write(tmp_path)
    write_tokenizer(tmp_path)
    encoder = TextEncoder(TextEncoderConfig(kind="transformers", path=str(tmp_path), max_length=5))
    states, mask = encoder(CAPTIONS)
    assert encoder.dim == 32 and states.shape == (3, 5, 32)  # <s> and four words, the fifth is cut
    assert mask.sum(1).tolist() == [5, 2, 1]
    for row, caption in enumerate(CAPTIONS):
        alone, _ = encoder([caption])
        torch.testing.assert_close(states[row, : alone.shape[1]], alone[0], atol=1e-5, rtol=1e-5)
    another, _ = encoder(["a photo of a dog"])
    torch.testing.assert_close(
        another[0, :4], states[0, :4]
    )  # causal: what comes later changes nothing before
    assert not any(p.requires_grad for p in encoder.parameters())
    assert {name.split(".")[0] for name, _ in encoder.model.named_children()} <= {
        "embed_tokens", "layers", "norm", "rotary_emb",
    }, "more than the language part is kept"  # fmt: skip


@pytest.mark.parametrize("quick", [True, False])
def test_the_text_tower_of_open_clip_as_it_was_trained(quick, tmp_path):
    from open_clip import SimpleTokenizer
    from open_clip.model import _build_text_tower

    text = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    config = {"embed_dim": 24, "quick_gelu": quick, "text_cfg": text}
    torch.manual_seed(0)
    trained = _build_text_tower(24, text, quick).eval()
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    encoder = TextEncoder(TextEncoderConfig(kind="open_clip", path=str(tmp_path)))
    states, mask = encoder(CAPTIONS)
    assert encoder.dim == 32 and mask.sum(1).tolist() == [7, 3, 2]  # words between begin and end
    alone, _ = encoder(["dog"])
    torch.testing.assert_close(states[1, :3], alone[0], atol=1e-5, rtol=1e-5)
    ends = states[torch.arange(3), mask.sum(1) - 1]  # open_clip pools the state of the end token
    wanted = trained(SimpleTokenizer(context_length=12)(CAPTIONS))
    torch.testing.assert_close(ends @ encoder.model.text_projection, wanted, atol=1e-5, rtol=1e-5)
    encoder.save(tmp_path / "again")
    again, _ = TextEncoder(TextEncoderConfig(kind="open_clip", path=str(tmp_path / "again")))(CAPTIONS)
    assert torch.equal(again, states)


def test_a_name_of_open_clip_without_its_weights_is_no_text_encoder():
    with pytest.raises(ValueError, match="names no weights"):
        TextEncoder(TextEncoderConfig(kind="open_clip", path="ViT-B-32"))
    with pytest.raises(ValueError, match="there are: openai"):
        TextEncoder(TextEncoderConfig(kind="open_clip", path="RN50/none"))
    with pytest.raises(ValueError, match="no model 'hf-hub:a'"):
        TextEncoder(TextEncoderConfig(kind="open_clip", path="hf-hub:a/b"))
