"""A small part of the fault benchmark: no kind of file that brainlit writes is used after a flipped bit."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from brainlit.guard import UnreadableFileError
from tests.benchmarks.fault_kinds import OURS, THEIRS, digest, other_formats
from tests.benchmarks.faults import NAMELESS, REFUSED, TRACEBACK, damaged, judged
from tests.flips import flip_each

LIGHT = ["run: run.json", "run: metrics.csv", "run: downstream task", "cache: array", "cache: contents.json"]


@pytest.mark.parametrize("kind", [*LIGHT, "export: weights"])
def test_flips_are_refused_in_words(tmp_path: Path, kind: str) -> None:
    OURS[kind].make(tmp_path)
    path = tmp_path / OURS[kind].file
    outcome = flip_each(path, lambda: digest(OURS[kind].read(path)), n=10)
    assert outcome.silent == []
    assert {judged(error, path)[0] for error in outcome.refused} == {REFUSED}


@pytest.mark.parametrize("kind", [*LIGHT, "npz", "npy", "csv", "TextGrid", "config"])
def test_other_files_are_refused_in_words(tmp_path: Path, kind: str) -> None:
    one = {**OURS, **THEIRS}[kind]
    one.make(tmp_path)
    path = tmp_path / one.file
    for what, content in damaged(path.read_bytes(), other_formats(tmp_path), 12, random.Random(0)):
        path.write_bytes(content)
        with suppress(Exception):
            one.read(path)
            continue
        with pytest.raises(Exception) as caught:
            one.read(path)
        assert judged(caught.value, path)[0] == REFUSED, what


@pytest.mark.parametrize("kind", ["run: downstream task", "run: drift reference"])
def test_an_archive_that_hides_an_array_is_refused(tmp_path: Path, kind: str) -> None:
    """The length of a comment in the list of members: longer, it swallows the next member."""
    OURS[kind].make(tmp_path)
    path = tmp_path / OURS[kind].file
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 33] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=f"{path.name}.* arrays can be found"):
        OURS[kind].read(path)


def test_faults_are_told_apart() -> None:
    path = Path("a.h5")
    assert judged(UnreadableFileError("a.h5 is no file"), path)[0] == REFUSED
    assert judged(UnreadableFileError("this is no file"), path)[0] == NAMELESS
    assert judged(RuntimeError("a.h5"), path)[0] == TRACEBACK
