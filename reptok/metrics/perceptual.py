"""LPIPS (Zhang et al., 2018) from weights on disk: nothing is fetched behind the user's back."""

from pathlib import Path

import torch
from torch import Tensor

from reptok.metrics.features import load_foreign_weights


class Lpips:
    """Learned perceptual distance of image pairs, AlexNet variant, version 0.1."""

    def __init__(self, backbone: str | Path, device: str = "cpu"):
        """Load the network; the small linear heads come with the `lpips` package.

        Args:
            backbone: torchvision's AlexNet weights (`alexnet-owt-7be5be79.pth`, or as `.safetensors`).
            device: torch device to run on.

        Raises:
            FileNotFoundError: if there is no such file.
            ImportError: if `lpips` is not installed.
            ValueError: if the file is not an AlexNet.
        """
        state = load_foreign_weights(backbone)
        try:
            import lpips
        except ImportError as error:
            raise ImportError("LPIPS needs the lpips package: pip install lpips") from error
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        with torch.no_grad():
            for name, parameter in network.net.named_parameters():
                _, index, kind = name.split(".")  # "slice2.3.weight": slices keep AlexNet's layer numbers
                key = f"features.{index}.{kind}"
                if key not in state or state[key].shape != parameter.shape:
                    raise ValueError(f"{backbone} is not an AlexNet of torchvision: no fitting {key}")
                parameter.copy_(state[key])
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, images: Tensor, references: Tensor) -> Tensor:
        """Distances (B,) of images (B, 3, H, W) in [-1, 1], at least 64 pixels; 0 for equal images."""
        first, second = images.clamp(-1, 1).to(self.device), references.clamp(-1, 1).to(self.device)
        distances: Tensor = self.network(first, second)
        return distances.flatten()
