"""How far the members of a group agree, from the responses that a store keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainlit.encoding.ceiling import signal_rows
from brainlit.encoding.inter_subject import leave_one_out_r
from brainlit.splits import Span
from brainlit.store.reader import StoryStore
from brainlit.stories.base import BoolArray, FloatArray

_BYTES_AT_ONCE = 64_000_000


@dataclass(frozen=True)
class BetweenMembers:
    """Agreement of a group's members over some rows.

    Parameters
    ----------
    r : mapping of member to array of shape (n_voxels,)
        Of each with the mean of the others who heard the same (`brainlit.encoding.inter_subject`).
    signal : array of shape (n_voxels,)
        Share of the mean's variance that is shared, not clipped: negative about as often as positive where nothing is.
    """

    r: dict[str, FloatArray]
    signal: FloatArray

    def ceiling_r(self, voxels: BoolArray) -> float:
        """The highest r that a model of what is shared can reach with the mean, of some voxels together.

        NaN where no shared signal shows.
        """
        signal = float(np.nanmean(self.signal[voxels]))
        return float(np.sqrt(signal)) if signal > 0 else float("nan")

    def json(self, voxels: BoolArray, by_member: bool = False) -> dict[str, Any]:
        """Means over voxels with data, as plain values: mean, least and most over members, and how many these are.

        With `by_member` also 'r' of each. Empty where no voxel has data.
        """
        of_members = {name: r[voxels] for name, r in self.r.items()}
        means = {name: float(r[np.isfinite(r)].mean()) for name, r in of_members.items() if np.isfinite(r).any()}
        if not means:
            return {}
        found = list(means.values())
        said = {"n_members": len(means), "mean_r": float(np.mean(found)), "least_r": min(found), "most_r": max(found)}
        return {**said, "r": means} if by_member else said


def between_members(store: StoryStore, group: str, spans: Sequence[Span] | None = None) -> BetweenMembers:
    """Read the members' responses, some voxels at a time.

    Parameters
    ----------
    group : str
        A subject that has members; spans that it did not hear are passed over.
    spans : sequence of Span, optional
        All rows of all its stories by default.

    Raises
    ------
    ValueError
        If the subject is no group, or heard none of the spans.
    """
    members = store.members(group)
    if not members:
        raise ValueError(f"subject {group!r} is one person, no group (brainlit.stories.GroupMean).")
    asked = [Span(story, 0, store.n_trs(story)) for story in members] if spans is None else spans
    rows = [span for span in asked if span.story in members]
    if not rows:
        raise ValueError(f"group {group!r} heard none of {', '.join(map(str, asked))}, but {', '.join(members)}.")
    n_voxels, names = store.n_voxels(group), [members[span.story] for span in rows]
    bytes_each = 8 * sum(span.n_trs * len(own) for span, own in zip(rows, names, strict=True))
    step = max(1, _BYTES_AT_ONCE // bytes_each)
    parts = []
    for start in range(0, n_voxels, step):
        values = []
        for span in rows:
            found = store.repeats(group, span.story, slice(start, start + step))
            assert found is not None  # groups keep their members' responses
            values.append(found[:, span.start_tr : span.stop_tr])
        parts.append((leave_one_out_r(values, names), signal_rows(values).mean(axis=0, dtype=np.float64)))
    r = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    return BetweenMembers(r, np.concatenate([part[1] for part in parts]))
