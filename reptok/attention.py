"""Which kernel computes attention: the fastest that the GPU has and that its operands allow, and said so.

cuDNN's is ahead on Hopper and Blackwell GPUs, FlashAttention-2 elsewhere. Both take bfloat16 or float16 heads
of a multiple of 8 up to 128 wide, contiguous along that width; a mask rules FlashAttention out.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

HOPPER = 9
"""Major number of the compute capability from which cuDNN comes first."""
NAMES = {
    SDPBackend.CUDNN_ATTENTION: "cuDNN",
    SDPBackend.FLASH_ATTENTION: "FlashAttention",
    SDPBackend.EFFICIENT_ATTENTION: "memory-efficient",
    SDPBackend.MATH: "plain products",
}
SLOW = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)


def preference(major: int) -> list[SDPBackend]:
    """Return the kernels for a GPU of compute capability `major`, the best first."""
    flash = [SDPBackend.FLASH_ATTENTION, *SLOW]
    return [SDPBackend.CUDNN_ATTENTION, *flash] if major >= HOPPER else flash


def preferred(device: torch.device | str) -> AbstractContextManager[Any]:
    """Let attention within the block use the device's best kernel that its operands allow."""
    device = torch.device(device)
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel(preference(torch.cuda.get_device_capability(device)[0]), set_priority=True)


def stated(device: torch.device) -> str | None:
    """Say which kernels the device would use, the first that its operands allow; None but on a GPU."""
    if device.type != "cuda":
        return None
    names = [NAMES[backend] for backend in preference(torch.cuda.get_device_capability(device)[0])]
    return f"attention by {', else '.join(names)}"


def chosen(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> str:
    """Name the kernel that would compute attention of these operands (B, H, N, d) where they are."""
    number = torch._fused_sdp_choice(query, key, value, attn_mask=mask)
    return NAMES[SDPBackend(number)]


def obstacle(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    """Say why neither cuDNN nor FlashAttention would take operands (B, H, N, d); None if they would."""
    width = query.shape[-1]
    if {t.dtype for t in (query, key, value)} not in ({torch.bfloat16}, {torch.float16}):
        return f"operands are {query.dtype}, {key.dtype} and {value.dtype}, not all bfloat16 or float16"
    if width % 8 or width > 128:
        return f"heads are {width} wide, not a multiple of 8 up to 128"
    if any(t.stride(-1) != 1 for t in (query, key, value)):
        return "a head's numbers are not next to each other in memory"
    return None
