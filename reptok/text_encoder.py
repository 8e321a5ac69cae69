"""Frozen language models: captions to the states a generator attends to (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reptok.configs import TextEncoderConfig
from reptok.folder import loading, local_folder

CLIP_CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel")
CLIP_LEFT_OVER = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")
HEADS = ("lm_head.",)
"""Of a language model only its states are read."""
TRIED = ("", "a photo of a cat", "\U0001f408 \u732b \x00")
"""Read once while loading: no caption, a common one, and characters that few vocabularies have."""


class TextEncoder(nn.Module):
    """Captions to (states (B, L, C), mask (B, L)); L is the longest caption of the batch."""

    def __init__(self, config: TextEncoderConfig) -> None:
        """Load tokenizer and model, frozen, in float32.

        Raises:
            OSError: Neither a local folder nor a reachable hub id.
            ValueError: The folder is none of this kind, or does not fit together.
        """
        super().__init__()
        self.config = config
        load = _load_open_clip if config.kind == "open_clip" else _load_transformers
        try:
            model, self.text_tokenizer, self.dim = load(config)
        except OSError as error:
            raise OSError(
                f"no text encoder of kind {config.kind!r} at {config.path!r}: neither a folder nor a model "
                f"that can be fetched ({error})"
            ) from error
        self.model = model.float().eval().requires_grad_(False)
        with loading(config.path):  # what does not fit together shows now, and not at the first captions
            self(TRIED)

    def train(self, mode: bool = True) -> TextEncoder:
        """Stays in evaluation mode: the language model is frozen."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def forward(self, captions: Sequence[str], *, multiple: int = 1) -> tuple[Tensor, Tensor]:
        """States (B, L, C) float32 and mask (B, L) bool, True where there is a token.

        An empty caption keeps the model's own begin and end tokens, so that every row has something to
        attend to.

        Args:
            captions: B of them.
            multiple: L is the longest caption's length up to a multiple of this, so that a GPU sees few
                lengths, with masked zeros where that is longer than the model allows.
        """
        if isinstance(captions, str):
            raise ValueError("captions must be a list of strings; wrap a single caption in a list")
        ids, mask = self.tokenize(list(captions))
        length = -(-ids.shape[1] // multiple) * multiple
        allowed = min(length, self.longest)
        ids, mask = _padded(ids, allowed, self._pad), _padded(mask, allowed, False)
        device = self.device
        inputs = [t.pin_memory() if device.type == "cuda" else t for t in (ids, mask)]
        ids, mask = (t.to(device, non_blocking=True) for t in inputs)
        states = self._states(ids, mask).float()
        return F.pad(states, (0, 0, 0, length - allowed)), _padded(mask, length, False)

    @property
    def longest(self) -> int:
        """Most tokens of a caption: the configured number, or what the model has positions for."""
        return min(self.config.max_length, self._positions)

    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Token numbers (B, L) and mask (B, L) bool, on the CPU; L is the longest caption's length."""
        if self.config.kind == "open_clip":
            ids = self.text_tokenizer(captions)[:, : self.longest]
            length = int((ids != 0).sum(1).max())  # CLIP pads with zeros behind its end token
            return ids[:, :length], ids[:, :length] != 0
        tokens = self.text_tokenizer(
            [c if c.strip() else self._empty_caption for c in captions],
            padding=True,
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
        )
        return tokens["input_ids"], tokens["attention_mask"].bool()

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        tower: Any = self.model
        if self.config.kind != "open_clip":
            states: Tensor = tower(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            return states
        length = ids.shape[1]
        x = tower.token_embedding(ids) + tower.positional_embedding[:length]
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        last: Tensor = tower.ln_final(x)
        return last

    def save(self, folder: Path) -> None:
        """Write an open_clip tower as a folder; the other kinds have one."""
        from reptok.open_clip_models import save_text_tower

        save_text_tower(self.model, folder)

    @property
    def _positions(self) -> int:
        """Tokens for which the model has positions."""
        if self.config.kind == "open_clip":
            return len(self.model.positional_embedding)
        return int(getattr(self.model.config, "max_position_embeddings", None) or self.config.max_length)

    @property
    def _empty_caption(self) -> str:
        """The empty string, or a token of the model where its tokenizer would give none for it."""
        if self.text_tokenizer("")["input_ids"]:
            return ""
        tokenizer = self.text_tokenizer
        return str(tokenizer.bos_token or tokenizer.eos_token or tokenizer.unk_token)

    @property
    def _pad(self) -> int:
        """The number of the token that stands behind the end of a caption."""
        return 0 if self.config.kind == "open_clip" else int(self.text_tokenizer.pad_token_id)


def _padded(rows: Tensor, length: int, value: int | bool) -> Tensor:
    """Rows (B, L) with `value` behind them, (B, length)."""
    return F.pad(rows, (0, length - rows.shape[1]), value=value)


def _load_transformers(config: TextEncoderConfig) -> tuple[nn.Module, Any, int]:
    from transformers import AutoModel, CLIPTextModel

    from reptok.transformers_folder import check_vocabulary, load_network, load_tokenizer

    folder = local_folder(config.path)
    tokenizer = load_tokenizer(folder)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ValueError(f"the tokenizer in {folder} has neither a token for padding nor one for the end")
    tokenizer.padding_side = "right"
    clip = config.kind == "clip"
    model: Any = load_network(
        CLIPTextModel if clip else AutoModel,
        folder,
        torch.float32,
        architectures=CLIP_CLASSES if clip else (),
        left_over=CLIP_LEFT_OVER if clip else HEADS,
    )
    language = getattr(model, "language_model", model)  # a vision-language model's text part
    check_vocabulary(tokenizer, language, folder)
    return language, tokenizer, language.config.hidden_size


def _load_open_clip(config: TextEncoderConfig) -> tuple[nn.Module, Any, int]:
    from reptok import open_clip_models

    if Path(config.path).is_dir():
        tower = open_clip_models.load_text_tower(Path(config.path))
    else:
        tower = open_clip_models.fetch_text_tower(config.path)
    return tower, open_clip_models.tokenizer_of(tower), tower.token_embedding.embedding_dim
