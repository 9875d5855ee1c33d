"""Roles with folds, `roles: {folds: 5, purge: auto}`: every row is scored once, by models that never saw it.

What is cut into folds are whole stories, where the data have several; of a single story that was told over several
runs, its runs; of a single story in one run, stretches of it. One sound under two names, one story on two clocks and
the runs of one of several stories stay in one fold, for whoever was fitted on one of them has seen the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from brainlit.datamodules.selection import same_length_sounds, settle_roles
from brainlit.hints import did_you_mean
from brainlit.splits import Clock, Folds, LeakError, Roles, Span
from brainlit.store import StoryStore

AUTO = "auto"
KEYS = ("folds", "purge", "over", "tune", "choose")
"""What roles may hold beside the number of folds."""
FEWEST_TRS = 10
"""Rows of a fold: with fewer, its mean and the level of its predictions take most of what there is to score."""
_CLOCK_TRS = 0.05

AskedRoles = Mapping[str, Sequence[str] | int | float | Literal["auto"]]


@dataclass(frozen=True)
class AskedFolds:
    """`roles` with folds, read and checked as far as that goes without a store.

    Parameters
    ----------
    n_folds : int
    purge_s : float or None
        None: as far as the probe's settings reach.
    over : tuple of str or None
        Stories or spans that are scored; None: every story that is neither tuned on nor chosen by.
    apart : mapping of 'tune', 'choose' to spans as text
        Never scored.
    """

    n_folds: int
    purge_s: float | None
    over: tuple[str, ...] | None
    apart: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, asked: AskedRoles, allow: Sequence[str] = ()) -> AskedFolds:
        """Of `roles` as they are written.

        Raises
        ------
        ValueError
            If something beside the folds makes no sense, with the cure.
        """
        for role in ("fit", "score"):
            if role in asked:
                raise ValueError(
                    f"roles has folds and {role!r}: with folds every row is scored once, and fitted on in the others."
                    f" Leave out {role!r}, or leave out folds; to score some stories only, name them in roles.over."
                )
            if any(role in words.split(" and ") for words in allow):
                raise ValueError(
                    f"allow is {list(allow)} and roles has folds: what is tuned on or chosen by is never scored with"
                    f" folds. Leave the words about {role!r} out of allow, or name fit and score instead of folds."
                )
        for key in asked:
            if key not in KEYS:
                raise ValueError(f"roles has folds and {key!r}. {did_you_mean(key, KEYS)}")
        n_folds, purge = asked["folds"], asked.get("purge", AUTO)
        if isinstance(n_folds, bool) or not isinstance(n_folds, int) or n_folds < 2:
            raise ValueError(f"roles.folds is {n_folds!r}; give a whole number, 2 or more: one fold leaves no other.")
        is_number = isinstance(purge, int | float) and not isinstance(purge, bool)
        if purge != AUTO and not (is_number and 0 <= float(purge) < math.inf):  # type: ignore[arg-type]
            raise ValueError(f"roles.purge is {purge!r}; give {AUTO!r}, or seconds, 0 or more.")
        over = _spans("over", asked["over"]) if asked.get("over") is not None else None
        apart = {role: _spans(role, asked[role]) for role in ("tune", "choose") if role in asked}
        return cls(n_folds, float(purge) if is_number else None, over, apart)  # type: ignore[arg-type]


def spans_by_role(asked: AskedRoles) -> dict[str, list[str]]:
    """Roles without folds, as they are written.

    Raises
    ------
    ValueError
        If a role has no list of spans, or something is there that makes sense with folds only.
    """
    for key in ("purge", "over"):
        if key in asked:
            raise ValueError(f"roles.{key} is for folds, and there are none; add roles.folds, or leave {key!r} out.")
    return {role: list(_spans(role, spans)) for role, spans in asked.items()}


def _spans(role: str, spans: Any) -> tuple[str, ...]:
    if isinstance(spans, str) or not isinstance(spans, Sequence):
        raise ValueError(f"roles.{role} is {spans!r}; give a list of stories or spans, such as [{spans}].")
    return tuple(map(str, spans))


def settle_folds(store: StoryStore, asked: AskedFolds, purge_trs: int, allow: Sequence[str] = ()) -> Roles:
    """The roles of a data set with folds, checked against the stories of the store.

    Parameters
    ----------
    purge_trs : int
        Rows between what is tuned on or chosen by and what is scored; between folds at least as many, where the purge
        is not given in seconds.

    Raises
    ------
    LeakError
        If what is tuned on or chosen by is also scored, or too near to it.
    ValueError
        If there are fewer stories (or runs) than folds, or a single story is too short for them.
    """
    over = asked.over if asked.over is not None else _left(store, asked.apart)
    if not over:
        raise ValueError("every story is tuned on or chosen by, and nothing is left for folds; name it in roles.over.")
    try:
        roles = settle_roles(store, {**asked.apart, "score": over}, purge_trs, allow)
    except LeakError as error:
        raise LeakError(
            f"{error} With roles.folds nothing that is tuned on or chosen by is scored, whatever allow says: name other"
            " rows in roles.over."
        ) from error
    scored = _cut(store, roles, asked.n_folds)
    folds = Folds(tuple(scored), asked.purge_s)
    by_role = {**{role: roles.spans(role) for role in asked.apart}, "fit": folds.spans, "score": folds.spans}
    return replace(roles, by_role=by_role, folds=folds)


def _left(store: StoryStore, apart: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Stories of which nothing is tuned on or chosen by, whole ones under the name of all their runs."""
    named = {text.partition("[")[0].strip() for spans in apart.values() for text in spans}
    named |= {store.parts[story] for story in named if story in store.parts}
    names = dict.fromkeys(store.parts.get(story, story) for story in store.story_names)
    return tuple(name for name in names if name not in named and name not in store.on_other_clocks)


def _cut(store: StoryStore, roles: Roles, n_folds: int) -> list[tuple[Span, ...]]:
    """The spans that are scored, cut into folds."""
    clocks, spans = roles.clocks, roles.spans("score")
    led = {span.story for span in spans}
    leaders = [span for span in spans if span.story not in clocks or clocks[span.story].story not in led]
    followers = [span for span in spans if span not in leaders]
    units = _units(store, leaders)
    if len(units) > 1:
        cut = _whole(units, n_folds, "stories")
    else:
        runs = _same_sounds(store, units[0])
        cut = (
            _whole(runs, n_folds, "runs of one story", in_order=True) if len(runs) > 1 else _stretches(runs[0], n_folds)
        )
    return [(*own, *_following(own, followers, clocks)) for own in cut]


def _units(store: StoryStore, spans: Sequence[Span]) -> list[list[Span]]:
    """Spans by what must stay together: the runs of a story, and stories of one sound."""
    return _joined(spans, [{story: store.parts.get(story, story) for story in store.story_names}, _sounds(store)])


def _same_sounds(store: StoryStore, spans: Sequence[Span]) -> list[list[Span]]:
    return _joined(spans, [{story: story for story in store.story_names}, _sounds(store)])


def _sounds(store: StoryStore) -> dict[str, str]:
    return {story: f"sound {digest}" for story, digest in same_length_sounds(store).items()}


def _joined(spans: Sequence[Span], kinds: Sequence[Mapping[str, str]]) -> list[list[Span]]:
    """Spans that share a label of any kind, directly or by way of others."""
    units: list[tuple[set[str], list[Span]]] = []
    for span in spans:
        labels = {kind[span.story] for kind in kinds if span.story in kind}
        same = [unit for unit in units if unit[0] & labels]
        units = [unit for unit in units if unit not in same]
        units.append((labels.union(*(unit[0] for unit in same)), [*(s for unit in same for s in unit[1]), span]))
    order = {span: place for place, span in enumerate(spans)}
    return sorted((sorted(own, key=order.__getitem__) for _, own in units), key=lambda own: order[own[0]])


def _whole(units: Sequence[list[Span]], n_folds: int, what: str, in_order: bool = False) -> list[tuple[Span, ...]]:
    """Whole units in folds of about equally many rows; neighbours together where the order counts."""
    if n_folds > len(units):
        names = ", ".join(dict.fromkeys(span.story for unit in units for span in unit))
        raise ValueError(
            f"roles.folds is {n_folds}, and there are {len(units)} {what} that can be held out apart from each other"
            f" ({names}). Give at most {len(units)} folds, or name one of them in roles.over, to score stretches of it."
        )
    sizes = [sum(span.n_trs for span in unit) for unit in units]
    folds: list[list[int]] = [[] for _ in range(n_folds)]
    if in_order:
        for place in range(len(units)):
            folds[place * n_folds // len(units)].append(place)
    else:
        for place in sorted(range(len(units)), key=lambda k: (-sizes[k], k)):  # the longest first, to the emptiest
            min(folds, key=lambda own: (sum(sizes[k] for k in own), len(own))).append(place)
    return [tuple(span for k in sorted(own) for span in units[k]) for own in sorted(folds, key=min)]


def _stretches(spans: Sequence[Span], n_folds: int) -> list[tuple[Span, ...]]:
    """One story in so many stretches of equally many rows; of one sound under two names the same rows."""
    cut: list[list[Span]] = [[] for _ in range(n_folds)]
    by_name = {
        story: sorted(span for span in spans if span.story == story) for story in dict.fromkeys(s.story for s in spans)
    }
    if len({tuple((span.start_tr, span.stop_tr) for span in own) for own in by_name.values()}) > 1:
        raise ValueError(
            f"{', '.join(map(str, spans))} are one sound under several names with other rows, so that folds cannot keep"
            " what sounds at one time together. Name one of them in roles.over, or the same rows of each."
        )
    for story, own in by_name.items():
        done, n_trs = 0, sum(span.n_trs for span in own)
        if n_trs < FEWEST_TRS * n_folds:
            raise ValueError(
                f"{', '.join(map(str, own))} has {n_trs} TRs, too few for {n_folds} folds of at least {FEWEST_TRS}."
                " Give fewer folds or more rows: roles.folds, roles.over."
            )
        edges = [k * n_trs // n_folds for k in range(n_folds + 1)]
        for span in own:
            for k, fold in enumerate(cut):
                start, stop = max(edges[k] - done, 0), min(edges[k + 1] - done, span.n_trs)
                if start < stop:
                    fold.append(Span(story, span.start_tr + start, span.start_tr + stop))
            done += span.n_trs
    return [tuple(fold) for fold in cut]


def _following(own: Sequence[Span], followers: Sequence[Span], clocks: Mapping[str, Clock]) -> list[Span]:
    """The rows of stories on other clocks that begin within a fold's spans, each row in one fold."""
    found = []
    for other in followers:
        clock = clocks[other.story]
        for span in (span for span in own if span.story == clock.story):
            edges = (math.ceil(row - clock.first_row - _CLOCK_TRS) for row in (span.start_tr, span.stop_tr))
            start_tr, stop_tr = (min(max(edge, other.start_tr), other.stop_tr) for edge in edges)
            if start_tr < stop_tr:
                found.append(Span(other.story, start_tr, stop_tr))
    return found
