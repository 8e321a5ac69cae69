"""RepTok: one continuous token per image.

Names are imported when they are first used, so that ``import reptok`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reptok.configs import GeneratorConfig, RepTokConfig
    from reptok.generator.conditioning import Condition
    from reptok.generator.generator import TokenGenerator
    from reptok.pipeline import RepTokPipeline
    from reptok.pretrained import load_pretrained, save_pretrained
    from reptok.tokenizer import RepTok

__version__ = "0.1.0"
__all__ = [
    "Condition",
    "GeneratorConfig",
    "RepTok",
    "RepTokConfig",
    "RepTokPipeline",
    "TokenGenerator",
    "load_pretrained",
    "save_pretrained",
]

_HOMES = {
    "Condition": "reptok.generator.conditioning",
    "GeneratorConfig": "reptok.configs",
    "RepTok": "reptok.tokenizer",
    "RepTokConfig": "reptok.configs",
    "RepTokPipeline": "reptok.pipeline",
    "TokenGenerator": "reptok.generator.generator",
    "load_pretrained": "reptok.pretrained",
    "save_pretrained": "reptok.pretrained",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reptok' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
