"""Where an op computes and how precisely: float32 on the CPU, half precision under autocast on a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from reptok.bounds import Count

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Device and precision of a frozen network.

    All fields are significant: they change the last bits of the results, and resumed work must equal
    undisturbed work.

    Attributes:
        device: "cpu" or "cuda".
        precision: "float32", or on cuda "bfloat16" or "float16" autocast.
        batch_size: Images in one call of the network.
    """

    device: str = "cpu"
    precision: str = "float32"
    batch_size: Count = 64

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"compute.device must be 'cpu' or 'cuda', got {self.device!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"compute.precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        if self.device == "cpu" and self.precision != "float32":
            raise ValueError(
                f"compute.precision {self.precision!r} needs device=cuda; the CPU computes float32"
            )
        if self.batch_size < 1:
            raise ValueError(f"compute.batch_size must be at least 1, got {self.batch_size}")

    def prepare(self) -> None:
        """Make this worker's arithmetic repeatable.

        Raises:
            RuntimeError: cuda was asked for and is not there.
        """
        import torch  # heavy: only an op that runs pays for it

        if self.device == "cuda":
            if not torch.cuda.is_available():
                raise RuntimeError("device=cuda, but this worker sees no GPU; give its workers gpus=1")
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
        else:
            torch.set_num_threads(
                1
            )  # the number of threads would change the last bits; use more workers instead

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which the network runs."""
        if self.precision == "float32":
            return nullcontext()
        import torch

        return torch.autocast(self.device, getattr(torch, self.precision))
