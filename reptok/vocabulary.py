"""Which words of captions a language model does not know: what it cannot tell apart, nothing can learn."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reptok.folder import MAX_VOCABULARY_BYTES, parse_json, read_bytes

TOKENIZER = "tokenizer.json"
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass(frozen=True)
class Words:
    """Words of captions, counted as often as they occur.

    Attributes:
        total: How many there are.
        unknown: How often each word occurs that becomes the model's unknown token, lower-cased.
    """

    total: int
    unknown: Counter[str]

    @property
    def unknown_share(self) -> float:
        """Unknown words among all, in [0, 1]; 0 without words."""
        return self.unknown.total() / self.total if self.total else 0.0

    def __str__(self) -> str:
        text = f"{100 * self.unknown_share:.1f} % of the captions' words are unknown to the text encoder"
        common = ", ".join(word for word, _ in self.unknown.most_common(5))
        return text + (f" ({common}, ...)" if common else "")


def words_of(folder: Path, captions: Iterable[str]) -> Words | None:
    """Look every word of the captions up in a language model's tokenizer.

    Args:
        folder: The model's folder.
        captions: What it would read.

    Returns:
        None where the folder has no `tokenizer.json`, of which nothing is known without its library.
    """
    file = folder / TOKENIZER
    if not file.is_file():
        return None
    from tokenizers import Tokenizer

    model = parse_json(read_bytes(file, MAX_VOCABULARY_BYTES), file)["model"]
    tokenizer = Tokenizer.from_file(str(file))
    unknown_id = model.get("unk_id")  # a unigram model's; the others name a token
    if unknown_id is None and model.get("unk_token"):
        unknown_id = tokenizer.token_to_id(model["unk_token"])
    found = Counter(word.lower() for caption in captions for word in _WORD.findall(caption))
    unknown = {
        word: count
        for word, count in found.items()
        if unknown_id in tokenizer.encode(word, add_special_tokens=False).ids
    }
    return Words(found.total(), Counter(unknown))
