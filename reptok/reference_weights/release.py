"""The released training checkpoint (tokenizer and generator in one file) to a model folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reptok.model_card import default_card
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import save_pretrained
from reptok.reference_weights.checkpoint import entry, read_checkpoint
from reptok.reference_weights.generator import import_generator
from reptok.reference_weights.tokenizer import import_tokenizer

TOKENIZER = "first_stage.decoder.decoder."
ENCODER_COPY = "first_stage.encoder.encoder."
LIVE, AVERAGED = "model.net.", "ema_model.net."
IGNORED = "metric_tracker."
NOTICE = (
    "\nImported from the authors' released checkpoint, whose licence (personal and scientific, "
    "non-commercial use) goes with these weights.\n"
)


def import_release(ckpt_path: str | Path, out_folder: str | Path) -> RepTokPipeline:
    """Convert the released checkpoint into a folder for ``load_pretrained``; nothing in the file is executed.

    The averaged generator is taken, the tokenizer's float32 encoder rather than its bfloat16 copy, and the
    scale of the tokens from the hyper-parameters.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such checkpoint; names every key that is missing, left over or of a wrong shape.
    """
    checkpoint = read_checkpoint(Path(ckpt_path))
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict):
        raise ValueError(f"{ckpt_path} has no state_dict; is it the released Lightning checkpoint?")
    known = (TOKENIZER, ENCODER_COPY, LIVE, AVERAGED, IGNORED)
    unknown = [k for k in state if not k.startswith(known)]
    if unknown:
        raise ValueError(f"the release does not fit: not expected {'; '.join(unknown[:12])}")
    tokenizer_state = _part(state, TOKENIZER)
    _check_encoder_copy(tokenizer_state, _part(state, ENCODER_COPY))
    live, averaged = _part(state, LIVE), _part(state, AVERAGED)
    if averaged and set(live) != set(averaged):
        raise ValueError(
            f"live and averaged generator differ in keys: {'; '.join(sorted(set(live) ^ set(averaged))[:12])}"
        )
    generator = import_generator(averaged or live)
    scale = _scale_factor(checkpoint)
    width = generator.config.token_dim
    generator.set_token_stats(torch.zeros(width), torch.full((width,), scale))
    pipe = RepTokPipeline(import_tokenizer(tokenizer_state), generator).eval()
    save_pretrained(pipe, out_folder, card=default_card(pipe) + NOTICE)
    return pipe


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _check_encoder_copy(tokenizer: Mapping[str, Tensor], copy: Mapping[str, Tensor]) -> None:
    """The generator's own copy of the adapted encoder must be the tokenizer's, up to its precision."""
    own = _part(tokenizer, "encoder.dino.model.")
    if set(copy) != set(own):
        raise ValueError(f"{ENCODER_COPY}* differs in keys: {'; '.join(sorted(set(copy) ^ set(own))[:12])}")
    for key, value in copy.items():
        if value.shape != own[key].shape:
            raise ValueError(
                f"shape of {ENCODER_COPY}{key} is {tuple(value.shape)}, expected {tuple(own[key].shape)}"
            )
    changed = [k for k, v in copy.items() if not torch.equal(v, own[k].to(v.dtype))]
    if changed:
        warnings.warn(
            f"{ENCODER_COPY}* is not the tokenizer's encoder ({len(changed)} keys, first {changed[0]}); the "
            "tokenizer's is used",
            stacklevel=3,
        )


def _scale_factor(checkpoint: Mapping[str, Any]) -> float:
    """The number the authors divide tokens by, from the hyper-parameters."""
    try:
        scale = entry(checkpoint, "hyper_parameters", "first_stage_cfg", "params", "scale_factor")
        return float(scale)
    except (KeyError, TypeError, ValueError):
        warnings.warn("the checkpoint names no scale_factor of its tokens; 1.0 is assumed", stacklevel=3)
        return 1.0
