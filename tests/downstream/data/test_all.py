"""All data sets alike: one loader each, one label map for all parts, the same in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from brainlit.downstream.task import Task
from brainlit.downstream.tasks import TASKS
from tests.layouts.crema_d import write_crema_d
from tests.layouts.fluent import write_fluent
from tests.layouts.librispeech import write_librispeech
from tests.layouts.slurp import write_slurp
from tests.layouts.speech_commands import write_speech_commands
from tests.layouts.timit import write_timit

LAYOUTS: Mapping[str, Callable[[Path], None]] = {
    "timit": write_timit,
    "speech_commands": write_speech_commands,
    "crema_d": write_crema_d,
    "slurp": write_slurp,
    "librispeech": write_librispeech,
    "fluent_speech_commands": write_fluent,
}
PUBLISHED = {entry.name: entry for entry in TASKS if entry.needs == "folder"}
PROBED = {name: entry for name, entry in PUBLISHED.items() if not entry.recognition}
_ELSEWHERE = """
import json, sys, types
from pathlib import Path
import brainlit
for name in ("brainlit.tuning", "brainlit.tuning.objectives"):
    package = types.ModuleType(name)
    package.__path__ = [str(Path(brainlit.__file__).parent.joinpath(*name.split(".")[1:]))]
    sys.modules[name] = package
from tests.downstream.data.test_all import PROBED, summary
root = Path(sys.argv[1])
print(json.dumps({name: summary(entry.load(root / entry.data_set)) for name, entry in PROBED.items()}))
"""
"""Another process; the packages of which only the letters are used are not run, for they import torch."""


def summary(task: Task) -> dict[str, Any]:
    """Everything that could come out in another order."""
    names = {part: [clip.name for clip in clips] for part, clips in task.clips.items()}
    targets = {part: values.tolist() for part, values in task.targets.items()}
    return {"labels": list(task.labels), "names": names, "targets": targets, "facts": dict(task.facts)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All layouts; not to be changed."""
    root = tmp_path_factory.mktemp("layouts")
    for name, write in LAYOUTS.items():
        write(root / name)
    return root


@pytest.mark.parametrize("name", PROBED)
def test_each_task_has_its_name_its_parts_and_its_papers(root: Path, name: str) -> None:
    task = PROBED[name].load(root / PROBED[name].data_set)
    assert task.name == name
    assert task.parts == ("train", "choose", "test")
    assert {"source", "licence", "citation", "split"} <= set(task.facts)
    assert all(clip.text for clips in task.clips.values() for clip in clips)


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) - set(PROBED)))
def test_each_recognition_task_has_words_for_every_clip(root: Path, name: str) -> None:
    task = PUBLISHED[name].load(root / PUBLISHED[name].data_set)
    assert task.name == name
    assert {"source", "licence", "citation", "split"} <= set(task.facts)
    letters = {letter for clips in task.clips.values() for clip in clips for letter in clip.text}
    assert letters <= set(task.alphabet)


def test_labels_and_clips_are_the_same_whatever_the_hash_seed(root: Path) -> None:
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    here = {name: summary(entry.load(root / entry.data_set)) for name, entry in PROBED.items()}
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(root)],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert json.loads(done.stdout) == here
