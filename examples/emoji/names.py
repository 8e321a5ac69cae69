"""What emoji are called, and how captions speak of them: "red apple", "an upside-down apple", "grapes"."""

from __future__ import annotations

import re

_LIKE_THOSE_LEFT = re.compile(r"(family|kiss|couple with heart) (man|woman|adult)|.* facing right$")
_FLAG = re.compile("[\U0001f1e6-\U0001f1ff\U000e0061-\U000e007f]")
_TONE = re.compile("[\U0001f3fb-\U0001f3ff]")

_TAIL = re.compile(
    r" (?:with|without|in|on|of|over|at|off|behind|showing|pointing|blowing|holding|getting|lifting|and) "
)
_SINGULAR_S = re.compile(r"(?:ss|us|[^k]is|oceros)$")
_PEOPLE = re.compile(r"(?:men|women|people|children) ")
_PLURAL = {"palms up together", "thumbs down", "thumbs up", "woman and man holding hands", "woman’s clothes"}
_UNCOUNTED = """
Aquarius, Aries, Cancer, Capricorn, Gemini, Leo, Libra, Mrs. Claus, Mx Claus, Ophiuchus, Pisces,
Sagittarius, Santa Claus, Scorpio, Taurus, Virgo, ZZZ, bacon, badminton, baggage claim, baguette bread,
biohazard, bowling, bread, breast-feeding, broccoli, bubble tea, building construction, butter, camping,
candy, canned food, construction, cooked rice, cooking, copyright, coral, curry rice, custard, customs,
dashing away, divide, dizzy, dna, field hockey, fire, fog, foggy, garlic, high voltage, horse racing, ice,
ice cream, ice hockey, infinity, information, input latin lowercase, input latin uppercase, lacrosse, left
luggage, light rail, locked, locked with key, locked with pen, luggage, mate, meat on bone, minus, mobile
phone off, money with wings, mount fuji, multiply, nail polish, no entry, no littering, no one under
eighteen, no smoking, non-potable water, oden, passport control, ping pong, plus, popcorn, potable water,
prohibited, radioactive, registered, rolling on the floor laughing, sake, salt, shaved ice, soap, soft ice
cream, softball, spaghetti, star-struck, sushi, tennis, thread, unlocked, vibration mode, warning, wireless,
wood, yarn
"""
_BARE = set(re.split(r",\s+", _UNCOUNTED.strip()))
_THE = {"Statue of Liberty", "Tokyo tower", "milky way"}
_AN = re.compile(r"(?:[aeio]|u(?!ni)|hour|x-ray|[AEFHILMNORSUX][A-Z!]|[AO] )", re.ASCII)
_A = re.compile(r"(?:one|eu|ewe|FREE|NEW|SOON|END!)")
_EDITS = (
    (re.compile(r"^(person|woman|man) (red|curly|white|blond) hair$"), r"\1 with \2 hair"),
    (re.compile(r"^(person|woman|man) beard$"), r"\1 with beard"),
    (re.compile(r"^(person|woman|man) bald$"), r"bald \1"),
    (re.compile(r" \(.*\)$"), ""),
)


def has_place(text: str, name: str) -> bool:
    """Whether an emoji is among our pictures.

    Left out are flags of countries and regions (what they are called says nothing of what one sees), skin
    tones, and what differs from another by a mirror or by the members of a family.
    """
    return not (_FLAG.search(text) or _TONE.search(text) or _LIKE_THOSE_LEFT.match(name))


def spoken(short_name: str) -> str:
    """Unicode's short name as words: ":person_red_hair:" is "person with red hair"."""
    name = short_name.strip(":").replace("_", " ")
    for pattern, words in _EDITS:
        name = pattern.sub(words, name)
    return name


def phrase(name: str, *adjectives: str) -> str:
    """A name with its article: "an apple", "small grapes", "the milky way"."""
    words = " ".join((*adjectives, name))
    if name in _THE:
        return f"the {words}"
    if name in _BARE or is_plural(name):
        return words
    return article(words)


def is_plural(name: str) -> bool:
    """Whether a name speaks of several: "grapes", "people hugging"."""
    head = _TAIL.split(name)[0].split(" ")[-1]
    if _PEOPLE.match(name) or name in _PLURAL:
        return True
    return head.endswith("s") and not _SINGULAR_S.search(head)


def article(words: str) -> str:
    """Words with "a" or "an" before them, as they are spoken."""
    return f"{'an' if _AN.match(words) and not _A.match(words) else 'a'} {words}"
