"""Sizes read off the keys and shapes of a state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor


def size(state: Mapping[str, Tensor], key: str, axis: int) -> int:
    """Length of one axis of a tensor that must be there."""
    if key not in state:
        raise ValueError(f"the authors' checkpoint does not fit: missing {key}")
    return int(state[key].shape[axis])


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest number that ``pattern`` captures in a key, 0 without a match."""
    found = (re.match(pattern, key) for key in state)
    return max((int(m[1]) + 1 for m in found if m), default=0)
