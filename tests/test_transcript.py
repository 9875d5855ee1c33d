"""docs/transcript.py, and the transcript of a first run that it has put into the tour."""

from __future__ import annotations

import io
import re
import runpy
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from brainlit.cli import TRAINING, VERBS

ROOT = Path(__file__).parents[1]
HEAD = (
    'Script started on 2026-01-01 10:00:00+00:00 [COMMAND="{}" TERM="xterm" TTY="/dev/pts/1" COLUMNS="80" LINES="24"]\n'
)
END = '\nScript done on 2026-01-01 10:05:00+00:00 [COMMAND_EXIT_CODE="0"]\n'
NOISE = (
    *("Loading weights", "Writing model shards", "GPU available", "TPU", "Trainable params", "Tip:", "wandb:"),
    *("Traceback", "Warning", "warn(", "[y/n]", "\x1b", "/work", "/root"),
)
"""What is nobody's to act on, or should not be there at all."""


@pytest.fixture(scope="module")
def tool() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "transcript.py")))


def test_bars_are_as_they_stood_at_last(tool: SimpleNamespace) -> None:
    """tqdm itself draws: a bar that stays, one inside of it that goes, and a line that is written above both."""
    terminal = io.StringIO()
    how = {"file": terminal, "ncols": 60, "mininterval": 0, "bar_format": "{desc} {n}/{total}"}
    for epoch in tqdm(range(2), "epoch", **how):
        for _ in tqdm(range(3), "  step", position=1, leave=False, **how):
            pass
        tqdm.write(f"end of {epoch}", file=terminal)
    terminal.write("\x1b[1mlast\x1b[0m\n")
    sent = terminal.getvalue().replace("\n", "\r\n")  # as a terminal gets it
    assert sent.count("step") > 6
    recording = HEAD.format("make x") + sent + END
    assert tool.transcript(recording, Path("/nowhere")).splitlines() == [
        *("$ make x", "end of 0", "end of 1", "epoch 2/2", "last"),
    ]


def test_the_folder_of_the_clone_has_a_name_of_its_own(tool: SimpleNamespace) -> None:
    recording = HEAD.format("make train A=b") + "Report: file:///data/clone/runs/report.html\r\n" + END
    said = tool.transcript(recording, Path("/data/clone"))
    assert said == "$ make train A=b\nReport: file:///home/you/brainlit/runs/report.html"
    with pytest.raises(ValueError, match="script -qec"):
        tool.transcript("no head", Path("/data/clone"))


def test_the_transcript_of_the_tour_is_a_command_of_today_and_ends_with_the_report(tool: SimpleNamespace) -> None:
    (found,) = tool.BLOCK.finditer((ROOT / "docs" / "tour.md").read_text("utf-8"))
    lines = found[0].splitlines()[2:-1]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    make, target, *settings = shlex.split(lines[0].removeprefix("$ "))
    assert make == "make"
    assert re.search(rf"^{target}: .*## ", makefile, re.MULTILINE)
    known = set(re.findall(r"^(\w+) \?=", makefile, re.MULTILINE))
    assert settings
    assert {setting.partition("=")[0] for setting in settings} <= known
    (verb,) = re.findall(r"\.venv/bin/brainlit (\w+)", lines[1])
    assert verb in TRAINING
    report, after = lines[-2:]
    assert re.fullmatch(rf"Report: file://{tool.FOLDER}/runs/[\w/-]+/report\.html", report)
    match = re.fullmatch(r"Next: brainlit (\w+) .*", after)
    assert match is not None
    assert match[1] in VERBS
    assert [word for word in NOISE if any(word in line for line in lines)] == []
