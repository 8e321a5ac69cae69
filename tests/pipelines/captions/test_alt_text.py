"""Alt-texts become plain one-line captions, or a reason why not."""

import pytest

from pipelines.captions.alt_text import AltTextConfig, clean_alt_text


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
