"""The verb probe, and the commands of docs/probing.md."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from brainlit.cli import main
from brainlit.cli.errors import UsageError
from brainlit.cli.probe import _to_wandb, new_folder
from brainlit.cli.probe_options import ProbeCLI, settings_of_run
from brainlit.cli.probe_sources import FeatureFileError, asked_layers, read_features, tuned_spans
from brainlit.encoding.config import ProbeConfig, SolverConfig
from brainlit.encoding.temporal import HaemodynamicResponse
from brainlit.files import UNFINISHED, BusyError
from brainlit.guard import UnreadableFileError
from brainlit.results import report, wandb_logger
from brainlit.results.record import ProbeRecord, find_records
from brainlit.results.run_directory import RunDirectory
from brainlit.splits import Span
from brainlit.store import StoryStore
from tests.callbacks.toy_module import toy_data
from tests.results.fake_run import FakeBrain, fake_record

PAGE = (Path(__file__).parents[2] / "docs" / "probing.md").read_text()
COMMANDS = re.findall(r"^brainlit (probe .*)$", PAGE, re.MULTILINE)
FAST = ["--probe.n_bootstraps", "50", "--probe.n_gammas", "{1: 1, 2: 2, 3: 2}", "--probe.block_trs", "8"]
SHORT = ["--bootstrap_trs", "8"]
"""The toy's stories are short."""
SPANS = [Span("a", 0, 4), Span("b", 2, 5)]
N_TRS = {"a": 4, "b": 6, "c": 3}


@pytest.fixture(scope="session")
def toy_config(toy_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data config of the toy stories, whose store is ready."""
    config = tmp_path_factory.mktemp("config") / "toy.yaml"
    source = "{class_path: tests.toy.ToySource}"
    config.write_text(f"data:\n  source: {source}\n  store_dir: {toy_store_path}\n  window: {{n_trs: 8}}\n")
    return config


@pytest.fixture(scope="session")
def run_copy(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run in a place of its own: this verb writes beside it."""
    return Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("copy") / "brain_tune" / "ID"))


@pytest.fixture(scope="session")
def page_folder(
    run_copy: Path, toy_config: Path, toy_store_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where the page's snippet and all of its commands were run; said.txt has what they printed.

    Figures, which have tests of their own and take most of the time, are drawn by one command only.
    """
    folder = tmp_path_factory.mktemp("page")
    (folder / "runs" / "brain_tune").mkdir(parents=True)
    (folder / "runs" / "brain_tune" / "ID").symlink_to(run_copy)
    replaced = {"[UTS03]": "[sub-A]", "--weights base": "--weights random:tiny", "wav2vec-base": "wav2vec-random-tiny"}
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with pytest.MonkeyPatch.context() as patch, (folder / "said.txt").open("w") as said:
        patch.chdir(folder)
        patch.setattr("sys.stdout", said)
        patch.setattr(report, "MAX_BRAINS", 0)
        draw = report.draw_figures
        exec(snippet.replace("data/store/demo-0", str(toy_store_path)), {})
        for command in COMMANDS:
            for old, new in replaced.items():
                command = command.replace(old, new)
            patch.setattr(report, "draw_figures", draw if "--model" in command else lambda *_: ({}, {}))
            arguments = re.sub(r"(?<=-c )\S+", str(toy_config), command).split()
            assert main([*arguments, *(SHORT if "--compare" in arguments else [*FAST, "--trust"])]) == 0, command
    return folder


def records(folder: Path) -> dict[str, ProbeRecord]:
    return {record.subject: record for record in find_records(folder / "probes")}


def test_a_checkpoint_is_probed_as_its_run_was(page_folder: Path, run_copy: Path) -> None:
    """The last checkpoint has the weights that the run probed after tuning."""
    ours, its = records(page_folder / "probes" / "last"), records(run_copy)
    assert set(ours) == set(its) == {"sub-A", "sub-B"}
    for subject, record in ours.items():
        assert (record.stage, record.epoch) == ("after", 1)
        assert record.facts["weights"] == its[subject].facts["weights"]
        np.testing.assert_allclose(record.r, its[subject].r, atol=1e-5)
        assert {layer for _, layer, _ in record.table.keys} == {0, record.layer}, "the layers that were asked for"
    with h5py.File(run_copy / "probes" / "sub-A" / "epoch-001.h5") as before:
        assert "backbone" in before["predictions"], "the run is as it was"


def test_all_of_it_is_written(page_folder: Path, run_copy: Path) -> None:
    untuned = page_folder / "runs" / "probe" / "wav2vec-random-tiny"
    assert {path.stem for path in (untuned / "figures").glob("*.png")} >= {"alignment", "layers", "partition"}
    for folder in (run_copy / "probe-best", untuned):
        for name in ("report.html", "summary.json", "run.json", "provenance.json"):
            assert (folder / name).stat().st_size > 0, name
        rows = list(csv.DictReader((folder / "probe.csv").open()))
        assert {"r_backbone", "partition_backbone&semantic", "split_semantic"} <= {row["metric"] for row in rows}
    assert "probe of brain_tune/ID" in (run_copy / "probe-best" / "report.html").read_text()
    said = (page_folder / "said.txt").read_text()
    assert "| ceiling |" not in said, "two blocks of 20 rows cannot make a signal sure"
    for words in ("| r |", "| R2 |", "| split: semantic |", "| part: ", "scored on toy5[0:40]"):
        assert words in said


def test_features_of_a_file_take_the_models_place(page_folder: Path) -> None:
    found = records(page_folder / "features-probe")
    assert {layer for _, layer, _ in found["sub-A"].table.keys} == {0, 1}
    assert found["sub-A"].layer == 1
    run = json.loads((page_folder / "features-probe" / "run.json").read_text())
    assert run["model"] == "features of features.h5 (columns by layer: 0: 1, 1: 2)"
    assert run["simulated"]


def test_where_shares_cannot_be_told_it_says_why(page_folder: Path) -> None:
    assert (page_folder / "probes" / "with-shares" / "shares.csv").read_text().count("\n") == 1, "only the heading"
    assert (
        "- no shares for semantic of sub-A: 3 blocks of 15 scored rows; an interval needs at least 10."
        in (page_folder / "said.txt").read_text()
    )


def test_the_settings_of_a_runs_probe_hold_unless_options_say_otherwise(toy_config: Path, tmp_path: Path) -> None:
    solver = {"name": "kernel", "memory_gb": 1.5, "n_targets_batch": None}
    probe = {"delays_trs": [2, 3], "n_gammas": {"1": 1, "2": 3, "3": 5}, "seed": 4, "solver": solver}
    probe |= {"temporal": {"low_level": "hrf"}, "response": {"delay_s": 5.0}}
    other = {"class_path": "brainlit.callbacks.BandedRidgeProbe", "init_args": {"name": "other", "layers": [5]}}
    own = {"layers": [0, 1], "headline_region": "semantic", "figures": False, "n_bootstraps": 30, "probe": probe}
    callbacks = [other, {"class_path": "brainlit.callbacks.BandedRidgeProbe", "init_args": own}]
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"data": {}, "model": {}, "trainer": {"callbacks": callbacks}})
    )
    defaults = settings_of_run(RunDirectory(tmp_path))
    options = ["--probe.n_folds", "3", "--probe.solver.memory_gb", "2", "--probe.alphas", "[1, 10]"]
    settings = ProbeCLI(["-c", str(toy_config), *options], defaults).settings
    assert (settings.layers, settings.headline_region) == ([0, 1], "semantic")
    engine = settings.engine()
    assert engine.config == ProbeConfig(
        delays_trs=(2, 3),
        alphas=(1.0, 10.0),
        n_gammas={1: 1, 2: 3, 3: 5},
        n_folds=3,
        seed=4,
        solver=SolverConfig("kernel", memory_gb=2.0),
        temporal={"low_level": "hrf"},
        response=HaemodynamicResponse(delay_s=5.0),
    )
    assert engine.bootstrap == {"block_trs": 20, "n_bootstraps": 30, "seed": 4}


def test_two_probes_are_compared(page_folder: Path) -> None:
    whole = json.loads((page_folder / "comparison" / "comparison.json").read_text())
    (row,) = whole["rows"]
    assert (row["subject"], row["region"], row["metric"]) == ("sub-A", "semantic", "r2")
    assert row["a"] - row["b"] == pytest.approx(row["difference"])
    said = (page_folder / "said.txt").read_text()
    assert "| sub-A | semantic | 4 |" in said
    assert "Left out, because only one of the two probes has them: sub-B." in said


def test_help_shows_the_settings_and_a_wrong_one_has_a_hint(
    toy_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", "--help"]) == 0
    assert len(capsys.readouterr().out.splitlines()) <= 40
    assert main(["probe", "--help-all"]) == 0
    said = capsys.readouterr().out
    for words in (
        "--probe.layers",
        "--probe.solver.memory_gb",
        "Hidden state that is compared",
        "default: [1, 2, 3, 4]",
    ):
        assert words.replace("[1, 2, 3, 4]", "(1, 2, 3, 4)") in said
    assert main(["probe", "--model", "wav2vec", "-c", str(toy_config), "--probe.lyers", "all"]) == 2
    assert "Did you mean --probe.layers?" in capsys.readouterr().err


def test_what_cannot_be_probed_is_said(
    run_copy: Path, toy_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        trust = [] if "--compare" in arguments else ["--trust"]
        assert main(["probe", *arguments, *trust]) == 2
        return capsys.readouterr().err

    data, roles = ("-c", str(toy_config)), "{fit: [toy1], score: [toy5]}"
    assert "and nothing was named" in refused(*data)
    assert "a checkpoint and model were named" in refused(str(run_copy), "--weights", "base")
    assert "not a run directory" in refused(str(tmp_path))
    assert "The run has: best.ckpt, last.ckpt" in refused(str(run_copy), "--checkpoint", "bset")
    assert "Did you mean 'wav2vec'?" in refused("--model", "wavvec", "--weights", "random:tiny", *data)
    assert "was tuned on toy1[0:40], and toy1[0:40] (fit)" in refused(str(run_copy), "--data.roles", roles)
    lonely = tmp_path / "lonely.ckpt"
    shutil.copy(run_copy / "checkpoints" / "last.ckpt", lonely)
    assert "its data are not known. Say which: -c CONFIG" in refused(str(lonely))
    lonely.write_text("weights")
    assert "the checkpoint cannot be read" in refused(str(lonely), *data)
    empty = shutil.copytree(run_copy, tmp_path / "empty", ignore=shutil.ignore_patterns("*.ckpt"))
    assert "has no checkpoint" in refused(str(empty))
    short = written(tmp_path, {f"toy{k}": np.ones((39, 2)) for k in range(6)}, ".npz")
    said = refused("--features", str(short), *data)
    assert "the features of 'toy2' have shape (39, 2), and the store has 40 TRs of it" in said
    assert "there is no file of features" in refused("--features", str(tmp_path / "none.h5"), *data)
    assert "holds no probe" in refused("--compare", str(tmp_path), str(run_copy))
    assert "are the same probe" in refused("--compare", str(run_copy), str(run_copy))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert "nothing is overwritten" in refused(str(run_copy), "--output", str(tmp_path / "full"))


def test_a_taken_folder_gets_a_number(tmp_path: Path) -> None:
    for expected in ("probe-best", "probe-best-2", "probe-best-3"):
        with new_folder(None, tmp_path / "probe-best") as folder:
            assert folder.name == expected
            with pytest.raises(BusyError), new_folder(str(folder), tmp_path):
                pass
            with new_folder(None, tmp_path / "probe-best") as other:
                assert other.name > expected, "the second of two at once takes the next"
            other.rmdir()
            (folder / "report.html").touch()
    with pytest.raises(FileExistsError), new_folder(str(tmp_path / "probe-best"), tmp_path):
        pass


def test_a_killed_probe_is_repeated_by_the_same_command(tmp_path: Path) -> None:
    for asked in (None, str(tmp_path / "probe-best")):
        (tmp_path / "probe-best" / "probes" / "sub-A").mkdir(parents=True, exist_ok=True)
        (tmp_path / "probe-best" / UNFINISHED).touch()  # its lock is free: the process is gone
        with new_folder(asked, tmp_path / "probe-best") as folder:
            assert [path.name for path in folder.iterdir()] == [UNFINISHED]
        assert [path.name for path in tmp_path.iterdir()] == ["probe-best"]


def test_layers_of_a_file_are_chosen_by_number_or_from_the_end() -> None:
    features = {layer: np.zeros((3, layer)) for layer in (9, 2, 4)}
    for asked, compared, expected in (("all", -1, ([2, 4, 9], 9)), ([-3], 4, ([2, 4], 4)), ([9], -2, ([4, 9], 4))):
        curve, layer = asked_layers(features, asked, compared)  # type: ignore[arg-type]
        assert (list(curve), layer) == expected
    with pytest.raises(UsageError, match="layer 3 does not exist: the file has the layers 2, 4, 9"):
        asked_layers(features, [3], -1)


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_rows_of_the_spans_are_read_in_order(tmp_path: Path, suffix: str) -> None:
    arrays = {f"layer-{k}/{story}": np.arange(n * 2.0).reshape(n, 2) + k for story, n in N_TRS.items() for k in (2, 9)}
    found = read_features(written(tmp_path, arrays, suffix), SPANS, N_TRS)
    assert list(found) == [2, 9]
    assert found[9].dtype == np.float32
    np.testing.assert_array_equal(found[9][:, 0], [9, 11, 13, 15, 13, 15, 17])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"b": None},
            r"has no features of 'b'. Known: a\. Name each array .* layer-<k>/<story>: layer-9/sloth",
        ),
        ({"b": np.ones((6, 3))}, r"other numbers of features by story \(a 2, b 3\)"),
        ({"b": np.full((6, 2), np.nan)}, r"'b' are not finite in 6 of 6 rows, the first being row 0"),
        ({"b": np.ones(6)}, r"'b' have shape \(6,\), and the store has 6 TRs"),
        ({"b": np.ones((6, 2), dtype=complex)}, r"'b' are complex128; write real numbers"),
        ({"layer-1/a": np.ones((4, 2))}, r"holds 'a' beside layer-1/a\. Name each array as its story, or,"),
        ({"a": None, "b": None}, r"holds 'nothing' .* layer-<k>/<story>"),
        ({"a": None, "b": None, "layer_9": np.ones((4, 2))}, r"no features of 'a'\. Known: layer_9\. .* layer-<k>/<st"),
    ],
)
def test_features_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, np.ndarray], words: str) -> None:
    arrays = {"a": np.ones((4, 2)), "b": np.ones((6, 2)), **changes}
    kept = {name: values for name, values in arrays.items() if values is not None}
    for suffix in (".h5", ".npz"):
        with pytest.raises(FeatureFileError, match=words):
            read_features(written(tmp_path, kept, suffix), SPANS, N_TRS)


def test_files_that_are_no_features_are_refused(tmp_path: Path) -> None:
    for name, words in (("a.h5", "no HDF5 file"), ("a.npz", "not an npz file"), ("a.csv", "ends in '.csv'")):
        (tmp_path / name).write_text("words")
        with pytest.raises(UnreadableFileError, match=words):
            read_features(tmp_path / name, SPANS, N_TRS)
    with pytest.raises(
        FeatureFileError, match=r"is a folder \(a\.csv, a\.h5, a\.npz\); features are one file\. .*layer-<k>"
    ):
        read_features(tmp_path, SPANS, N_TRS)
    np.savez(tmp_path / "pickled.npz", a=np.array([{}]), b=np.ones((6, 2)))
    with pytest.raises(UnreadableFileError, match="not an npz file of plain arrays"):
        read_features(tmp_path / "pickled.npz", SPANS, N_TRS)


def written(folder: Path, arrays: dict[str, np.ndarray], suffix: str) -> Path:
    path = folder / f"features{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)  # type: ignore[arg-type]
    else:
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    return path


def test_what_a_checkpoint_was_tuned_on_is_known_in_the_same_data_only(toy_store_path: Path) -> None:
    data = toy_data(toy_store_path)
    data.prepare_data()
    data.setup()
    said = {"store_fingerprint": data.store.fingerprint, "tune": ["toy0[0:40]", "toy1[5:20]"]}
    assert tuned_spans(data, said) == [Span("toy0", 0, 40), Span("toy1", 5, 20)]
    assert tuned_spans(data, {**said, "store_fingerprint": "other"}) == []


def test_folds_are_said_wherever_numbers_are_read(
    toy_config: Path, toy_store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = StoryStore.open(toy_store_path)
    np.savez(tmp_path / "f.npz", **{f"toy{k}": store.band(f"toy{k}", "low_level") for k in range(6)})
    data = ["--features", str(tmp_path / "f.npz"), "-c", str(toy_config), "--data.roles", "{folds: 3, purge: 8}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_figures", lambda *_: ({}, {}))
        output = ["--output", str(tmp_path / "probe"), "--probe.layers", "[0]"]
        assert main(["probe", *data, *FAST, *output, "--data.subjects", "[sub-A]"]) == 0
    said = "3 folds, every row scored once, 210 TRs; each fitted on the others (140 TRs), whole stories held out"
    printed = capsys.readouterr().out
    assert f"{said}: toy0[5:40], toy3[5:40] | toy1[5:40], toy4[5:40] | toy2[5:40], toy5[5:40]" in printed
    assert "| r, mean of folds | " in printed
    assert "drawn within each held-out fold" in (page := (tmp_path / "probe" / "report.html").read_text())
    assert said in page
    assert json.loads((tmp_path / "probe" / "summary.json").read_text())["probe"]["folds"]["n"] == 3
    assert main(["probe", *data, "--shares", "true", "--output", str(tmp_path / "shares")]) == 2
    assert "--shares needs fixed rows to fit and to score" in capsys.readouterr().err


def test_wandb_has_the_probe_as_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, _ = fake_record(FakeBrain("sub-1"), "after", 4)
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(wandb_logger, "log_folder", lambda *values, **own: given.append((*values, own)))
    groups = {"run": SimpleNamespace(wandb="offline"), "wandb": SimpleNamespace(as_dict=lambda: {"notes": "mine"})}
    probed: Any = SimpleNamespace(run={"experiment": "brain_tune"})
    _to_wandb(tmp_path / "ID" / "probe-best", [record], probed, SimpleNamespace(config=SimpleNamespace(**groups)))  # type: ignore[arg-type]
    ((run, kind, numbers, tables, mode, options, own),) = given
    assert (run.path, kind, mode) == (tmp_path / "ID" / "probe-best", "probe", "offline")
    assert next(iter(numbers)) == "probe/after/semantic/layer-2/r_backbone"
    assert len(tables["probe/table"]) == len(record.table.rows)
    assert options.notes == "mine"
    assert own == {"page": run.path / "report.html", "name": "ID-probe-best", "group": "brain_tune"}
