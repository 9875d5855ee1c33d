"""Look a finished store over: bytes, clocks, sound, words, responses, timing; say what is wrong, where, and what to do.

docs/data_check.md explains every kind of finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from brainlit.files import sha256_of
from brainlit.store.checks.findings import Finding, counted
from brainlit.store.checks.stories import StoryChecks
from brainlit.store.checks.subjects import SubjectChecks
from brainlit.store.checks.timing import LagEvidence
from brainlit.store.reader import StoryStore
from brainlit.store.schema import StoreError, StoreIndex, read_index


def check_store(path: Path | str, progress: bool = True) -> list[Finding]:
    """Read every byte of a store and return what is wrong with it, errors first; empty if all is well.

    Files that are missing or differ from their SHA-256 are reported and the store's content is then not looked at.
    Responses are read once, some rows at a time: memory stays below 2 GB whatever the store's size.

    Parameters
    ----------
    progress : bool
        Show a progress bar.

    Raises
    ------
    StoreError
        If the folder holds no finished store, or one that another schema version wrote.
    """
    path = Path(path)
    index = read_index(path)
    if index is None:
        raise StoreError(f"there is no finished store at {path}; build it with build_store.")
    n_responses = sum(len(entry.stories) for entry in index.subjects.values())
    n_steps = len(index.files) + len(index.stories) + n_responses
    with tqdm(total=n_steps, desc=f"check {index.name}", unit="part", disable=not progress) as bar:
        broken = list(_bytes(path, index, bar))
        findings = broken or list(_content(StoryStore.open(path), bar))
    return counted(findings, _sizes(index, n_responses))


def _content(store: StoryStore, bar: Any) -> Iterator[Finding]:
    """Everything but the bytes; closes the store."""
    lags = LagEvidence(store)
    stories, subjects = StoryChecks(), SubjectChecks(lags)
    try:
        for name in store.story_names:
            story, findings = stories.story(store, name)
            if story is not None:
                lags.add_story(story)
            yield from findings
            bar.update()
        yield from stories.twins()
        for name in store.subject_names:
            yield from subjects.subject(store, name)
            for heard in store.heard(name):
                yield from subjects.responses(store, name, heard)
                bar.update()
            lags.close_subject(name, store.n_voxels(name))
        yield from subjects.twins(store)
        yield from lags.findings()
        cure = "It is in no result. If that was not meant, mend its files and build another store."
        for name, reason in store.left_out.items():
            yield Finding("info", "left_out", name, f"was left out: {reason}", cure)
    finally:
        store.close()


def _bytes(path: Path, index: StoreIndex, bar: Any) -> Iterator[Finding]:
    again = "Build the store again: only this file is made anew."
    cure = "Delete this file and build the store again: only this file is made anew."
    for entry in index.files:
        file = path / entry.file
        if not file.exists():
            yield Finding("error", "missing_file", entry.file, "is missing.", again)
        elif file.stat().st_size != entry.n_bytes:
            message = f"has {file.stat().st_size} bytes, it was written with {entry.n_bytes}."
            yield Finding("error", "wrong_size", entry.file, message, cure)
        elif (found := sha256_of(file)) != entry.sha256:
            message = f"its SHA-256 is {found[:12]}.., it was written with {entry.sha256[:12]}..: it was changed."
            yield Finding("error", "changed_bytes", entry.file, message, cure)
        bar.update()


def _sizes(index: StoreIndex, n_responses: int) -> dict[str, int]:
    return {
        "files": len(index.files),
        "stories": len(index.stories),
        "spaces": len(index.stories) * len(index.feature_spaces),
        "subjects": len(index.subjects),
        "responses": n_responses,
    }
