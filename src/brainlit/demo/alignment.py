"""From espeak-ng's phone events to the time of every word and phone.

A phone event names the character at which its word begins, and so gives each word its phones. espeak-ng speaks some
pairs of small words ("of a", "in the") as one: all phones then carry the position of the first. Such a group is
shared out: its phones go to the words in order, in proportion to their letters and at least one each; where there
are fewer phones than words, the time is shared out in proportion to letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from brainlit.stories import Intervals

FloatArray = npt.NDArray[np.float64]


class PhoneEvent(NamedTuple):
    """One phone as the synthesiser reports it.

    `position` is the index in the text of the first character of the word it belongs to.
    """

    label: str
    position: int
    start_s: float

    @property
    def is_pause(self) -> bool:
        """Whether this is silence between phrases."""
        return self.label.startswith("_") or not self.label


def phone_intervals(events: Sequence[PhoneEvent], end_s: float) -> Intervals:
    """The phones without pauses: each lasts until the next phone or pause begins; stress marks are taken off."""
    edges_s = np.asarray([*(event.start_s for event in events), end_s])
    kept = [k for k, event in enumerate(events) if not event.is_pause]
    labels = tuple(events[k].label.lstrip("',%=|") or events[k].label for k in kept)
    return Intervals(labels, edges_s[:-1][kept], np.diff(edges_s)[kept])


def align_words(text: str, spans: Sequence[tuple[int, int]], events: Sequence[PhoneEvent], end_s: float) -> Intervals:
    """Start and duration of every word: from its first phone to the end of its last.

    Parameters
    ----------
    spans : list of (start, stop)
        Where each word stands in the text, in order.
    end_s : float
        End of the sound, in seconds.

    Raises
    ------
    RuntimeError
        If the synthesiser reported no phone before the first word ends (nothing to share out).
    """
    edges_s = np.asarray([*(event.start_s for event in events), end_s])
    owners = np.searchsorted([start for start, _ in spans], [event.position for event in events], side="right") - 1
    phones_of: list[list[int]] = [[] for _ in spans]
    for k, event in enumerate(events):
        if not event.is_pause and owners[k] >= 0:
            phones_of[owners[k]].append(k)
    starts_s, ends_s = np.zeros(len(spans)), np.zeros(len(spans))
    for group in _groups(phones_of):
        letters = np.asarray([spans[k][1] - spans[k][0] for k in group], dtype=np.float64)
        cuts_s = _share_out(edges_s, phones_of[group[0]], letters)
        starts_s[group], ends_s[group] = cuts_s[:-1], cuts_s[1:]
    return Intervals(tuple(text[start:stop] for start, stop in spans), starts_s, ends_s - starts_s)


def _groups(phones_of: Sequence[Sequence[int]]) -> list[list[int]]:
    """Words that share phones: each word with phones of its own, and those without that follow it."""
    if not phones_of[0]:
        raise RuntimeError("espeak-ng reported no phones for the first word of the text; its events are unusable.")
    groups: list[list[int]] = []
    for word, phones in enumerate(phones_of):
        if phones:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _share_out(edges_s: FloatArray, phones: Sequence[int], letters: FloatArray) -> FloatArray:
    """Edges in seconds of the words that share these phones, shape (n_words + 1,)."""
    shares = np.cumsum(letters) / letters.sum()
    n_words, n_phones = len(letters), len(phones)
    start_s, end_s = edges_s[phones[0]], edges_s[phones[-1] + 1]
    if n_phones < n_words:
        return np.asarray([start_s, *(start_s + shares * (end_s - start_s))])
    firsts = [0]
    for word in range(1, n_words):
        wanted = int(np.floor(shares[word - 1] * n_phones + 0.5))
        firsts.append(int(np.clip(wanted, firsts[-1] + 1, n_phones - (n_words - word))))
    return np.asarray([*(edges_s[phones[first]] for first in firsts), end_s])
