"""Recipe of the zoo's captioner: a tiny InternVL that learns to describe crops with their alt-texts' words.

Its vision part starts as the zoo's ViT (without the registers, which InternVL does not have); projector and
language model start at random. Everything trains on the captions alone.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from examples.photographs.subjects import SUBJECTS, Subject
from examples.zoo.captioner_text import IMAGE, build_processor, dialogues
from examples.zoo.crops import CropPool
from examples.zoo.encoder import parameter_groups, random_views
from examples.zoo.loop import Log, ema_update, threads, train_loop
from examples.zoo.recipes import CaptionerRecipe
from reptok.configs import VisionLanguageConfig
from reptok.encoder.preprocess import Preprocess
from reptok.encoder.vit import load_vit

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast


def build_captioner(
    config: CaptionerRecipe, tokenizer: PreTrainedTokenizerFast
) -> InternVLForConditionalGeneration:
    """The untrained network, sized for the tokenizer's words."""
    from transformers import (
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLVisionConfig,
        Qwen2Config,
    )

    vision = InternVLVisionConfig(
        hidden_size=config.vision_width,
        num_hidden_layers=config.vision_depth,
        num_attention_heads=config.vision_heads,
        intermediate_size=4 * config.vision_width,
        attention_bias=True,
        image_size=config.image_size,
        patch_size=config.patch_size,
        use_mean_pooling=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        intermediate_size=2 * config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads // 2,
        max_position_embeddings=config.max_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
            image_seq_length=config.image_tokens,
            tie_word_embeddings=True,
        )
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


@torch.no_grad()
def start_from_vit(vision: Any, vit: Any) -> None:
    """Copy what a timm ViT shares with InternVL's vision part: patches, [cls], positions, leading blocks."""
    embeddings = vision.embeddings
    embeddings.patch_embeddings.projection.load_state_dict(vit.patch_embed.proj.state_dict())
    embeddings.cls_token.copy_(vit.cls_token)
    embeddings.position_embeddings[:, :1] = 0  # the ViT adds positions to its patches alone
    embeddings.position_embeddings[:, 1:] = vit.pos_embed
    vision.layernorm.load_state_dict(vit.norm.state_dict())
    for layer, block in zip(vision.encoder.layer, vit.blocks, strict=False):
        attention = layer.attention
        for part, kind in zip(("q_proj", "k_proj", "v_proj"), range(3), strict=True):
            rows = slice(kind * block.attn.qkv.in_features, (kind + 1) * block.attn.qkv.in_features)
            getattr(attention, part).weight.copy_(block.attn.qkv.weight[rows])
            getattr(attention, part).bias.copy_(block.attn.qkv.bias[rows])
        attention.projection_layer.load_state_dict(block.attn.proj.state_dict())
        layer.layernorm_before.load_state_dict(block.norm1.state_dict())
        layer.layernorm_after.load_state_dict(block.norm2.state_dict())
        layer.mlp.fc1.load_state_dict(block.mlp.fc1.state_dict())
        layer.mlp.fc2.load_state_dict(block.mlp.fc2.state_dict())
        layer.lambda_1.copy_(block.ls1.gamma)
        layer.lambda_2.copy_(block.ls2.gamma)


def train_captioner(
    config: CaptionerRecipe, encoder: Path, folder: Path, scratch: Path, log: Log
) -> dict[str, float]:
    """Train, save the averaged weights as an InternVL hub folder (float16) and measure what was saved.

    Args:
        config: the recipe.
        encoder: folder of the zoo's ViT.
        folder: receives processor, tokenizer, chat template, configuration and weights.
        scratch: where the checkpoint lives until the end.
        log: receives (figures, step).

    Returns:
        Share of crops whose greedy caption names their subject (`val_named`, `train_named`), and the share of
        validation crops that do under sampling at temperature 1 (`val_named_sampled`).
    """
    with threads(config.threads):
        torch.manual_seed(config.seed)
        texts = [text for subject in SUBJECTS for text in subject.alt_texts]
        each = len(SUBJECTS[0].alt_texts)
        processor = build_processor(config, [*texts, *config.prompts, "user", "assistant"])
        processor.save_pretrained(folder)
        model = build_captioner(config, processor.tokenizer)
        start_from_vit(model.model.vision_tower, load_vit(encoder, config.image_size)[0])
        average = copy.deepcopy(model).requires_grad_(False)
        pool = CropPool.draw("train", config.crops_per_subject, config.seed, config.crop_size)
        preprocess = Preprocess(config.image_size)
        ids, mask, labels = dialogues(processor, config.prompts, texts)
        vision = parameter_groups(model.model.vision_tower, config.weight_decay)
        for group in vision:
            group["lr"] = config.learning_rate * config.vision_rate
        rest = parameter_groups(
            nn.ModuleList([model.model.multi_modal_projector, model.model.language_model]),
            config.weight_decay,
        )
        optimizer = torch.optim.AdamW([*vision, *rest], config.learning_rate, betas=(0.9, 0.98))

        def step(index: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            chosen = torch.randint(len(pool), (config.batch_size,), generator=generator)
            views = preprocess(random_views(pool.images(chosen), config, generator))
            text = pool.labels[chosen] * each + torch.randint(each, chosen.shape, generator=generator)
            prompt = torch.randint(len(config.prompts), chosen.shape, generator=generator)
            rows = prompt * len(texts) + text
            length = int(mask[rows].sum(1).max())
            loss = model(
                input_ids=ids[rows, :length],
                attention_mask=mask[rows, :length],
                labels=labels[rows, :length],
                pixel_values=views,
            ).loss
            return loss, {}

        train_loop(
            "captioner",
            config,
            {"model": Untied(model), "average": Untied(average)},
            optimizer,
            step,
            steps=config.steps,
            after_step=lambda index: ema_update(
                average, model, min(config.ema_decay, (1 + index) / (10 + index))
            ),
            scratch=scratch,
            log=log,
        )
        average.half().save_pretrained(folder)
        stats = measure_captioner(folder, config)
    log({f"val/{key}": value for key, value in stats.items()}, config.steps)
    return stats


class Untied(nn.Module):
    """A model as the list of its parameters: tied weights are one of them, and a checkpoint holds it once."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ParameterList(model.parameters())


def names(caption: str, subject: Subject) -> bool:
    """Whether a caption names a subject, in the singular or the plural."""
    stem = {"galaxies": "galax"}.get(subject.name, subject.name.removesuffix("s"))
    return re.search(rf"\b{stem}(?:s|y|ies)?\b", caption.lower()) is not None


def measure_captioner(folder: Path, config: CaptionerRecipe) -> dict[str, float]:
    """Captions by the saved weights, through the loader that everybody uses, of crops drawn anew."""
    from reptok.captioner import InternVLCaptioner

    def named(split: Any, temperature: float) -> float:
        settings = VisionLanguageConfig(
            path=str(folder), prompts=config.prompts[:1], temperature=temperature, max_new_tokens=24
        )
        captioner = InternVLCaptioner(settings)
        pool = CropPool.draw(split, config.measured_per_subject, config.seed + 1)
        right = 0
        for start in range(0, len(pool), 64):
            images = [pixels.permute(1, 2, 0).numpy() for pixels in pool.pixels[start : start + 64]]
            captions = captioner(images, list(range(start, start + len(images))))
            right += sum(
                names(caption[0].text, SUBJECTS[label])
                for caption, label in zip(captions, pool.labels[start : start + 64], strict=True)
            )
        return right / len(pool)

    return {
        "val_named": named("val", 0.0),
        "train_named": named("train", 0.0),
        "val_named_sampled": named("val", 1.0),
    }
