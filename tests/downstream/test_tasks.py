"""One table of tasks: each entry can be loaded, and what speaks of tasks speaks of these."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from brainlit.comparison.claims import CLAIMS
from brainlit.downstream.tasks import TASK_NAMES, TASKS, TaskEntry, find_task, load_tasks

PAGE = (Path(__file__).parents[2] / "docs" / "downstream.md").read_text()
NEEDS = {"nothing": "", "stories": "a run, or `--store`", "folder": "`--data`"}


def test_every_name_is_there_once_and_says_where_a_task_is_from() -> None:
    assert len(set(TASK_NAMES)) == len(TASKS) >= 15
    assert [name for name in TASK_NAMES if name.count("/") != 1] == ["words"]
    assert {entry.data_set for entry in TASKS if entry.needs == "nothing"} == {"demo"}
    assert [entry.name for entry in TASKS if entry.recognition] == ["timit/recognition", "librispeech/recognition"]


@pytest.mark.parametrize("entry", TASKS, ids=TASK_NAMES)
def test_every_loader_is_there(entry: TaskEntry) -> None:
    module, _, function = entry.loader.partition(":")
    assert callable(getattr(importlib.import_module(f"brainlit.downstream.{module}"), function))


def test_the_page_lists_them_all_as_they_are() -> None:
    rows = re.findall(r"^\| `([a-z_]+/[a-z_]+|words)` \| ([^|]+) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert [(name, question, needs.strip()) for name, question, needs in rows] == [
        (entry.name, entry.question, NEEDS[entry.needs]) for entry in TASKS
    ]


def test_claims_are_about_tasks_that_there_are() -> None:
    named = {key.what for claim in CLAIMS for key in claim.keys if "/" in key.what}
    assert len(named) > 5
    assert named <= set(TASK_NAMES)


def test_listing_them_imports_nothing_heavy() -> None:
    code = (
        "import sys; from brainlit.downstream.tasks import TASKS\n"
        "print([m for m in ('torch', 'numpy', 'brainlit.stories') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'demo/phones'"):
        find_task("demo/phone")
    with pytest.raises(ValueError, match="Did you mean 'timit/phones'"):
        load_tasks(["timit/phone"], tmp_path)
    with pytest.raises(ValueError, match="'words' has no labelled clips"):
        load_tasks(["words"])
    with pytest.raises(ValueError, match="'timit/phones' needs the folder of its data set"):
        load_tasks(["timit/phones"])
