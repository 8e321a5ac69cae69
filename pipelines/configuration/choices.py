"""What is said of a name that is none of those there are."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def there_is_no(what: str, name: str, known: Iterable[str]) -> str:
    """`there is no WHAT 'NAME'`, with the nearest of the known names, if one is near, and all of them."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"there is no {what} {name!r}; {hint}There are: {', '.join(names)}"
