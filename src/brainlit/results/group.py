"""Numbers of several people as one, and how many people are in it.

Most are means over the people who have the number. Shares and impacts divide by what the model explains, and a person
in whom it explains next to nothing has none; a mean over the others would be that of whoever passed. So numerator and
denominator are averaged over all people first and divided then, and such a person counts with the little there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from brainlit.encoding.statistics import Score, mean_score
from brainlit.results.scores import RATIOS, ScoreTable, ratio_of

Lookup: TypeAlias = Callable[[str], Mapping[str, Score]]
"""A metric -> its value for each subject who has it."""
RowKey: TypeAlias = tuple[str, int, str]
"""Region, layer, metric."""


@dataclass(frozen=True)
class GroupScore:
    """One number of several people.

    Parameters
    ----------
    score : Score
        Its interval is over held-out time: the people are taken as fixed.
    subjects : tuple of str
        Who is in it.
    """

    score: Score
    subjects: tuple[str, ...]


def entering(metric: str, of: Lookup) -> list[str]:
    """Who can be in the group's number: who has it or, of a ratio, what it is made of."""
    own = list(of(metric))
    if metric not in RATIOS:
        return own
    first, *others = (of(term) for term in RATIOS[metric].terms)
    people = [subject for subject in first if all(subject in other for other in others)]
    return own if len(own) == 1 and not people else people


def group_score(metric: str, of: Lookup, subjects: Iterable[str] | None = None) -> GroupScore | None:
    """A number of several people; of one person it is their own.

    Parameters
    ----------
    metric : str
    of : callable
        Gives any metric of the same region and layer by subject.
    subjects : iterable of str, optional
        Only these, all of whom `entering` names; everybody where not given.

    Returns
    -------
    GroupScore or None
        None where nobody has it, or where the group's model explains too little to divide by (`ratio_of`).
    """
    people = tuple(entering(metric, of) if subjects is None else subjects)
    own = of(metric)
    if not people:
        return None
    if metric not in RATIOS or len(people) == 1:
        known = [own[subject] for subject in people if subject in own]
        return GroupScore(mean_score(known), people) if known else None
    means = {term: mean_score([of(term)[subject] for subject in people]) for term in RATIOS[metric].terms}
    found = ratio_of(metric, means)
    return None if found is None else GroupScore(found, people)


def own_parts(metric: str, of: Lookup, subjects: Sequence[str]) -> dict[str, float]:
    """What each person contributes to the number: the mean of these is the number, their scatter its error.

    Of a mean the values themselves; of a ratio Q = N / D its linear form Q + (n - Q d) / D (the delta method). For
    subjects of whom `group_score` gives a number.
    """
    own = of(metric)
    if metric not in RATIOS or len(subjects) == 1:
        return {subject: own[subject].value for subject in subjects}
    ratio = RATIOS[metric]
    part, whole = ([of(term)[subject].value for subject in subjects] for term in (ratio.part, ratio.whole))
    total = sum(whole) / len(whole)
    q = sum(part) / len(part) / total
    return {subject: ratio.said(q + (n - q * d) / total) for subject, n, d in zip(subjects, part, whole, strict=True)}


def of_tables(tables: Mapping[str, ScoreTable], region: str, layer: int) -> Lookup:
    """Numbers of one region and layer out of each subject's table."""

    def of(metric: str) -> dict[str, Score]:
        rows = {subject: table.get(region, layer, metric) for subject, table in tables.items()}
        return {subject: row.score for subject, row in rows.items() if row is not None}

    return of


def group_keys(tables: Iterable[ScoreTable]) -> list[RowKey]:
    """Every number that a subject has, or that only the group may have, because all lack what to divide by."""
    keys = dict.fromkeys(key for table in tables for key in table.keys)
    parts = {ratio.part: metric for metric, ratio in RATIOS.items()}
    more = {(region, layer, parts[metric]): None for region, layer, metric in keys if metric in parts}
    return list(keys | more)
