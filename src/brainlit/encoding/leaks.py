"""Guards for what happens outside of a probe: choices that must not have seen the rows that are scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from brainlit.encoding.folds import Fold
from brainlit.encoding.groups import IntArray
from brainlit.encoding.roles import LeakError, Roles, Span


def refuse_scored(roles: Roles, spans: Iterable[Span], purpose: str) -> None:
    """Refuse spans that decide something (voxels, a checkpoint, a permutation) and are scored, or lie too near to it.

    Parameters
    ----------
    spans : iterable of Span
        What is looked at.
    purpose : str
        What for, in words: 'choosing voxels'.

    Raises
    ------
    LeakError
        If a span shares rows with a span of the role `score`, or is closer to it than the purge. What the roles allow
        in words ('choose and score') holds for spans of those roles.
    """
    excused = {span for role in _allowed_with_score(roles) for span in roles.spans(role)}
    for span in spans:
        for scored in roles.spans("score"):
            near = span.story == scored.story and span.gap_trs(scored) < roles.purge_trs
            overlap = span.story == scored.story and span.gap_trs(scored) < 0
            if (near or overlap) and span not in excused:
                raise LeakError(
                    f"{purpose} would look at {span}, and {scored} is scored. Use the stories of the role choose or"
                    " tune for it."
                )


def refuse_tuned(
    roles: Roles,
    tuned: Iterable[str],
    sounds: Mapping[str, str] | None = None,
    tuned_sounds: Mapping[str, str] | None = None,
) -> None:
    """Refuse stories of another data set that are fitted or scored and were tuned on in the first one.

    Stories are the same if their sounds have the same hash; where a hash is unknown, if they have the same name.

    Parameters
    ----------
    roles : Roles
        Of the data set that is probed.
    tuned : iterable of str
        Stories that were tuned on.
    sounds, tuned_sounds : mapping of story to hash of its sound, optional
        Of the two data sets.

    Raises
    ------
    LeakError
        Unless the roles of the probed data set say so in words: 'tune and fit', 'tune and score'.
    """
    ours, theirs = sounds or {}, tuned_sounds or {}
    for role in ("fit", "score"):
        if {"tune", role} in [set(words.split(" and ")) for words in roles.allow]:
            continue
        for story in roles.stories(role):
            for other in tuned:
                both_known = story in ours and other in theirs
                if ours[story] == theirs[other] if both_known else story == other:
                    raise LeakError(
                        f"{story!r} ({role} of the held-out data) is {other!r}, which was tuned on. Leave it out of the"
                        f" role {role}, or say so in words: allow: ['tune and {role}']."
                    )


def refuse_leaking_folds(folds: Sequence[Fold], groups: IntArray, times_trs: IntArray, purge_trs: int) -> None:
    """Refuse folds that hold out a row and train on one of the same group within purge_trs of it.

    Parameters
    ----------
    folds : sequence of Fold
    groups, times_trs : int arrays of shape (n_rows,)
        Group of each row, and where in its group it lies.

    Raises
    ------
    LeakError
    """
    for number, fold in enumerate(folds):
        for group in np.intersect1d(groups[fold.train], groups[fold.held_out]):
            train, held_out = (np.sort(times_trs[rows[groups[rows] == group]]) for rows in (fold.train, fold.held_out))
            after = np.searchsorted(held_out, train)
            below = train - held_out[np.maximum(after - 1, 0)]
            above = held_out[np.minimum(after, held_out.size - 1)] - train
            gap_trs = int(np.minimum(np.abs(below), np.abs(above)).min())
            if gap_trs < max(purge_trs, 1):
                raise LeakError(
                    f"fold {number} trains on rows of group {group} that are {gap_trs} TRs from rows it holds out; the"
                    f" purge is {purge_trs}. Hold out whole groups, or purge what lies next to the block."
                )


def _allowed_with_score(roles: Roles) -> list[str]:
    pairs = [set(words.split(" and ")) for words in roles.allow]
    return [role for pair in pairs if "score" in pair for role in pair - {"score"}]
