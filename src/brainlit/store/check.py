"""Look a finished store over: bytes, clocks, sound, responses, roles; say what is wrong, where, and what to do."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from brainlit.store.atomic import sha256_of
from brainlit.store.reader import StoryStore
from brainlit.store.schema import StoreError, read_index

Level = Literal["error", "warning", "info"]

MAX_MEAN, MAX_SD_DIFFERENCE = 0.05, 0.1
"""How far the median voxel's mean and standard deviation may be from 0 and 1 before responses count as not z-scored."""
MIN_COVERAGE = 0.5
MAX_SILENT_END_S = 60.0


@dataclass(frozen=True)
class Finding:
    """One thing that `check_store` noticed.

    Parameters
    ----------
    level : 'error', 'warning' or 'info'
        Errors make results wrong; warnings need a look; information is counted and harmless.
    where : str
        File, story or subject.
    """

    level: Level
    where: str
    message: str
    cure: str


def check_store(path: Path | str) -> list[Finding]:
    """Read every byte of a store and return what is wrong with it, errors first; empty if all is well.

    Files that are missing or differ from their SHA-256 are reported and the store's content is then not looked at.

    Raises
    ------
    StoreError
        If the folder holds no finished store, or one that another schema version wrote.
    """
    path = Path(path)
    broken = list(_check_bytes(path))
    if broken:
        return broken
    store = StoryStore.open(path)
    try:
        checks = (_check_stories(store), _check_spaces(store), _check_subjects(store), _check_twins(store))
        left_out = (_left_out(name, reason) for name, reason in store.left_out.items())
        findings = list(itertools.chain(*checks, left_out))
    finally:
        store.close()
    return sorted(findings, key=lambda finding: ("error", "warning", "info").index(finding.level))


def findings_text(findings: Sequence[Finding]) -> str:
    """One paragraph per finding, for people."""
    if not findings:
        return "The store is in order."
    return "\n".join(f"{f.level.upper():7} {f.where}: {f.message}\n        {f.cure}" for f in findings)


def findings_json(findings: Sequence[Finding]) -> str:
    """The findings as a JSON list, for programs."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def exit_code(findings: Iterable[Finding]) -> int:
    """1 if there is an error among the findings, else 0."""
    return int(any(finding.level == "error" for finding in findings))


def _left_out(name: str, reason: str) -> Finding:
    cure = "It is in no result. If that was not meant, mend its files and build another store."
    return Finding("info", name, f"was left out: {reason}", cure)


def _check_bytes(path: Path) -> Iterator[Finding]:
    index = read_index(path)
    if index is None:
        raise StoreError(f"there is no finished store at {path}; build it with build_store.")
    for entry in index.files:
        file = path / entry.file
        cure = "Delete this file and build the store again: only this file is made anew."
        if not file.exists():
            yield Finding("error", entry.file, "is missing.", "Build the store again: only this file is made anew.")
        elif file.stat().st_size != entry.n_bytes:
            message = f"has {file.stat().st_size} bytes, it was written with {entry.n_bytes}."
            yield Finding("error", entry.file, message, cure)
        elif (found := sha256_of(file)) != entry.sha256:
            message = f"its SHA-256 is {found[:12]}.., it was written with {entry.sha256[:12]}..: it was changed."
            yield Finding("error", entry.file, message, cure)


def _check_stories(store: StoryStore) -> Iterator[Finding]:
    same_sound = defaultdict(list)
    for story in store.story_names:
        n_samples = store.n_samples(story)
        audio = store.audio(story, 0, n_samples)
        same_sound[hashlib.sha256(audio.tobytes()).hexdigest()].append(story)
        yield from _check_sound(store, story, audio)
        words, end_s = store.words(story), n_samples / store.sample_rate_hz
        n_outside = int(((words.start_s < 0) | (words.start_s > end_s)).sum())
        if n_outside:
            message = f"{n_outside} of {len(words)} words start outside the sound (0..{end_s:.2f} s)."
            yield Finding("warning", story, message, "Check that the transcript is in seconds of this recording.")
    for twins in same_sound.values():
        if len(twins) > 1:
            message = f"stories {', '.join(twins)} have the same sound: one may tune and the other score."
            yield Finding(
                "error", twins[0], message, "Keep one of them, or give the one that is mixed up its own file."
            )


def _check_sound(store: StoryStore, story: str, audio: npt.NDArray[np.int16]) -> Iterator[Finding]:
    if not audio.any():
        yield Finding("error", story, "the sound is silent throughout.", "Check how the audio was read.")
        return
    clipped = float(((audio == np.iinfo(np.int16).max) | (audio == np.iinfo(np.int16).min)).mean())
    if clipped > 1e-3:
        message = f"{100 * clipped:.2f} % of the samples are at the limit of int16."
        yield Finding("warning", story, message, "Lower the gain before converting to int16.")
    clock = store.timebase(story)
    rest_s = len(audio) / store.sample_rate_hz - clock.end_s
    if rest_s > MAX_SILENT_END_S:
        message = f"the sound goes on for {rest_s:.1f} s after the last of {clock.n_trs} TRs."
        yield Finding("warning", story, message, "Check the number of TRs and the onset of the sound.")
    before = int((clock.tr_starts_s + clock.tr_s <= 0).sum())
    if before:
        yield Finding(
            "info", story, f"{before} TRs end before the sound starts; their windows are padded.", "None needed."
        )


def _check_spaces(store: StoryStore) -> Iterator[Finding]:
    for story in store.story_names:
        for space in store.feature_spaces(story):
            where = f"{story}/{space.name}"
            if space.coverage < MIN_COVERAGE:
                message = f"has a value for {100 * space.coverage:.0f} % of the words."
                yield Finding("warning", where, message, "Use vectors of the story's language and spelling.")
            if not (space.values.max(axis=0) > space.values.min(axis=0)).any():
                yield Finding(
                    "warning", where, "all columns are constant in time.", "Check how the space was computed."
                )


def _check_subjects(store: StoryStore) -> Iterator[Finding]:
    for name in store.subject_names:
        subject, good = store.subject(name), store.good_voxels(name)
        if not good.any():
            yield Finding(
                "error", name, "has no voxel that is finite and varies in all stories.", "Leave the subject out."
            )
        elif not good.all():
            message = f"{int((~good).sum())} of {len(good)} voxels are NaN or constant in some story; they are masked."
            yield Finding("info" if good.mean() > 0.9 else "warning", name, message, "Check the mask if that is many.")
        for region, mask in subject.regions.items():
            if not mask.any():
                yield Finding("warning", f"{name}/{region}", "the region holds no voxel.", "Check the region's mask.")
        for story in store.heard(name):
            yield from _check_responses(store, name, story)


def _check_responses(store: StoryStore, subject: str, story: str) -> Iterator[Finding]:
    where = f"{subject}/{story}"
    values = store.responses(subject, story)
    assert values is not None
    n_infinite = int(np.isinf(values).any(axis=0).sum())
    if n_infinite:
        yield Finding("error", where, f"{n_infinite} voxels hold infinite values.", "Check divisions in preprocessing.")
    usable = values[:, np.isfinite(values).all(axis=0)]
    usable = usable[:, usable.max(axis=0) > usable.min(axis=0)]
    if not usable.shape[1]:
        message = f"none of {values.shape[1]} voxels is finite and varies."
        yield Finding("warning", where, message, "Leave this story out for the subject.")
        return
    repeats = store.repeats(subject, story)
    mean, sd = float(np.median(usable.mean(axis=0))), float(np.median(usable.std(axis=0)))
    averaged = repeats is not None and sd < 1  # the mean of z-scored repeats varies less than each of them
    if abs(mean) > MAX_MEAN or (abs(sd - 1) > MAX_SD_DIFFERENCE and not averaged):
        message = f"responses are not z-scored: the median voxel has mean {mean:.3g} and standard deviation {sd:.3g}."
        yield Finding("warning", where, message, "Remove drift and z-score each story over time in the source.")
    if repeats is not None:
        yield from _check_repeats(where, repeats)


def _check_repeats(where: str, repeats: npt.NDArray[np.float32]) -> Iterator[Finding]:
    prints = [hashlib.sha256(repeat.tobytes()).hexdigest() for repeat in repeats]
    if len(set(prints)) < len(prints):
        message = (
            f"{len(prints) - len(set(prints))} of {len(prints)} repeats are copies: the noise ceiling is too high."
        )
        yield Finding("error", where, message, "Keep each presentation once.")


def _check_twins(store: StoryStore) -> Iterator[Finding]:
    """Two subjects with the same numbers for one story: a file was copied or loaded twice."""
    seen: dict[str, list[str]] = defaultdict(list)
    for subject in store.subject_names:
        for story in store.heard(subject):
            values = store.responses(subject, story)
            assert values is not None
            seen[f"{story}:{hashlib.sha256(values.tobytes()).hexdigest()}"].append(subject)
    for key, subjects in seen.items():
        if len(subjects) > 1:
            message = f"subjects {', '.join(subjects)} have identical responses to {key.split(':')[0]!r}."
            yield Finding("error", subjects[0], message, "Check which file belongs to whom; keep one of them.")
