"""What a model wrote must look like a caption: each gate has a name, which is the reason of a refusal.

The gates look for what vision-language models are known to write instead of a description. They judge form,
not truth; words stay as they are, since a caption that needs cleaning is better not used.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.captions.alt_text import ADDRESS
from reptok.bounds import Count, Share, Whole

MAX_READ = 20_000
"""A longer caption is refused unread."""
REASONS: dict[str, str] = {
    "too_short": "fewer words than the limit",
    "too_long": "more characters than the limit",
    "refusal": "speaks of itself or of not seeing, not of the image",
    "url": "holds a web or mail address",
    "markup": "HTML, Markdown, a model's own tokens, or several lines",
    "repetition": "says the same again and again",
    "language": "not in the wanted language",
    "repeated": "the same caption for too many images of a shard",
    "undecodable": "the image cannot be decoded",
    "no_image": "the row has no image",
    "captioner_failed": "the model failed on this image each time",
}
"""Reason to meaning, of generated captions; for those of alt-texts see `caption_alt_text.py`."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_MARKUP = re.compile(
    r"</?[a-zA-Z!][^<>]*>|<\|[^|]*\|>|&(?:[a-z]{2,8}|#\d+);|\*\*|__|```|^\s*(?:#{1,6}|[-*+]|\d+[.)])\s"
    r"|!?\[[^\[\]]*+\]\([^()]*+\)|\\[a-z]+\{|\n",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\bI(?:'m| am) (?:sorry|unable|not able|an AI)|\bI (?:cannot|can't|can not|don't|do not|apologi[sz]e)\b"
    r"|\bas an? (?:AI|language model|assistant)\b|\b(?:unable to|cannot|can't) (?:see|view|identify|"
    r"determine|describe|process|provide)\b|\b(?:no|without an?) image (?:is |was |has been )?(?:provided|"
    r"attached|available|uploaded|visible)\b|\b(?:please|could you) (?:provide|upload|share)\b"
    r"|\bimage (?:is|was) (?:not (?:visible|available|provided)|blank|missing|too blurry)\b"
    r"|\bhow can I (?:help|assist)\b",
    re.IGNORECASE,
)
_FUNCTION_WORDS = {
    "en": "a an the of in on with and is are as no this that there its his her their from at by for to near "
    "under above behind over into it which while between",
    "de": "der die das eine einen einer und auf mit dem den des im ist sind von vor neben über unter ein",
    "fr": "le la les un une des du et dans sur avec est sont aux devant sous qui ce cette",
    "es": "el la los las un una unos unas y de del en con sobre es son al por que está",
    "it": "il lo la gli le un una e di del della con su è sono nel che",
    "pt": "o os um uma e de do da dos em com sobre é são na que está",
    "nl": "de het een en op met zijn aan voor naast onder die dat",
}
"""Words that carry a language's grammar: a sentence has some of its own and few of another's."""


@dataclass(frozen=True, kw_only=True)
class GatesConfig:
    """What a generated caption must be.

    Attributes:
        min_words: Least number of words.
        max_characters: Longest caption; a longer one is refused, since its end would be missing.
        max_phrase_repeats: How often a phrase of three words may occur.
        min_distinct_words: Least share of different words, judged from eight words on.
        language: "en", "de", "fr", "es", "it", "pt", "nl", or "" for any.
        max_share: Largest share of a shard's images that one caption may have.
        min_repeats: So many images may have the same caption in any case.
    """

    min_words: Whole = 3
    max_characters: Count = 500
    max_phrase_repeats: Count = 2
    min_distinct_words: Share = 0.4
    language: str = "en"
    max_share: Share = 0.01
    min_repeats: Whole = 5

    def __post_init__(self) -> None:
        if self.language and self.language not in _FUNCTION_WORDS:
            raise ValueError(
                f"captioner.gates.language must be one of {', '.join(_FUNCTION_WORDS)} or empty, got "
                f"{self.language!r}"
            )
        if not 0 < self.max_share <= 1 or not 0 <= self.min_distinct_words <= 1:
            raise ValueError("captioner.gates: max_share must be in (0, 1], min_distinct_words in [0, 1]")


def refusal_reason(caption: str, config: GatesConfig) -> str | None:
    """The first gate that a caption does not pass, or None."""
    if len(caption) > MAX_READ:
        return "too_long"
    words = [word.lower() for word in _WORD.findall(caption)]
    if _MARKUP.search(caption):
        return "markup"
    if ADDRESS.search(caption):
        return "url"
    if _REFUSAL.search(caption):
        return "refusal"
    if config.language and not speaks(caption, words, config.language):
        return "language"
    if len(words) < config.min_words:
        return "too_short"
    if len(caption) > config.max_characters:
        return "too_long"
    return "repetition" if _repetitive(words, config) else None


def repeated_captions(captions: Sequence[str], images: int, config: GatesConfig) -> set[str]:
    """Captions that too many of a shard's images share.

    Args:
        captions: All captions of the shard; an image's own count once each.
        images: Images that were captioned.
        config: The limits.
    """
    limit = max(config.min_repeats, config.max_share * images)
    return {caption for caption, count in Counter(captions).items() if count > limit}


def speaks(caption: str, words: Sequence[str], language: str) -> bool:
    """Whether a caption is in a language: by its letters, then by its small words.

    All languages here write Latin letters. A foreign small word or two do no harm: names have them.
    """
    letters = [character for character in caption if character.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    if letters and latin < 0.9 * len(letters):
        return False
    own = set(_FUNCTION_WORDS[language].split())
    native = sum(word in own for word in words)
    foreign = max(
        sum(word in known for word in words)
        for known in (set(known.split()) - own for known in _FUNCTION_WORDS.values())
    )
    return foreign <= native + 1


def _repetitive(words: Sequence[str], config: GatesConfig) -> bool:
    if len(words) >= 8 and len(set(words)) < config.min_distinct_words * len(words):
        return True
    phrases = Counter(zip(words, words[1:], words[2:], strict=False))
    return max(phrases.values(), default=0) > config.max_phrase_repeats
