"""`brainlit data` on stores that are whole, missing and broken."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from brainlit.cli import main

Command = Callable[..., list[str]]


def test_prepare_check_and_info_by_options(small: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = small("--data.store_dir", str(tmp_path / "store"))
    assert main(["data", "info", *options]) == 2
    assert "brainlit data prepare CONFIG" in capsys.readouterr().err
    assert main(["data", "prepare", *options]) == 0
    assert f"The store is ready: {tmp_path / 'store'}" in capsys.readouterr().out
    assert main(["data", "info", *options]) == 0
    assert "240 of 2.0 s" in capsys.readouterr().out
    assert main(["data", "check", *options]) == 0


def test_a_store_is_given_by_its_folder(toy_store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(toy_store_path)]) == 0
    assert "toy0, toy1" in capsys.readouterr().out


def test_a_config_file_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "toy.yaml"
    config.write_text(f"data:\n  source: {{class_path: tests.toy.ToySource}}\n  store_dir: {tmp_path / 'store'}\n")
    assert main(["data", "prepare", str(config)]) == 0
    assert (tmp_path / "store" / "store.json").is_file()
    assert main(["data", "prepare", str(config), "--data.source.init_args.seed", "5"]) == 2
    assert "seed" in capsys.readouterr().err, "a store of other settings is refused"


def test_a_truncated_store_fails_the_check(
    toy_store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    shutil.copytree(toy_store_path, store)
    file = store / "stories" / "toy0.h5"
    file.write_bytes(file.read_bytes()[:-100])
    assert main(["data", "check", str(store)]) == 1
    assert "toy0.h5" in capsys.readouterr().out


def test_wrong_use_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info"]) == 2
    assert "needs a store's folder or a config" in capsys.readouterr().err
