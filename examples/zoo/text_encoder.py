"""Recipe of the zoo's text encoder: a tiny CLIP text tower that puts a description beside its images.

The images' side is the zoo's frozen ViT: only the text tower and a linear map of class tokens are trained.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.photographs.subjects import SUBJECTS
from examples.zoo.crops import CropPool
from examples.zoo.encoder import class_tokens
from examples.zoo.loop import Log, threads, train_loop
from examples.zoo.recipes import TextEncoderRecipe
from reptok.encoder.vit import load_vit

if TYPE_CHECKING:
    from transformers import CLIPTextModel, PreTrainedTokenizerFast

IMAGE_SIZE = 64
PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"


def build_tokenizer(texts: list[str], max_length: int) -> PreTrainedTokenizerFast:
    """Lower-cased whole words of `texts`; every other word is the unknown one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import NFKC, Lowercase, Sequence
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    vocabulary = {word: index for index, word in enumerate([PAD, UNKNOWN, START, END, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = Sequence([NFKC(), Lowercase()])
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START,
        eos_token=END,
    )


def build_text_encoder(config: TextEncoderRecipe, tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """The untrained text tower, sized for the tokenizer's words."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            projection_dim=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.max_length,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def begin(
    config: TextEncoderRecipe, texts: list[str], folder: Path
) -> tuple[PreTrainedTokenizerFast, CLIPTextModel]:
    """Write a tokenizer of the texts' words into `folder`; return it as it reads from there, and a tower."""
    from transformers import AutoTokenizer

    build_tokenizer(texts, config.max_length).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer, build_text_encoder(config, tokenizer)


def lose_words(
    ids: Tensor, share: float, tokenizer: PreTrainedTokenizerFast, generator: torch.Generator
) -> Tensor:
    """Texts (B, L) of which a share of the words has become the unknown one."""
    lost = torch.rand(ids.shape, generator=generator) < share
    return torch.where(lost & (ids > tokenizer.eos_token_id), tokenizer.unk_token_id, ids)


def train_text_encoder(
    config: TextEncoderRecipe, encoder: Path, folder: Path, scratch: Path, log: Log
) -> dict[str, float]:
    """Train against the class tokens of a frozen encoder, save as a transformers folder, and measure.

    Args:
        config: the recipe.
        encoder: folder of the zoo's ViT.
        folder: receives tokenizer, configuration and weights (float16).
        scratch: where the checkpoint lives until the end.
        log: receives (figures, step).

    Returns:
        Share of texts whose subject is found among validation crops (`retrieval`), of all alt-texts and of
        alt-texts with every fourth word unknown.
    """
    from transformers import CLIPTextModel

    texts = [text for subject in SUBJECTS for text in subject.alt_texts]
    labels = torch.tensor([label for label, subject in enumerate(SUBJECTS) for _ in subject.alt_texts])
    with threads(config.threads):
        torch.manual_seed(config.seed)
        tokenizer, model = begin(config, texts, folder)
        vit = load_vit(encoder, IMAGE_SIZE)[0].eval()
        bank = tokens_by_subject(vit, CropPool.draw("train", config.crops_per_subject, config.seed))
        mean = bank.mean((0, 1))
        image_map = nn.Linear(bank.shape[-1], config.width, bias=False)
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        parameters = [*model.parameters(), *image_map.parameters()]
        optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)

        def step(index: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            chosen = torch.randint(len(texts), (config.batch_size,), generator=generator)
            crops = torch.randint(bank.shape[1], (len(SUBJECTS),), generator=generator)
            images = F.normalize(image_map(bank[torch.arange(len(SUBJECTS)), crops] - mean), dim=-1)
            ids, mask = tokens["input_ids"][chosen], tokens["attention_mask"][chosen]
            ids = lose_words(ids, config.word_dropout, tokenizer, generator)
            found = F.normalize(model(ids, mask).pooler_output, dim=-1)
            return F.cross_entropy(found @ images.T / config.temperature, labels[chosen]), {}

        train_loop(
            "text encoder",
            config,
            {"text": model, "images": image_map},
            optimizer,
            step,
            steps=config.steps,
            scratch=scratch,
            log=log,
        )
        model.half().save_pretrained(folder)
        saved = CLIPTextModel.from_pretrained(folder, dtype=torch.float32).eval()
        shown = tokens_by_subject(vit, CropPool.draw("val", 10, config.seed + 1)) - mean
        with torch.no_grad():
            images = F.normalize(image_map(shown), dim=-1).mean(1)
            generator = torch.Generator().manual_seed(config.seed)
            ids, mask = tokens["input_ids"], tokens["attention_mask"]
            lost = lose_words(ids, 0.25, tokenizer, generator)
            stats = {
                "retrieval": retrieval(saved, ids, mask, images, labels),
                "retrieval_with_lost_words": retrieval(saved, lost, mask, images, labels),
            }
    log({f"val/{key}": value for key, value in stats.items()}, config.steps)
    return stats


def tokens_by_subject(vit: nn.Module, pool: CropPool) -> Tensor:
    """Class tokens of a pool as (subjects, crops of each, D)."""
    return class_tokens(vit, pool.images(slice(None))).unflatten(0, (-1, len(SUBJECTS))).transpose(0, 1)


def retrieval(model: CLIPTextModel, ids: Tensor, mask: Tensor, images: Tensor, labels: Tensor) -> float:
    """Share of texts (B, L) whose nearest subject among `images` (subjects, C) is theirs (B,)."""
    return ((model(ids, mask).pooler_output @ images.T).argmax(1) == labels).float().mean().item()
