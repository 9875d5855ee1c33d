"""Who may see which rows: spans of stories, their roles, folds, and the guard against leaks between them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import NamedTuple

from brainlit.hints import did_you_mean
from brainlit.stories.base import ROLES

_SPAN = re.compile(r"^(?P<story>[^\[\]]+)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?$")


class LeakError(ValueError):
    """The same rows, or rows too close together, would serve two roles."""


@dataclass(frozen=True, order=True)
class Span:
    """A contiguous stretch of one story: rows start_tr .. stop_tr - 1.

    >>> str(Span("alice", 120, 240))
    'alice[120:240]'
    """

    story: str
    start_tr: int
    stop_tr: int

    @property
    def n_trs(self) -> int:
        """Number of rows."""
        return self.stop_tr - self.start_tr

    def gap_trs(self, other: Span) -> int:
        """Rows between two spans of one story; negative where they overlap (by that many rows)."""
        return max(self.start_tr, other.start_tr) - min(self.stop_tr, other.stop_tr)

    def __str__(self) -> str:
        return f"{self.story}[{self.start_tr}:{self.stop_tr}]"


class Clock(NamedTuple):
    """The story whose sound another one is, and the row of that story at which its own row 0 begins."""

    story: str
    first_row: float


_SAME_CLOCK_TRS = 0.05  # clocks that were logged differ from their nominal TR


def _gap_trs(a: Span, b: Span, clocks: Mapping[str, Clock]) -> float | None:
    """Rows of sound between two spans, as `Span.gap_trs`; None where they are of two sounds."""
    first, second = (clocks.get(span.story, Clock(span.story, 0.0)) for span in (a, b))
    if first.story != second.story:
        return None
    if a.story == b.story:
        return a.gap_trs(b)
    start = max(a.start_tr + first.first_row, b.start_tr + second.first_row)
    return start - min(a.stop_tr + first.first_row, b.stop_tr + second.first_row) + _SAME_CLOCK_TRS


def parse_span(text: str, n_trs_of: Mapping[str, int]) -> Span:
    """Read 'name' (the whole story) or 'name[120:240]' (rows 120..239; either number may be left out).

    Parameters
    ----------
    n_trs_of : mapping of story to its number of rows

    Raises
    ------
    ValueError
        If the text has another form, the story is unknown (the nearest known one is named), or the rows are empty
        or outside the story.

    >>> parse_span("alice[120:]", {"alice": 300})
    Span(story='alice', start_tr=120, stop_tr=300)
    """
    match = _SPAN.match(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a span; write a story's name, or name[start:stop] in TRs.")
    story = match["story"]
    if story not in n_trs_of:
        raise ValueError(f"unknown story {story!r}. {did_you_mean(story, n_trs_of)}")
    n_trs = n_trs_of[story]
    start_tr, stop_tr = int(match["start"] or 0), int(match["stop"] or n_trs)
    if start_tr >= stop_tr:
        raise ValueError(f"{text!r} is empty: it starts at TR {start_tr} and stops at {stop_tr}; stop is exclusive.")
    if stop_tr > n_trs:
        raise ValueError(f"{text!r} ends at TR {stop_tr}, but {story!r} has {n_trs} TRs; stop at most there.")
    return Span(story, start_tr, stop_tr)


def merged_spans(spans: Sequence[Span]) -> list[Span]:
    """The same rows, each once: spans that touch or overlap are one; stories in the order in which they first come.

    >>> [str(span) for span in merged_spans([Span("tea", 5, 9), Span("jam", 0, 4), Span("tea", 0, 5)])]
    ['tea[0:9]', 'jam[0:4]']
    """
    merged: list[Span] = []
    for span in sorted(spans):
        last = merged[-1] if merged else None
        if last is not None and last.story == span.story and span.start_tr <= last.stop_tr:
            merged[-1] = replace(last, stop_tr=max(last.stop_tr, span.stop_tr))
        else:
            merged.append(span)
    order = list(dict.fromkeys(span.story for span in spans))
    return sorted(merged, key=lambda span: (order.index(span.story), span.start_tr))


@dataclass(frozen=True)
class Folds:
    """Spans that are scored in turn, each by encoding models that are fitted on what the other folds score.

    Parameters
    ----------
    scored : tuple of tuples of Span
        What each fold scores; no row twice.
    purge_s : float, optional
        Seconds on both sides of a scored span that are not fitted on; None for as far as a probe's settings reach.
    """

    scored: tuple[tuple[Span, ...], ...]
    purge_s: float | None = None

    def __len__(self) -> int:
        return len(self.scored)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The spans of all folds, one fold after the other."""
        return tuple(span for own in self.scored for span in own)

    def fit_spans(self, number: int, purge_trs: int, clocks: Mapping[str, Clock] | None = None) -> tuple[Span, ...]:
        """What the models of a fold are fitted on: the other folds, less rows within purge_trs of what it scores.

        Neighbours are one span, so that nothing is cut where two other folds meet.

        >>> folds = Folds(((Span("tea", 0, 20),), (Span("tea", 20, 40),), (Span("tea", 40, 60),)))
        >>> [str(span) for span in folds.fit_spans(0, 5)], [str(span) for span in folds.fit_spans(1, 5)]
        (['tea[25:60]'], ['tea[0:15]', 'tea[45:60]'])
        """
        left: list[Span] = []
        for span in (span for k, own in enumerate(self.scored) if k != number for span in own):
            pieces = [span]
            for scored in self.scored[number]:
                pieces = [part for piece in pieces for part in _without(piece, scored, purge_trs, clocks or {})]
            left += pieces
        return tuple(merged_spans(left))


def _without(span: Span, scored: Span, purge_trs: int, clocks: Mapping[str, Clock]) -> list[Span]:
    """What is left of a span at least purge_trs rows away from a scored one: nothing, one or two spans."""
    ours, theirs = (clocks.get(one.story, Clock(one.story, 0.0)) for one in (span, scored))
    if ours.story != theirs.story:
        return [span]
    late = theirs.first_row - ours.first_row  # how many of our rows the other clock begins later
    near = 0.0 if span.story == scored.story else _SAME_CLOCK_TRS
    before = math.floor(scored.start_tr + late - purge_trs + near)
    after = math.ceil(scored.stop_tr + late + purge_trs - near)
    parts = replace(span, stop_tr=min(span.stop_tr, before)), replace(span, start_tr=max(span.start_tr, after))
    return [part for part in parts if part.n_trs > 0]


@dataclass(frozen=True)
class Roles:
    """Which spans serve which role; made by `make_roles`, which has checked them.

    Parameters
    ----------
    by_role : mapping of role to spans
    purge_trs : int
        Rows that were kept free between spans of different roles in one story.
    allow : tuple of str
        The exceptions that the config asked for, in its words.
    clocks : mapping of story to Clock
        Of stories that are another one in the rows of other subjects.
    folds : Folds, optional
        With folds, `fit` and `score` are the same spans: each is scored once, by models fitted on the others.
    """

    by_role: Mapping[str, tuple[Span, ...]]
    purge_trs: int
    allow: tuple[str, ...] = ()
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    folds: Folds | None = None

    def spans(self, role: str) -> tuple[Span, ...]:
        """The spans of one role; empty if it has none.

        Raises
        ------
        ValueError
            If there is no such role.
        """
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}. {did_you_mean(role, ROLES)}")
        return self.by_role.get(role, ())

    def stories(self, role: str) -> tuple[str, ...]:
        """The stories of one role, each once, in order."""
        return tuple(dict.fromkeys(span.story for span in self.spans(role)))

    def n_trs(self, role: str) -> int:
        """Number of rows of one role."""
        return sum(span.n_trs for span in self.spans(role))

    def allows(self, role: str, other: str) -> bool:
        """Whether the config says in words that these two may share rows."""
        return {role, other} in [set(words.split(" and ")) for words in self.allow]

    def as_text(self) -> dict[str, list[str]]:
        """The roles as plain text, as they are written in a config or a record."""
        return {role: [str(span) for span in spans] for role, spans in self.by_role.items()}


def make_roles(
    roles: Mapping[str, Sequence[str]],
    n_trs_of: Mapping[str, int],
    purge_trs: int,
    allow: Sequence[str] = (),
    sounds: Mapping[str, str] | None = None,
    clocks: Mapping[str, Clock] | None = None,
    parts: Mapping[str, str] | None = None,
) -> Roles:
    """Read the spans of every role and refuse leaks between them.

    Parameters
    ----------
    roles : mapping of role ('tune', 'fit', 'choose', 'score') to spans as text
    n_trs_of : mapping of story to its number of rows
    purge_trs : int
        Rows that must lie between spans of different roles in one story: at least the window's context plus the
        longest delay, so that no row of one role is computed from sound or responses of another.
    allow : sequence of str
        Pairs of roles that may share rows all the same, in words: 'fit and choose'.
    sounds : mapping of story to hash of its sound, optional
        SHA-256 of the samples, say. Stories with the same sound under two names count as one.
    clocks : mapping of story to Clock, optional
        Of stories that are known to be the sound of another one: their rows are held against its rows.
    parts : mapping of story to story, optional
        Of stories that are one run of a story told over several: its runs stay together, for who heard one part knows
        the voices, the people and the plot of the next.

    Raises
    ------
    LeakError
        If spans overlap, or spans of different roles lie closer than purge_trs in one story, or one sound serves two
        roles under two names, or two runs of one story two roles.
    ValueError
        For unknown roles or stories, spans that are empty or outside their story, or a negative purge.
    """
    if purge_trs < 0:
        raise ValueError(f"purge_trs is {purge_trs}; a gap is not negative.")
    for role in roles:
        if role not in ROLES:
            raise ValueError(f"unknown role {role!r}. {did_you_mean(role, ROLES)}")
    by_role = {role: tuple(parse_span(text, n_trs_of) for text in roles[role]) for role in ROLES if roles.get(role)}
    allowed = {_allowed_pair(words) for words in allow}
    for role, spans in by_role.items():
        _refuse_repeats(role, spans)
    for first, second in combinations(by_role, 2):
        if frozenset((first, second)) not in allowed:
            _refuse_leaks(first, by_role[first], second, by_role[second], purge_trs, clocks or {})
            _refuse_same_sound(first, by_role[first], second, by_role[second], sounds or {})
            _refuse_torn_story(first, by_role[first], second, by_role[second], parts or {}, clocks or {})
    return Roles(by_role, purge_trs, tuple(allow), dict(clocks or {}))


def _refuse_repeats(role: str, spans: tuple[Span, ...]) -> None:
    for a, b in combinations(spans, 2):
        if a.story == b.story and a.gap_trs(b) < 0:
            raise LeakError(f"{role}: {a} and {b} share {-a.gap_trs(b)} TRs, which would count twice; list them once.")


def _refuse_leaks(
    first: str,
    ours: tuple[Span, ...],
    second: str,
    theirs: tuple[Span, ...],
    purge_trs: int,
    clocks: Mapping[str, Clock],
) -> None:
    for a in ours:
        for b in theirs:
            gap_trs = _gap_trs(a, b, clocks)
            if gap_trs is None:
                continue
            cure = f" Move one of them, or say so in words: allow: ['{first} and {second}']."
            if gap_trs < 0:
                raise LeakError(f"{a} ({first}) and {b} ({second}) share {-gap_trs:g} TRs.{cure}")
            if gap_trs < purge_trs:
                raise LeakError(
                    f"{a} ({first}) and {b} ({second}) are {gap_trs:g} TRs apart; window and delays reach over"
                    f" {purge_trs} TRs (purge_trs).{cure}"
                )


def _refuse_same_sound(
    first: str, ours: tuple[Span, ...], second: str, theirs: tuple[Span, ...], sounds: Mapping[str, str]
) -> None:
    story_of = {sounds[span.story]: span.story for span in ours if span.story in sounds}
    for span in theirs:
        same = story_of.get(sounds.get(span.story, ""))
        if same is not None and same != span.story:
            raise LeakError(
                f"{same!r} ({first}) and {span.story!r} ({second}) are the same sound under two names. Leave one out,"
                f" or say so in words: allow: ['{first} and {second}']."
            )


def _refuse_torn_story(
    first: str,
    ours: tuple[Span, ...],
    second: str,
    theirs: tuple[Span, ...],
    parts: Mapping[str, str],
    clocks: Mapping[str, Clock],
) -> None:
    def run_of(span: Span) -> str:
        return clocks[span.story].story if span.story in clocks else span.story

    for a in ours:
        for b in theirs:
            if a.story in parts and parts[a.story] == parts.get(b.story) and run_of(a) != run_of(b):
                raise LeakError(
                    f"{a.story!r} ({first}) and {b.story!r} ({second}) are runs of one story, {parts[a.story]!r}. Give"
                    f" all of it one role, or say so in words: allow: ['{first} and {second}']."
                )


def _allowed_pair(words: str) -> frozenset[str]:
    pair = words.split(" and ")
    if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(ROLES):
        raise ValueError(f"allow: {words!r} is not understood; write two roles of {ROLES}, as in 'fit and choose'.")
    return frozenset(pair)


# --- Guards for what happens outside of a probe: choices that must not have seen the scored rows ---


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
    excused = {span for role in ROLES if roles.allows(role, "score") for span in roles.spans(role)}
    for span in spans:
        for scored in roles.spans("score"):
            gap_trs = _gap_trs(span, scored, roles.clocks)
            near = gap_trs is not None and gap_trs < max(roles.purge_trs, 0)
            if near and span not in excused:
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
        if roles.allows("tune", role):
            continue
        for story in roles.stories(role):
            for other in tuned:
                both_known = story in ours and other in theirs
                if ours[story] == theirs[other] if both_known else story == other:
                    raise LeakError(
                        f"{story!r} ({role} of the held-out data) is {other!r}, which was tuned on. Leave it out of the"
                        f" role {role}, or say so in words: allow: ['tune and {role}']."
                    )
