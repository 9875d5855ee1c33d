"""What was probably meant: the nearest known name, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_LISTED = 20


def nearest(value: str, known: Iterable[str]) -> str | None:
    """The known name that is most like the value, or None if none is like it.

    >>> nearest("wavvec", ["hubert", "wav2vec", "whisper"])
    'wav2vec'
    >>> nearest("qqq", ["hubert", "wav2vec"]) is None
    True
    """
    by_lower_case = {name.lower(): name for name in known}
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
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    listing = f"Known: {', '.join(names[:MOST_LISTED]) or 'none'}{more}."
    return " ".join(part for part in (question, listing) if part)
