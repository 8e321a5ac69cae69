"""Recipe of the emoji's text encoder: a tiny CLIP text tower, whose captions find their pictures in a batch.

Every scene is like no other, so there are no subjects to tell apart: the other pictures of the batch are what
a caption must not find. The images' side is the emoji's frozen ViT, with one linear map.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.zoo.emoji import Kind, captioned, known_scenes, measured_scenes
from examples.zoo.encoder import class_tokens
from examples.zoo.loop import Log, threads, train_loop
from examples.zoo.recipes import EmojiTextEncoderRecipe
from examples.zoo.text_encoder import begin, lose_words
from reptok.encoder.vit import load_vit

IMAGE_SIZE = 64


def train_emoji_text_encoder(
    config: EmojiTextEncoderRecipe, encoder: Path, folder: Path, scratch: Path, log: Log
) -> dict[str, float]:
    """Train against the class tokens of a frozen encoder, save as a transformers folder, and measure.

    Args:
        config: the recipe.
        encoder: folder of the emoji's ViT.
        folder: receives tokenizer, configuration and weights (float16).
        scratch: where the checkpoint lives until the end.
        log: receives (figures, step).

    Returns:
        Share of captions that find their picture among 64: of training scenes that this training did not see
        (`retrieval_new`), of held-out combinations (`retrieval_combination`) and emoji (`retrieval_emoji`).
    """
    from transformers import CLIPTextModel

    with threads(config.threads):
        torch.manual_seed(config.seed)
        pool, texts = captioned(known_scenes(config.pictures_per_emoji, config.seed))
        tokenizer, model = begin(config, texts, folder)
        vit = load_vit(encoder, IMAGE_SIZE)[0].eval()
        bank = torch.cat(
            [class_tokens(vit, pool.images(part)) for part in torch.arange(len(pool)).split(512)]
        )
        mean, spread = bank.mean(0), bank.std(0)
        bank = (bank - mean) / spread
        image_map = nn.Linear(bank.shape[-1], config.width, bias=False)
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        optimizer = torch.optim.AdamW(
            [*model.parameters(), *image_map.parameters()],
            config.learning_rate,
            weight_decay=config.weight_decay,
        )

        def step(index: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            chosen = torch.randint(len(texts), (config.batch_size,), generator=generator)
            images = F.normalize(image_map(bank[chosen]), dim=-1)
            ids, mask = tokens["input_ids"][chosen], tokens["attention_mask"][chosen]
            length = int(mask.sum(1).max())
            ids, mask = ids[:, :length], mask[:, :length]
            ids = lose_words(ids, config.word_dropout, tokenizer, generator)
            found = F.normalize(model(ids, mask).pooler_output, dim=-1)
            cosines = found @ images.T / config.temperature
            right = torch.arange(len(chosen))
            loss = (F.cross_entropy(cosines, right) + F.cross_entropy(cosines.T, right)) / 2
            return loss, {"retrieval": (cosines.argmax(1) == right).float().mean()}

        train_loop(
            "emoji text encoder",
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

        @torch.no_grad()
        def retrieval(kind: Kind) -> float:
            shown, said = captioned(measured_scenes(kind, config.seed + 1))
            looks = (class_tokens(vit, shown.images(slice(None))) - mean) / spread
            images = F.normalize(image_map(looks), dim=-1)
            read = tokenizer(said, padding=True, truncation=True, return_tensors="pt")
            found = F.normalize(saved(read["input_ids"], read["attention_mask"]).pooler_output, dim=-1)
            rights = [
                (texts_of @ images_of.T).argmax(1) == torch.arange(len(texts_of))
                for texts_of, images_of in zip(found.split(64), images.split(64), strict=True)
            ]
            return torch.cat(rights).float().mean().item()

        kinds: tuple[Kind, ...] = ("new", "combination", "emoji")
        stats = {f"retrieval_{kind}": retrieval(kind) for kind in kinds}
    log({f"val/{key}": value for key, value in stats.items()}, config.steps)
    return stats
