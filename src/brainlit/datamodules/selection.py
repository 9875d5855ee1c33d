"""What a run uses of a store: voxels, subjects and spans in their roles, decided without looking at scored data."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from tqdm.auto import tqdm

from brainlit.demo.text import random_stream
from brainlit.encoding.arrays import Float32Array, FloatArray, IntArray
from brainlit.encoding.ceiling import Ceiling, CeilingMethod, noise_ceiling, signal_rows
from brainlit.splits import Clock, Roles, Span, make_roles, parse_span
from brainlit.store import StoryStore
from brainlit.store.schema import unknown_name

logger = logging.getLogger(__name__)

VOXELS_AT_ONCE = 8192
"""Ten repeats of 291 TRs of so many voxels are 95 MB; of a whole brain, 1.1 GB."""


# --- Voxels ---


def select_voxels(
    store: StoryStore,
    subject: str,
    choose: Sequence[Span],
    min_ceiling: float | None,
    method: CeilingMethod = "signal_power",
) -> IntArray:
    """Columns to tune on: finite and varying in every story and, if asked, with a reliable ceiling above min_ceiling.

    Repeats are read in blocks of voxels.

    Parameters
    ----------
    choose : sequence of Span
        The ceiling is measured on the repeats of these rows and of no others.
    min_ceiling : float or None
        Correlation that a perfect model would reach with the mean of the repeats of those spans that were heard
        repeatedly; None asks for no ceiling.
    method : 'signal_power', 'split_half' or 'explainable_variance'
        How the ceiling is estimated; `brainlit.encoding.ceiling` has the formulas.

    Raises
    ------
    ValueError
        If min_ceiling is not in 0..1, the subject heard none of `choose` repeatedly, or no voxel is left.
    """
    good = store.good_voxels(subject)
    if not good.any():
        raise ValueError(f"subject {subject!r} has no voxel that is finite and varies in all stories; leave it out.")
    if min_ceiling is None:
        return np.flatnonzero(good).astype(np.int64)
    if not 0 <= min_ceiling < 1:
        raise ValueError(f"min_ceiling is {min_ceiling}; a ceiling is a correlation between 0 and 1.")
    parts = [part.reliable(min_ceiling) for part in ceilings(store, subject, choose, method)]
    reliable = good & np.concatenate(parts)
    logger.info("%s: %d of %d voxels have a ceiling above %s", subject, reliable.sum(), good.sum(), min_ceiling)
    if not reliable.any():
        raise ValueError(
            f"no voxel of subject {subject!r} has a reliable noise ceiling above {min_ceiling} on"
            f" {', '.join(map(str, choose))}; lower min_ceiling."
        )
    return np.flatnonzero(reliable).astype(np.int64)


def common_columns(store: StoryStore, chosen: Mapping[str, IntArray]) -> dict[str, IntArray]:
    """The same columns for all subjects: those that `select_voxels` chose in every one, in order.

    Raises
    ------
    ValueError
        If the subjects have different numbers of voxels, so that columns are not the same places, or none is common.
    """
    counts = ", ".join(f"{subject} {store.n_voxels(subject):,}" for subject in chosen)
    if len({store.n_voxels(subject) for subject in chosen}) > 1:
        raise ValueError(
            f"common_voxels needs responses in a common space, but the subjects have different numbers of voxels:"
            f" {counts}. Bring all to one space (such as fsaverage5 or fsaverage6), leave out subjects, or set"
            " common_voxels to false and take a head of kind linear."
        )
    first, *others = chosen.values()
    shared = set(first.tolist()).intersection(*(columns.tolist() for columns in others))
    common = np.array(sorted(shared), dtype=np.int64)
    listed = ", ".join(f"{subject} {len(columns):,}" for subject, columns in chosen.items())
    if not len(common):
        raise ValueError(
            f"no voxel is chosen in every subject (chosen: {listed}), so common_voxels leaves none. Lower min_ceiling"
            " or leave it null, leave out the subject with the fewest voxels, or set common_voxels to false."
        )
    logger.info("%d voxels are common to all subjects; chosen in each: %s", len(common), listed)
    return {subject: common.copy() for subject in chosen}


def ceilings(
    store: StoryStore, subject: str, spans: Sequence[Span], method: CeilingMethod = "signal_power"
) -> Iterator[Ceiling]:
    """Noise ceilings of all voxels in order, some voxels at a time; see `choose_repeats` for what they rest on."""
    n_voxels = store.n_voxels(subject)
    starts = range(0, n_voxels, VOXELS_AT_ONCE)
    for start in tqdm(starts, desc=f"ceilings of {subject}", unit="block", leave=False, disable=len(starts) == 1):
        block = slice(start, min(start + VOXELS_AT_ONCE, n_voxels))
        yield noise_ceiling(choose_repeats(store, subject, spans, block), method=method)


def span_signal(store: StoryStore, subject: str, spans: Sequence[Span]) -> Float32Array:
    """Share of signal in the rows of the spans, (n_rows, n_voxels): `brainlit.encoding.ceiling.signal_rows` of all.

    Rows of a story that was heard once are NaN; their responses count with the noise of one presentation.

    Raises
    ------
    ValueError
        If the subject did not hear one of the spans, or none repeatedly.
    """
    _require_repeats(store, subject, spans)
    found = np.empty((sum(span.n_trs for span in spans), store.n_voxels(subject)), dtype=np.float32)
    # rows of all voxels are one read, presentations of some voxels another
    once = {span: presentations(store, subject, span) for span in spans if store.n_repeats(subject, span.story) < 2}
    for start in range(0, found.shape[1], VOXELS_AT_ONCE):
        block = slice(start, start + VOXELS_AT_ONCE)
        found[:, block] = signal_rows(
            [once[span][:, :, block] if span in once else presentations(store, subject, span, block) for span in spans]
        )
    return found


def presentations(store: StoryStore, subject: str, span: Span, voxels: slice = slice(None)) -> Float32Array:
    """What a subject's responses to a span were averaged from: (n_presentations, n_trs, n_columns), one if heard once.

    Raises
    ------
    ValueError
        If the subject did not hear the story.
    """
    repeats = store.repeats(subject, span.story, voxels=voxels)
    if repeats is not None:
        return repeats[:, span.start_tr : span.stop_tr]
    once = store.responses(subject, span.story, span.start_tr, span.stop_tr)
    if once is None:
        raise ValueError(f"subject {subject!r} did not hear {span.story!r}; leave it out of the rows.")
    return once[None, :, voxels]


def voxel_ceilings(store: StoryStore, subject: str, spans: Sequence[Span], method: CeilingMethod) -> FloatArray:
    """The highest reachable correlation of every voxel of a subject, shape (n_voxels,); NaN where repeats disagree."""
    return np.concatenate([part.ceiling_r for part in ceilings(store, subject, spans, method)])


def choose_repeats(
    store: StoryStore, subject: str, choose: Sequence[Span], voxels: slice = slice(None)
) -> list[Float32Array]:
    """The presentations of each span that was heard repeatedly, (n_presentations, n_trs, n_columns), all there are.

    Raises
    ------
    ValueError
        If the subject heard none of the spans repeatedly.
    """
    _require_repeats(store, subject, choose)
    repeated = [span for span in choose if store.n_repeats(subject, span.story) > 1]
    return [presentations(store, subject, span, voxels) for span in repeated]


def _require_repeats(store: StoryStore, subject: str, spans: Sequence[Span]) -> None:
    if any(store.n_repeats(subject, span.story) > 1 for span in spans):
        return
    named = ", ".join(map(str, spans)) or "none"
    elsewhere = [story for story in store.story_names if store.n_repeats(subject, story) > 1]
    raise ValueError(
        f"a noise ceiling needs repeats, and subject {subject!r} heard no 'choose' span ({named}) repeatedly;"
        f" repeated are {', '.join(elsewhere) or 'none'}. Give 'choose' such a story (never one that is scored), or"
        " set min_ceiling to null and take a loss without ceilings."
    )


# --- Subjects, and how much of the stories to use ---


def heard_any(store: StoryStore, subject: str, stories: Iterable[str]) -> bool:
    """Whether a subject heard at least one of some stories."""
    return not set(stories).isdisjoint(store.heard(subject))


def settle_subjects(
    store: StoryStore, usable: Sequence[str], asked: Sequence[str] | None, held_out: Sequence[str]
) -> list[str]:
    """The subjects to tune on; without a wish all usable ones that are not held out.

    Raises
    ------
    ValueError
        If there is none, one is named twice or unknown, one is to be tuned on and held out, or a group is to be used
        beside one of its members or another group with one of them.
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
    _refuse_people_twice(store, [*subjects, *held_out])
    return subjects


def _refuse_people_twice(store: StoryStore, names: Sequence[str]) -> None:
    """A group holds its members' responses: beside them they count twice, and held out they are not."""
    people = {name: {one for own in store.members(name).values() for one in own} or {name} for name in names}
    for name in names:
        for other in names:
            shared = people[name] & people[other]
            if other != name and store.members(name) and shared:
                same = other if other in shared else f"{', '.join(sorted(shared))}, as {other} does"
                raise ValueError(
                    f"{name} is a mean over people and holds the responses of {same}: both in one run would use them"
                    f" twice. Name the group, data.subjects: [{name}], or its members, and probe the other in a run of"
                    " its own."
                )


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
    told = {story: clock.story for story, clock in roles.clocks.items()}

    def draw(story: str) -> float:
        return random_stream(seed, "tune order", told.get(story, story)).random()

    order = sorted({span.story for span in heard}, key=lambda story: (draw(story), story))  # one sound, one number
    kept: dict[Span, Span] = {}
    for span in sorted(heard, key=lambda span: (order.index(span.story), span.start_tr)):
        n_trs = min(span.n_trs, wanted)
        wanted -= n_trs
        if n_trs:
            kept[span] = replace(span, stop_tr=span.start_tr + n_trs)
    tune = tuple(kept[span] for span in heard if span in kept)
    return replace(roles, by_role={**roles.by_role, "tune": tune})


# --- Roles, with one sound under two names found out ---


def settle_roles(
    store: StoryStore, asked: Mapping[str, Sequence[str]], purge_trs: int, allow: Sequence[str] = ()
) -> Roles:
    """The roles that are asked for, checked against the stories of the store.

    A span of a story is one of its sound: subjects for whom the story began at another time take the rows that lie in
    it on their own clock, unless their own story is named too. A story that was told over several runs stands for all
    of them. Raises what `make_roles` raises.
    """
    n_trs_of = {story: store.n_trs(story) for story in store.story_names}
    asked = {role: [one for span in spans for one in _all_runs(store, span)] for role, spans in asked.items()}
    others, named = (
        store.on_other_clocks,
        {text.partition("[")[0].strip() for spans in asked.values() for text in spans},
    )
    everyone = {role: [*spans] for role, spans in asked.items()}
    for other, story in others.items():
        if other not in named:
            for role, spans in asked.items():
                ours = [span for span in spans if span.partition("[")[0].strip() == story]
                everyone[role] += [
                    str(span) for text in ours for span in _on_clock(store, parse_span(text, n_trs_of), other)
                ]
    clocks = {other: Clock(story, _first_row(store, story, other)) for other, story in others.items()}
    sounds = {story: sound for story, sound in same_length_sounds(store).items() if story not in others}
    return make_roles(everyone, n_trs_of, purge_trs, allow, sounds, clocks, store.parts)


def _all_runs(store: StoryStore, span: str) -> list[str]:
    """A span, or the runs of a story that was told over several."""
    name, bracket, _ = span.partition("[")
    parts = {} if name.strip() in store.story_names else store.parts
    runs = [part for part, whole in parts.items() if whole == name.strip() and part not in store.on_other_clocks]
    if runs and bracket:
        raise ValueError(
            f"{span!r}: {name.strip()!r} was told over several runs, each with rows of its own. Say which:"
            f" {', '.join(run + span[len(name) :] for run in runs)}."
        )
    return runs or [span]


def _first_row(store: StoryStore, story: str, other: str) -> float:
    starts_s = [store.timebase(name).tr_starts_s[0] for name in (story, other)]
    return float(starts_s[1] - starts_s[0]) / store.tr_s


def _on_clock(store: StoryStore, span: Span, other: str) -> list[Span]:
    """The rows of another clock that lie within the sound of a span; nothing, where there are none."""
    ours, theirs = store.timebase(span.story), store.timebase(other)
    edges_s = ours.tr_edges_s(span.start_tr, span.n_trs)
    start_s = edges_s[0] if span.start_tr else -np.inf
    stop_s = edges_s[-1] if span.stop_tr < ours.n_trs else np.inf
    near_s = 1e-3 * ours.tr_s
    rows = np.flatnonzero((theirs.tr_starts_s >= start_s - near_s) & (theirs.tr_ends_s <= stop_s + near_s))
    return [Span(other, int(rows[0]), int(rows[-1]) + 1)] if rows.size else []


def same_length_sounds(store: StoryStore) -> dict[str, str]:
    """SHA-256 of the samples of every story that is as long as another one: only these can be the same sound."""
    n_samples = {story: store.n_samples(story) for story in store.story_names}
    shared = {n for n, n_stories in Counter(n_samples.values()).items() if n_stories > 1}
    return {story: sound_hash(store, story, shared) for story, n in n_samples.items() if n in shared}


def sound_hash(store: StoryStore, story: str, lengths: Collection[int]) -> str:
    """SHA-256 of a story's samples if it is as long as one of `lengths`; else its length, which tells it from them."""
    n_samples = store.n_samples(story)
    if n_samples not in lengths:
        return f"{n_samples} samples"
    return hashlib.sha256(store.audio(story, 0, n_samples).tobytes()).hexdigest()
