"""Alt-texts become plain one-line captions, or a reason why not."""

import random
import time
import unicodedata

import pytest

from pipelines.captions.alt_text import ADDRESS, AltTextConfig, clean_alt_text
from pipelines.captions.gates import GatesConfig, refusal_reason


def cleaned(text, **settings):
    return clean_alt_text(text, AltTextConfig(**settings))


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("a red fox", "a red fox"),
        ("  a\tred\r\n\nfox\u00a0 in   snow ", "a red fox in snow"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("<b>Red</b> fox<br/>in snow", "Red fox in snow"),
        ("&lt;script&gt;alert(1)&lt;/script&gt;fox", "fox"),
        ("a <!-- hidden --> fox", "a fox"),
        ("2 < 3 and 5 > 4 cats", "2 < 3 and 5 > 4 cats"),
        ("fox http://example.com/fox.jpg?a=1 at dawn", "fox at dawn"),
        ("fox | www.example.com", "fox"),
        ("write to me@example.com about the fox", "write to about the fox"),
        ("fo\u200bx \u202egnp.exe\u202c \x00\x1b[31mred", "fox gnp.exe [31mred"),
        ("cafe\u0301", "café"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("fox 🦊 in snow ❄️", "fox in snow"),
        ("- fox, ", "fox"),
        ("Nikon F3 №7 ©", "Nikon F3 №7 ©"),
        ("ein Bär", "ein Bär"),
    ],
)
def test_cleaning(text, caption):
    assert cleaned(text) == (caption, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "empty"),
        ("", "empty"),
        (" \n\t", "empty"),
        ("IMG_1234.JPG", "file_name"),
        ("fox-in-snow.webp", "file_name"),
        ("12345 - 67", "no_words"),
        ("🦊🦊", "no_words"),
        ("<img src=x onerror=alert(1)>", "no_words"),
        ("https://example.com/a", "no_words"),
        ("\u202e\u200b", "no_words"),
    ],
)
def test_what_says_nothing_has_a_reason(text, reason):
    assert cleaned(text) == ("", reason)


def test_emoji_may_stay():
    assert cleaned("fox 🦊", emoji="keep") == ("fox 🦊", None)


def test_long_captions_end_at_a_word():
    assert cleaned("a red fox in snow", max_characters=12)[0] == "a red fox in"
    assert cleaned("a red fox in snow", max_characters=11)[0] == "a red fox"
    assert cleaned("abcdefgh", max_characters=5)[0] == "abcde"


def test_cleaning_twice_changes_nothing():
    once, _ = cleaned("<b>Red &amp; white</b> fox, 🦊 www.a.org \u202e in   snow")
    assert cleaned(once) == (once, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"emoji": "maybe"}, "emoji"), ({"max_characters": 0}, "max_characters")],
)
def test_unknown_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AltTextConfig(**settings)


HOSTILE = {
    "digits of a reference": lambda n: "&#" + "9" * n,
    "hexadecimal digits": lambda n: "a &#x" + "f" * n + "; b",
    "digits escaped twice": lambda n: "&amp;#" + "7" * n,
    "at signs": lambda n: "@" * n,
    "at signs and dots": lambda n: "a@" + ".a" * (n // 2),
    "words with at signs": lambda n: "a@b" * (n // 3),
    "marks": lambda n: "a" + "\u0301\u0316" * (n // 2),
    "marks as references": lambda n: "a" + "&#769;&#790;" * (n // 12),
    "marks and joiners": lambda n: "a" + "\u0301\u200d" * (n // 2),
    "scripts never closed": lambda n: "<script>" * (n // 8),
    "scripts half closed": lambda n: "<style></style " * (n // 15),
    "comments never closed": lambda n: "<!--" * (n // 4),
    "tags never closed": lambda n: "<a" * (n // 2),
    "tags in tags": lambda n: "<b" * (n // 4) + ">" * (n // 4),
    "entities": lambda n: "&amp;" * (n // 5),
    "web addresses": lambda n: "http://" * (n // 7),
    "spaces": lambda n: "a" + " " * n + "b",
    "hangul": lambda n: "\u1100\u1161\u11a8" * (n // 3),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("limit", [300, 10_000])
def test_hostile_texts_take_no_more_time_than_their_caption(name, limit):
    """A million characters cost at most a few times what ten thousand do: the text is cut first."""
    for length in (1_600, 4_400, 100_000, 1_000_000):
        text = HOSTILE[name](length)
        start = time.process_time()
        caption, _ = cleaned(text, max_characters=limit)
        assert time.process_time() - start < 2
        assert len(caption) <= limit


@pytest.mark.parametrize("text", ["[" * 20_000, "[a](" * 5_000, "![" * 9_000, "<|" * 9_000, "a" * 10**7])
def test_gates_read_hostile_captions_in_linear_time(text):
    start = time.process_time()
    assert refusal_reason(text, GatesConfig())
    assert time.process_time() - start < 1


def test_control_characters_do_not_hide_markup_or_addresses():
    assert cleaned("<scr\u200bipt>x</scr\u200bipt>fox")[0] == "fox"
    assert cleaned("fox ht\u200btp://example.com")[0] == "fox"
    assert "<" not in cleaned("<b<b>>fox<i<i>>")[0]
    assert cleaned("fox <script>alert(1)")[0] == "fox"


def fuzz(seeds, mutant):
    for seed in seeds:
        rng = random.Random(seed)
        text = mutant(rng)
        limit = rng.choice([1, 20, 300])
        start = time.process_time()
        caption, reason = cleaned(text, max_characters=limit, emoji=rng.choice(["keep", "remove"]))
        refusal_reason(text, GatesConfig())
        assert time.process_time() - start < 2, seed
        assert (caption == "") == (reason is not None), seed
        assert len(caption) <= limit and ADDRESS.search(caption) is None, seed
        assert all(unicodedata.category(c)[0] != "C" or c in "\u200c\u200d" for c in caption), seed
        assert caption.isprintable() or "\u200c" in caption or "\u200d" in caption, seed
    print(f"alt-texts: seeds {seeds}")


def test_some_mutated_texts(load_fixture):
    fuzz(range(150), load_fixture("alt_text_mutants").mutant)


@pytest.mark.slow
def test_five_thousand_mutated_texts(load_fixture):
    fuzz(range(1000, 6000), load_fixture("alt_text_mutants").mutant)
