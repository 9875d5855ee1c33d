"""What a downstream task is: clips of speech in parts, one label map for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from brainlit.downstream.clip import Clip, later_copies

if TYPE_CHECKING:  # arrays come with all of encoding, and so with torch
    from brainlit.encoding.arrays import IntArray

Kind = Literal["single", "multi"]
Metric = Literal["accuracy", "macro_f1"]
SameSound = Literal["refuse", "drop", "ignore"]

TRAIN, CHOOSE, TEST = "train", "choose", "test"
PARTS = (TRAIN, CHOOSE, TEST)
"""Every task has these; further parts are further tests, such as test_unseen_words."""

Example: TypeAlias = tuple[Clip, "str | Sequence[str]"]
"""A clip with its label, or with all of its labels."""


@dataclass(frozen=True, eq=False)
class Task:
    """A question about clips of speech, for probes on frozen features.

    Parameters
    ----------
    kind : 'single' or 'multi'
        One label per clip, or any number of them.
    labels : tuple of str
        Sorted; index k means labels[k] in every part.
    clips : mapping of part to sequence of Clip
        'train'; 'choose', on which layer and regularisation are chosen; 'test'; and further test parts, if any.
    targets : mapping of part to int array
        Label index of each clip, shape (n_clips,); for 'multi' 0 or 1, shape (n_clips, n_labels).
    metric : 'accuracy' or 'macro_f1'
        What the task is scored by.
    facts : mapping of str to str
        Source, licence, citation, what was left out and how much.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    clips: Mapping[str, Sequence[Clip]]
    targets: Mapping[str, IntArray]
    metric: Metric = "macro_f1"
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in ("single", "multi") or self.metric not in ("accuracy", "macro_f1"):
            raise ValueError(
                f"task {self.name!r} is of kind {self.kind!r} with metric {self.metric!r}; kinds are 'single' and"
                " 'multi', metrics 'accuracy' and 'macro_f1'."
            )
        if len(self.labels) < 2 or list(self.labels) != sorted(set(self.labels)):
            raise ValueError(f"task {self.name!r} has labels {self.labels[:5]}; need two or more, sorted, each once.")
        for part in (*PARTS, *self.clips):
            if not self.clips.get(part):
                raise ValueError(_empty(self.name, part))
            n_clips, n_labels = len(self.clips[part]), len(self.labels)
            shape = (n_clips,) if self.kind == "single" else (n_clips, n_labels)
            if part not in self.targets or self.targets[part].shape != shape:
                raise ValueError(f"task {self.name!r} needs targets of shape {shape} in its part {part!r}.")

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts: train, choose, test, then the others as given."""
        return (*PARTS, *(part for part in self.clips if part not in PARTS))

    @property
    def test_parts(self) -> tuple[str, ...]:
        """The parts that are only scored: test first."""
        return tuple(part for part in self.parts if part not in (TRAIN, CHOOSE))


@dataclass(frozen=True, eq=False)
class RecognitionTask:
    """Clips to be written down, for CTC fine-tuning.

    Parameters
    ----------
    clips : mapping of part to sequence of Clip
        Each with its text; the parts are those of a Task.
    alphabet : str
        A space, then each letter once.
    facts : mapping of str to str
        As in Task.
    """

    name: str
    clips: Mapping[str, Sequence[Clip]]
    alphabet: str
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in (*PARTS, *self.clips):
            if not self.clips.get(part):
                raise ValueError(_empty(self.name, part))
            silent = [clip.name for clip in self.clips[part] if not clip.text.strip()]
            if silent:
                raise ValueError(
                    f"task {self.name!r}: {len(silent)} clips of the part {part!r} have no text, the first is"
                    f" {silent[0]!r}; leave them out, and say so in the facts."
                )


def make_recognition_task(
    name: str, clips: Mapping[str, Sequence[Clip]], facts: Mapping[str, str] | None = None
) -> RecognitionTask:
    """A recognition task with the alphabet of its texts: letters and apostrophe in lower case.

    Raises
    ------
    ValueError
        If a part is empty, a clip has no text, or the texts have no letters.
    """
    from brainlit.tuning.objectives.ctc import inventory_of

    texts = [clip.text for part in clips.values() for clip in part]
    return RecognitionTask(name, dict(clips), inventory_of(texts), dict(facts or {}))


def make_task(
    name: str,
    kind: Kind,
    examples: Mapping[str, Sequence[Example]],
    *,
    metric: Metric = "macro_f1",
    facts: Mapping[str, str] | None = None,
    drop_unknown: bool = False,
    speaker_disjoint: bool = False,
    same_sound: SameSound = "refuse",
) -> Task:
    """A task whose parts share one sorted label map and no sound.

    Parameters
    ----------
    examples : mapping of part to (clip, label) pairs
        For kind 'multi', (clip, labels) pairs; see Task for the parts.
    facts : mapping of str to str, optional
        What is left out here is added to its entry 'left_out'.
    drop_unknown : bool
        Leave out labels that train lacks, and for kind 'single' their clips; counted in the facts. Otherwise refused.
    speaker_disjoint : bool
        Refuse a speaker in two of train, choose and the tests (which may share speakers among themselves).
    same_sound : {refuse, drop, ignore}
        What to do where two of train, choose and the tests hold identical sound: refuse it; leave it out of the first
        of them, counted in the facts; or do not look, which spares reading the files.

    Raises
    ------
    ValueError
        If a part is missing or empty, a name of a clip occurs twice, a label is one that train lacks, or two parts
        share a sound or a speaker that they may not share.
    """
    labelled: _Labelled = {}
    for part in (*PARTS, *(part for part in examples if part not in PARTS)):
        if not examples.get(part):
            raise ValueError(_empty(name, part))
        labelled[part] = [(clip, _label_set(kind, clip, label)) for clip, label in examples[part]]
    notes = [(facts or {}).get("left_out", "")]
    _check_names(name, labelled)
    if same_sound != "ignore":
        notes.append(_without_copies(name, labelled, drop=same_sound == "drop"))
    if speaker_disjoint:
        _check_speakers(name, labelled)
    labels = tuple(sorted(set().union(*(found for _, found in labelled[TRAIN]))))
    notes.append(_without_unknown(name, kind, labelled, set(labels), drop_unknown))
    clips = {part: tuple(clip for clip, _ in pairs) for part, pairs in labelled.items()}
    targets = {part: _encode(kind, labels, [found for _, found in pairs]) for part, pairs in labelled.items()}
    left_out = "; ".join(filter(None, notes))
    found = {**(facts or {}), **({"left_out": left_out} if left_out else {})}
    return Task(name, kind, labels, clips, targets, metric, found)


_Labelled = dict[str, list[tuple[Clip, frozenset[str]]]]


def _label_set(kind: Kind, clip: Clip, label: str | Sequence[str]) -> frozenset[str]:
    if isinstance(label, str) != (kind == "single"):
        raise ValueError(
            f"clip {clip.name!r} has {label!r} for its label; kind 'single' takes one str, 'multi' a sequence of them."
        )
    return frozenset([label] if isinstance(label, str) else label)


def _empty(name: str, part: str) -> str:
    return (
        f"task {name!r} has no clips in its part {part!r}; every part needs some, and every task needs train, choose"
        " (on which layers are chosen) and test."
    )


def _check_names(name: str, labelled: _Labelled) -> None:
    counts = Counter(clip.name for pairs in labelled.values() for clip, _ in pairs)
    twice = [clip for clip, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f"task {name!r}: {len(twice)} names of clips occur more than once, the first is {twice[0]!r}; a clip"
            " belongs to one part, once."
        )


def _group(part: str) -> str:
    """train, choose, or test for all parts that are only scored."""
    return part if part in (TRAIN, CHOOSE) else TEST


def _check_speakers(name: str, labelled: _Labelled) -> None:
    group_of: dict[str, str] = {}
    for part, pairs in labelled.items():
        for clip, _ in pairs:
            if not clip.speaker:
                raise ValueError(f"task {name!r} keeps speakers apart, and clip {clip.name!r} names none.")
            before = group_of.setdefault(clip.speaker, _group(part))
            if before != _group(part):
                raise ValueError(
                    f"task {name!r}: speaker {clip.speaker!r} is in {before!r} and in {part!r}; give each speaker to"
                    " one of train, choose and the tests, or the probe may know them by their voices."
                )


def _without_unknown(name: str, kind: Kind, labelled: _Labelled, known: set[str], drop: bool) -> str:
    """Take out labels that train lacks, if that is wanted; says what was done."""
    counts = Counter(label for pairs in labelled.values() for _, found in pairs for label in found - known)
    if not counts:
        return ""
    listing = ", ".join(f"{label} ({count})" for label, count in sorted(counts.items())[:10])
    if not drop:
        raise ValueError(
            f"task {name!r}: {len(counts)} labels are not among those of train, in {sum(counts.values())} places:"
            f" {listing}. Give train examples of them, or drop_unknown=True to leave them out and count them."
        )
    for part, pairs in labelled.items():
        kept = [(clip, found & known) for clip, found in pairs if kind == "multi" or found <= known]
        if not kept:
            raise ValueError(f"task {name!r}: no clip of the part {part!r} has a label that train knows: {listing}.")
        labelled[part] = kept
    return f"{sum(counts.values())} labels that train lacks: {listing}"


def _without_copies(name: str, labelled: _Labelled, drop: bool) -> str:
    """Find sound that two parts share, and take it out of the first of them if that is wanted; says what was done."""
    groups: dict[str, list[Clip]] = {}
    for part, pairs in labelled.items():
        groups.setdefault(_group(part), []).extend(clip for clip, _ in pairs)
    found = [(part, clip.name) for part, clips in later_copies(groups).items() for clip in clips]
    if not found:
        return ""
    part, first = found[0]
    if not drop:
        raise ValueError(
            f"task {name!r}: {len(found)} clips have the very sound of a clip in a later part; one is {first!r} in"
            f" {part!r}. Take them out, or give same_sound='drop' to leave them out and count them."
        )
    copies = {clip for _, clip in found}
    for part, pairs in labelled.items():
        labelled[part] = [(clip, label) for clip, label in pairs if clip.name not in copies]
        if not labelled[part]:
            raise ValueError(f"task {name!r}: every clip of the part {part!r} is in a later part too.")
    return f"{len(copies)} clips whose sound is in a later part too, one of them {first}"


def _encode(kind: Kind, labels: Sequence[str], found: Sequence[frozenset[str]]) -> IntArray:
    index = {label: k for k, label in enumerate(labels)}
    if kind == "single":
        return np.asarray([index[label] for one in found for label in one], dtype=np.int64)
    return np.asarray([[int(label in one) for label in labels] for one in found], dtype=np.int64)
