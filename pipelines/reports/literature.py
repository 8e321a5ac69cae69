"""What others have printed, each with its protocol and its source: to be read beside figures of our own.

ImageNet at 256 pixels unless the protocol says otherwise. No figure compares across protocols.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Adapting Self-Supervised Representations as a Latent Space for Efficient Generation"


@dataclass(frozen=True)
class Printed:
    """A published row.

    Attributes:
        method: as its paper calls it.
        tokens: how many stand for an image.
        rfid: of reconstructions, None where none was printed.
        gfid: of class-conditional samples.
        source: where it is printed.
    """

    method: str
    tokens: str
    rfid: float | None
    gfid: float | None
    source: str


PROTOCOL = "rFID on the validation set, gFID on 50,000 samples"
ROWS = (
    Printed("LDM", "32 x 32", 0.90, 7.76, PAPER),
    Printed("LlamaGen", "16 x 16", 2.19, 3.06, PAPER),
    Printed("TiTok-L", "32", 2.21, 2.77, PAPER),
    Printed("TiTok-B", "64", 1.70, 2.48, PAPER),
    Printed("TiTok-S", "128", 1.71, 1.97, PAPER),
    Printed("FlexTok d18-d28", "1 to 256", 1.45, 1.86, PAPER),
    Printed("RepTok", "1", 1.85, 3.22, f"{PAPER}, first version"),
    Printed("RCG", "1, frozen", 3.20, None, PAPER),
)
