"""The verb plan."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brainlit.cli import main
from brainlit.cli.plan import _batch
from tests.cli.conftest import Command


def test_a_plan_without_a_store_says_what_fits(
    small: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = small("--data.store_dir", str(tmp_path / "none"), "--model.backbone.weights", "tiny")
    assert main(["plan", *options, "--targets", "500", "--tr", "2", "--windows", "60", "--gpu-gb", "2", "24"]) == 0
    said = capsys.readouterr().out
    assert "500 of one subject" in said
    assert "an epoch: 60 windows" in said
    rows = re.findall(
        r"^\| (2|24) GB \| ([\d,]+) \| `--data.batch_size 8 --trainer.accumulate_grad_batches 1`", said, re.M
    )
    assert [gb for gb, _ in rows] == ["2", "24"]
    assert not (tmp_path / "none").exists(), "nothing is built"
    assert main(["plan", *options]) == 2
    assert "--targets 50000 --tr 2" in capsys.readouterr().err
    assert main(["plan"]) == 2


def test_steps_keep_their_windows_where_few_fit() -> None:
    assert _batch(3, 8) == ["3", "`--data.batch_size 2 --trainer.accumulate_grad_batches 4`"]
    assert _batch(8, 8) == ["8", "`--data.batch_size 8 --trainer.accumulate_grad_batches 1`"]
    assert _batch(1, 6) == ["1", "`--data.batch_size 1 --trainer.accumulate_grad_batches 6`"]
    assert _batch(0, 8)[0] == "none"
