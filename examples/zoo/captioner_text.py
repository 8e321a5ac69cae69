"""The words of the zoo's captioner: InternVL's processor over a small vocabulary, and what is learned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from examples.zoo.recipes import CaptionerRecipe
from reptok.encoder.preprocess import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from transformers import InternVLProcessor, PreTrainedTokenizerFast

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<|im_start|>", "<|im_end|>"
IMAGE, IMAGE_START, IMAGE_END, VIDEO = "<IMG_CONTEXT>", "<img>", "</img>", "<video>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}<IMG_CONTEXT>\n"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>\n{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
IGNORED = -100


def build_processor(config: CaptionerRecipe, texts: Sequence[str]) -> InternVLProcessor:
    """InternVL's own processor over a lower-casing tokenizer of the whole words of `texts`.

    A word keeps the space before it, so that decoding gives the text back, hyphens and apostrophes included.
    """
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLProcessor,
        InternVLVideoProcessor,
        PreTrainedTokenizerFast,
    )

    special = [PAD, UNKNOWN, START, END, IMAGE, IMAGE_START, IMAGE_END, VIDEO]
    spaced = {word for text in texts for word in re.findall(r" ?\w+| ?[^\w\s]", " " + text.lower())}
    words = sorted(word.replace(" ", "▁") for word in spaced)
    tokenizer = Tokenizer(
        WordLevel({word: number for number, word in enumerate(special + words)}, unk_token=UNKNOWN)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
            pre_tokenizers.Split(Regex(r"▁?\w+|▁?[^\w\s▁]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=config.max_length,
        padding_side="left",
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        extra_special_tokens={
            "start_image_token": IMAGE_START,
            "end_image_token": IMAGE_END,
            "context_image_token": IMAGE,
            "video_token": VIDEO,
        },
    )
    fast.add_special_tokens({"additional_special_tokens": [START]}, replace_extra_special_tokens=False)
    size = {"height": config.image_size, "width": config.image_size}
    pixels = {"size": size, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(**pixels),
        tokenizer=fast,
        video_processor=InternVLVideoProcessor(**pixels),
        image_seq_length=config.image_tokens,
        chat_template=CHAT_TEMPLATE,
    )


def dialogues(
    processor: InternVLProcessor, prompts: Sequence[str], captions: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Every prompt with every caption as its answer, captions running fastest.

    Returns:
        ids, mask and labels, int64 (prompts * captions, L), padded on the right; labels are the answers'.
    """
    tokenizer = processor.tokenizer
    rows = []
    image = IMAGE_START + IMAGE * processor.image_seq_length + IMAGE_END
    for prompt in prompts:
        asked = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}],
            add_generation_prompt=True,
        ).replace(IMAGE, image)
        question = tokenizer(asked).input_ids
        rows += [(question, tokenizer(caption + END).input_ids) for caption in captions]
    length = max(len(question) + len(answer) for question, answer in rows)
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for number, (question, answer) in enumerate(rows):
        whole = torch.tensor(question + answer)
        ids[number, : len(whole)], mask[number, : len(whole)] = whole, 1
        labels[number, len(question) : len(whole)] = whole[len(question) :]
    return ids, mask, labels
