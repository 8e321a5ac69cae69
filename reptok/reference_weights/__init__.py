"""The authors' released weights in this project's names and conventions; nothing else knows theirs.

Their code and weights are licensed for personal and scientific, non-commercial use: this package reads a
checkpoint that the user has, and ships none.
"""

from reptok.reference_weights.generator import import_generator
from reptok.reference_weights.release import import_release
from reptok.reference_weights.tokenizer import import_tokenizer

__all__ = ["import_generator", "import_release", "import_tokenizer"]
