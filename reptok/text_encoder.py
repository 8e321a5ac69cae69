"""Frozen language models: captions to the states a generator attends to (paper, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reptok.configs import TextEncoderConfig


class TextEncoder(nn.Module):
    """Captions to (states (B, L, C), mask (B, L)); L is the longest caption of the batch."""

    def __init__(self, config: TextEncoderConfig) -> None:
        """Load tokenizer and model, frozen, in float32.

        Raises:
            OSError: Neither a local folder nor a reachable hub id.
        """
        super().__init__()
        self.config = config
        load = _load_open_clip if config.kind == "open_clip" else _load_transformers
        try:
            model, self.text_tokenizer, self.dim = load(config)
        except Exception as error:
            raise OSError(
                f"no text encoder of kind {config.kind!r} at {config.path!r}: neither a folder nor a model "
                f"that can be fetched ({error})"
            ) from error
        self.model = model.float().eval().requires_grad_(False)

    def train(self, mode: bool = True) -> TextEncoder:
        """Stays in evaluation mode: the language model is frozen."""
        return super().train(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (B, L, C) float32 and mask (B, L) bool, True where there is a token.

        An empty caption keeps the model's own begin and end tokens, so that every row has something to
        attend to.
        """
        if isinstance(captions, str):
            raise ValueError("captions must be a list of strings; wrap a single caption in a list")
        if self.config.kind == "open_clip":
            return self._open_clip_states(list(captions))
        tokens = self.text_tokenizer(
            [c if c.strip() else self._empty_caption for c in captions],
            padding=True,
            truncation=True,
            max_length=self.config.max_length,
            return_tensors="pt",
        ).to(self.device)
        mask = tokens["attention_mask"]
        states = self.model(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        return states.float(), mask.bool()

    @property
    def _empty_caption(self) -> str:
        """The empty string, or a token of the model where its tokenizer would give none for it."""
        if self.text_tokenizer("")["input_ids"]:
            return ""
        tokenizer = self.text_tokenizer
        return str(tokenizer.bos_token or tokenizer.eos_token or tokenizer.unk_token)

    def _open_clip_states(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        ids = self.text_tokenizer(captions).to(self.device)[:, : self.config.max_length]
        length = int((ids != 0).sum(1).max())  # CLIP pads with zeros behind its end token
        ids = ids[:, :length]
        tower: Any = self.model
        x = tower.token_embedding(ids) + tower.positional_embedding[:length]
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        return tower.ln_final(x).float(), ids != 0


def _load_transformers(config: TextEncoderConfig) -> tuple[nn.Module, Any, int]:
    from transformers import AutoModel, AutoTokenizer, CLIPTextModel

    tokenizer = AutoTokenizer.from_pretrained(config.path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    loader = CLIPTextModel if config.kind == "clip" else AutoModel
    model = loader.from_pretrained(config.path, dtype=torch.float32, use_safetensors=True)
    language = getattr(model, "language_model", model)  # a vision-language model's text part
    return language, tokenizer, language.config.hidden_size


def _load_open_clip(config: TextEncoderConfig) -> tuple[nn.Module, Any, int]:
    import open_clip

    name, _, weights = config.path.partition("/")
    model = open_clip.create_model(name, pretrained=weights or None, force_custom_text=True)
    return model.text, open_clip.get_tokenizer(name), model.text.token_embedding.embedding_dim
