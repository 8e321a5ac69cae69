"""Weights and configurations on disk: safetensors and JSON, nothing that can execute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reptok.folder import MAX_JSON_BYTES, check_header, loading, parse_json, read_bytes


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a JSON object, or has megabytes.
    """
    return parse_json(read_bytes(path, MAX_JSON_BYTES), path)


def half_if_exact(tensor: Tensor) -> Tensor:
    """The tensor in float16 when that loses nothing, else unchanged."""
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write safetensors; float32 tensors that float16 holds exactly are stored as float16."""
    tensors = {k: half_if_exact(v.detach().cpu().contiguous()) for k, v in state.items()}
    save_file(tensors, str(path), metadata={"format": "pt"})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU, floating tensors as float32.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds numbers that are not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights are missing: {path}")
    check_header(path)
    with loading(path):
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    check_finite(state, source=str(path))
    return state


def check_finite(state: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse weights with a NaN or an infinity, of which a network makes nothing else.

    Raises:
        ValueError: Names their tensors.
    """
    bad = [key for key, tensor in state.items() if not _finite(tensor)]
    if bad:
        shown = ", ".join(bad[:4]) + (f" and {len(bad) - 4} more" if len(bad) > 4 else "")
        raise ValueError(
            f"{source}: numbers that are not finite in {shown}; the file is damaged, or its training diverged"
        )


def _finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    least, most = torch.aminmax(tensor.detach())  # a NaN is both; one pass, and no second tensor
    return bool(torch.isfinite(least) & torch.isfinite(most))


def load_exact(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Copy ``state`` into ``module``; every key must be there, none over, and every shape must agree.

    Raises:
        ValueError: Names the missing, left-over and misshapen keys.
    """
    own = module.state_dict()
    check_keys({k: tuple(v.shape) for k, v in own.items()}, state, source=source)
    module.load_state_dict(dict(state))


def check_keys(
    expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor | tuple[int, ...]], *, source: str
) -> None:
    """Compare a state dict, or the shapes of one, with the expected shapes.

    Raises:
        ValueError: Names the missing, left-over and misshapen keys.
    """
    problems = [f"missing {k}" for k in expected if k not in state]
    problems += [f"not expected {k}" for k in state if k not in expected]
    shapes = {k: tuple(getattr(v, "shape", v)) for k, v in state.items()}
    problems += [
        f"shape of {k} is {shapes[k]}, expected {shape}"
        for k, shape in expected.items()
        if k in shapes and shapes[k] != tuple(shape)
    ]
    if problems:
        shown = "; ".join(problems[:12]) + (f"; and {len(problems) - 12} more" if len(problems) > 12 else "")
        raise ValueError(f"{source} does not fit: {shown}")
