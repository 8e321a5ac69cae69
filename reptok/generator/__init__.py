"""Generators of tokens: a flow over one token per image, given nothing, a class or a text (section 3.3)."""

from reptok.configs import GeneratorConfig
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TokenGenerator

__all__ = ["Condition", "GeneratorConfig", "TokenGenerator"]
