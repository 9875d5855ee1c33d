"""Names in messages: the nearest known one for what was probably meant, and a few of many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

MOST_LISTED = 20


def nearest(value: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the value, never the value itself; None if none is like it.

    >>> nearest("wavvec", ["hubert", "wav2vec", "whisper"])
    'wav2vec'
    >>> nearest("qqq", ["hubert", "wav2vec"]) is None
    True
    >>> nearest("wav2vec", ["wav2vec"]) is None
    True
    """
    by_lower_case = {name.lower(): name for name in known if name != value}
    matches = get_close_matches(value.lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[matches[0]] if matches else None


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name if there is one, and the known ones (twenty at most).

    >>> did_you_mean("wavvec", ["hubert", "wav2vec"])
    "Did you mean 'wav2vec'? Known: hubert, wav2vec."
    """
    names = sorted(known)
    near = nearest(value, names)
    question = f"Did you mean '{near}'?" if near else ""
    listing = f"Known: {few(names, MOST_LISTED) or 'none'}."
    return " ".join(part for part in (question, listing) if part)


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are.

    >>> few(["a", "b", "c", "d"]), few(["a", "b"])
    ('a, b, c and 1 more', 'a, b')
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
