"""Whom to tune on, whom only to probe, and how much of the stories to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from brainlit.datamodules.voxels import heard_any
from brainlit.demo.streams import random_stream
from brainlit.encoding.roles import Roles, Span
from brainlit.store import StoryStore
from brainlit.store.schema import unknown_name


def settle_subjects(
    store: StoryStore, usable: Sequence[str], asked: Sequence[str] | None, held_out: Sequence[str]
) -> list[str]:
    """The subjects to tune on; without a wish all usable ones that are not held out.

    Raises
    ------
    ValueError
        If there is none, one is named twice or unknown, or one is to be tuned on and held out.
    """
    subjects = [name for name in usable if name not in held_out] if asked is None else list(asked)
    if not subjects or len(set(subjects)) < len(subjects):
        raise ValueError(f"subjects are {subjects}; name each subject once, and at least one.")
    if len(set(held_out)) < len(held_out):
        raise ValueError(f"held_out_subjects are {list(held_out)}; name each subject once.")
    for subject in [*subjects, *held_out]:
        if subject not in store.subject_names:
            raise unknown_name("subject", subject, store.subject_names)
    both = sorted(set(subjects) & set(held_out))
    if both:
        raise ValueError(
            f"{', '.join(both)} cannot be tuned on and held out; name a subject in subjects or in held_out_subjects."
        )
    return subjects


def require_heard(store: StoryStore, subjects: Sequence[str], tune: Sequence[str]) -> None:
    """Refuse a subject who heard none of the stories to tune on.

    Raises
    ------
    ValueError
        Naming the first such subject and what they did hear.
    """
    for subject in subjects:
        if tune and not heard_any(store, subject, tune):
            raise ValueError(
                f"subject {subject!r} heard none of the stories to tune on ({', '.join(tune)}), but"
                f" {', '.join(store.heard(subject))}. Leave the subject out or tune on one of those."
            )


def with_fraction(roles: Roles, heard: Sequence[Span], fraction: float, seed: int) -> Roles:
    """Roles with a part of the tuning rows: whole stories in random order, the last one cut.

    The order depends on the seed and the stories' names only, so a smaller part lies inside a larger one, and the
    number of rows is the fraction of all to half a row. What is left of a span only moves away from other roles.

    Parameters
    ----------
    heard : sequence of Span
        The tuning spans that a subject heard, of which the fraction is taken.
    fraction : float
        Above 0, up to 1.
    """
    if fraction == 1.0:
        return roles
    wanted = max(1, round(fraction * sum(span.n_trs for span in heard)))
    order = sorted({span.story for span in heard}, key=lambda story: random_stream(seed, "tune order", story).random())
    kept: dict[Span, Span] = {}
    for span in sorted(heard, key=lambda span: (order.index(span.story), span.start_tr)):
        n_trs = min(span.n_trs, wanted)
        wanted -= n_trs
        if n_trs:
            kept[span] = replace(span, stop_tr=span.start_tr + n_trs)
    tune = tuple(kept[span] for span in heard if span in kept)
    return replace(roles, by_role={**roles.by_role, "tune": tune})
