"""The suite of benchmarks: every row runs in a very small form, and a wrong answer makes it fail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainlit.encoding.search import make_folds
from tests.benchmarks import plain, suite
from tests.benchmarks.suite_measuring import Answer, Case, Row, measured, near
from tests.make import made

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
RUN = [row for row in suite.ROWS if row.by_default]


def spoiled(answer: Answer, name: str) -> dict[str, Any]:
    """One array of an answer, wrong by one and more."""
    return {**answer, name: np.asarray(answer[name], dtype=np.float64) - 1.5}


@pytest.mark.parametrize("row", RUN, ids=[row.name for row in RUN])
def test_a_row_runs_and_a_wrong_answer_makes_it_fail(row: Row, tmp_path: Path) -> None:
    given: list[tuple[Case, Answer, Answer]] = []

    def watched(case: Case) -> Case:
        def agree(ours: Answer, reference: Answer) -> Any:
            given.append((case, ours, reference))
            return case.agree(ours, reference)

        return replace(case, agree=agree)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seen = replace(row, make=lambda size, folder: map(watched, row.make(size, folder)), warm=False)  # type: ignore[arg-type]
        found = measured(seen, "tiny", tmp_path, repeats=1, progress=False)
    finally:
        torch.set_num_threads(threads)
    assert found["same"], found["agreement"]
    assert found["ours_s"] > 0 < found["reference_s"]
    json.dumps(found)
    for case, ours, reference in given:
        assert ours.keys() == reference.keys() != set()
        for name in reference:
            assert not case.agree(spoiled(ours, name), reference).same, name


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [([300] * 10, [2, 3, 2, 3]), ([300] * 4, [1, 1, 1, 1]), ([100, 50, 250, 40, 60, 300, 200], [2, 3, 1, 1])],
)
def test_both_sides_hold_out_the_same_stories(lengths: list[int], wanted: list[int]) -> None:
    groups = np.repeat(np.arange(len(lengths)), lengths)
    plainly, ours = plain.story_folds(groups, 4), make_folds(groups, 4)
    assert [len(np.unique(groups[held])) for _, held in plainly] == wanted
    for (train, held), fold in zip(plainly, ours, strict=True):
        np.testing.assert_array_equal(held, fold.held_out)
        np.testing.assert_array_equal(train, fold.train)


def test_references_share_no_code_with_brainlit() -> None:
    assert "import brainlit" not in (text := Path(plain.__file__).read_text())
    assert "from brainlit" not in text
    assert "from tests" not in text


# --- Files, tables, comparisons ---


def pair(ours: Answer, reference: Answer) -> Row:
    """A row of two fixed answers."""
    case = Case({"n": 1}, lambda: ours, lambda: reference, near(0.1))
    return Row("pair", "ours", "plain", lambda size, folder: iter([case]), least_ratio=1e9)


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float, *more: str) -> int:
    row = pair({"x": np.array([1.0 + wrong])}, {"x": np.array([1.0])})
    monkeypatch.setattr(suite, "ROWS", (row,))
    return suite.main(["--output", str(tmp_path / "now.json"), "--repeats", "2", *more])


def test_the_command_writes_a_file_and_fails_where_answers_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch, 0.0) == 0
    found = suite.read(tmp_path / "now.json")
    assert found["machine"]["torch"] == torch.__version__
    assert found["rows"][0]["n"] == 2
    said = capsys.readouterr().out
    assert "1e+09 times faster" in said
    assert "**no**" in said, "a target that is not reached is said, and is no failure"
    assert run(tmp_path, monkeypatch, 0.2) == 1
    assert "answer differently in pair" in capsys.readouterr().err


def row_of(name: str, ratio: float, **more: Any) -> dict[str, Any]:
    return {"name": name, "ratio": ratio, "ours_s": 1.0, "size": "full", "sizes": {"n": 1}, **more}


def file_of(*rows: Mapping[str, Any]) -> dict[str, Any]:
    return {"date": "2026-01-01", "commit": "abc", "machine": {"processor": "A", "threads": 1}, "rows": list(rows)}


def test_a_row_that_lost_more_than_15_percent_is_warned_of() -> None:
    then = file_of(row_of("same", 4.0), row_of("slow", 4.0), row_of("little", 4.0), row_of("other", 4.0))
    now = file_of(row_of("same", 4.1), row_of("slow", 3.2), row_of("little", 3.6), row_of("other", 4.0, size="quick"))
    said = "\n".join(suite.comparison(now, then))
    assert "| `slow` | 4.00 x | 3.20 x | 0.80 | **slower by 25 %** |" in said
    assert said.count("WARNING") == 1
    assert "slow is slower: beside its reference it costs 1.25 times what it cost" in said
    assert "| `other` | | 4.00 x | | had other sizes then |" in said
    assert "machines differ" not in said
    elsewhere = deepcopy(then)
    elsewhere["machine"]["processor"] = "B"
    assert "The machines differ, and ratios with them: processor: B then, A now" in "\n".join(
        suite.comparison(now, elsewhere)
    )


def test_wrong_uses_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--rows", "bandd"], ["--repeats", "0"], ["--compare", str(tmp_path / "none.json")]):
        with pytest.raises(SystemExit):
            suite.main(words)
    assert "Did you mean 'banded'?" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="is no file of this suite"):
        suite.read(tmp_path / "other.json")


def test_make_hands_the_words_over(tmp_path: Path) -> None:
    (command,) = made(tmp_path, "bench", "ARGS=--quick --rows store")
    assert command == ["python", "-m", "tests.benchmarks.suite", "--quick", "--rows", "store"]


def test_the_page_names_every_row() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [row.name for row in RUN if f"`{row.name}`" not in text] == []
