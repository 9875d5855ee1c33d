"""The plans of reproduce, sweep and fractions: which runs, in which order, which are left out. Nothing is trained."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from brainlit import __version__
from brainlit.cli import main, run_many
from brainlit.cli.errors import UsageError
from brainlit.cli.reproduce import parse_reproduce, plan_reproduce, sweep_table
from brainlit.cli.run_many import Run, check_settings, planned_jobs
from brainlit.cli.training import parsed
from brainlit.results.run_directory import RunDirectory

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def plan(folder: Path, *arguments: str) -> list[Run]:
    return plan_reproduce(*parse_reproduce(["--root", str(folder), *arguments]))


def names(runs: Sequence[Run]) -> list[str]:
    return [run.path.name for run in runs]


@cache
def parser() -> Any:
    return parsed("fit", plan(Path("runs"))[0].fit[1:]).parser


def settings(run: Run) -> dict[str, Any]:
    """What a fit of this run would write into its config.yaml."""
    config = parser().parse_args(list(run.fit[1:]))
    return dict(yaml.safe_load(parser().dump(config, skip_validation=True)))


def begin(run: Run, *, finished: bool = True, with_report: bool = True) -> None:
    """The folder that a fit of this run leaves."""
    directory = RunDirectory.create(run.path.parents[1], run.path.parent.name, run.path.name)
    (run.path / "config.yaml").write_text(yaml.safe_dump(settings(run)))
    if with_report:
        (run.path / "report.html").touch()
    directory.finish() if finished else directory.release()


def test_the_full_plan_is_seed_by_seed_with_the_pretrained_model_first(tmp_path: Path) -> None:
    runs = plan(tmp_path)
    of_a_seed = ["pretrained-{}", "brain-{}", "permuted-{}", "permuted-{}-draw2", "stimulus-{}", "language_model-{}"]
    assert names(runs) == [f"wav2vec-{name.format(seed)}" for seed in range(11, 16) for name in of_a_seed]
    assert {run.path.parent for run in runs} == {tmp_path / "reproduce"}
    later = plan(tmp_path, "--seeds", "3", "--regimes", "brain", "pretrained", "--model", "hubert")
    assert names(later) == ["hubert-pretrained-3", "hubert-brain-3"]


def test_quick_has_fewer_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    runs = plan(tmp_path, "--quick")
    of_a_seed = ["pretrained", "brain", "permuted"]
    assert names(runs) == [f"wav2vec-{regime}-{seed}" for seed in (11, 12) for regime in of_a_seed]
    assert {run.path.parent.name for run in runs} == {"reproduce-quick"}
    assert all("experiments/quick.yaml" in run.fit for run in runs)
    own = plan(tmp_path, "--quick", "--seeds", "5", "--permutations", "2", "--experiment", "mine")
    assert names(own)[-1] == "wav2vec-permuted-5-draw2"
    assert own[0].path.parent.name == "mine"


@pytest.mark.parametrize("quick", [[], ["--quick"]], ids=["full", "quick"])
def test_every_fit_of_the_plan_is_what_its_name_says(tmp_path: Path, quick: list[str]) -> None:
    """Also where further options speak of epochs: the pretrained model has none."""
    runs = plan(tmp_path, "--seeds", "12", "--permutations", "2", *quick, "--trainer.max_epochs", "7")
    for run in runs:
        config = settings(run)
        assert run.path == Path(config["run"]["root"]) / config["run"]["experiment"] / config["run"]["id"]
        assert config["seed_everything"] == config["data"]["seed"] == config["model"]["seed"] == 12
        assert config["data"]["regime"] == run.kind == run.path.name.split("-")[1]
        assert config["data"]["control"]["draw"] == (2 if run.path.name.endswith("draw2") else 1)
        assert config["trainer"]["max_epochs"] == (0 if run.kind == "pretrained" else 7)
        assert config["data"]["store_dir"].startswith("data/store/demo-quick" if quick else "data/store/demo-12")


def test_the_others_of_a_seed_wait_for_its_first_fit_and_tasks_for_their_run(tmp_path: Path) -> None:
    waits = {job.name: job.after for job in planned_jobs(plan(tmp_path, "--seeds", "1", "2"))}
    for seed in (1, 2):
        first = f"wav2vec-pretrained-{seed}"
        assert waits[first] == ()
        for name in ("brain", "permuted", "stimulus", "language_model"):
            assert waits[f"wav2vec-{name}-{seed}"] == (first,)
            assert waits[f"wav2vec-{name}-{seed}-downstream"] == (f"wav2vec-{name}-{seed}",)
    assert len(waits) == 2 * 6 * 2


def test_every_seed_is_asked_tasks_on_clips_of_its_own(tmp_path: Path) -> None:
    for run in plan(tmp_path, "--seeds", "1", "2"):
        asked = run.downstream[run.downstream.index("--seed") + 1]
        assert asked == str(run.seed)


def test_tasks_are_asked_of_the_untuned_model_once_per_seed(tmp_path: Path) -> None:
    asked = {run.path.name: run.models for run in plan(tmp_path, "--seeds", "1", "--permutations", "1")}
    assert asked.pop("wav2vec-pretrained-1") == ("untuned",)
    assert set(asked.values()) == {("tuned",)}
    alone = plan(tmp_path, "--seeds", "1", "--regimes", "permuted", "brain", "--permutations", "2")
    assert [run.models for run in alone] == [("untuned", "tuned"), ("tuned",), ("tuned",)]


def test_finished_runs_are_left_out_and_unfinished_ones_go_on(tmp_path: Path) -> None:
    runs = plan(tmp_path, "--quick", "--seeds", "1")
    begin(runs[0])
    begin(runs[1], finished=False)
    begin(runs[2], with_report=False)
    check_settings(runs)
    planned = {job.name: (job.command[3:], job.after) for job in planned_jobs(runs)}
    pretrained, brain, permuted = names(runs)
    assert pretrained not in planned
    assert planned[f"{pretrained}-downstream"][1] == ()
    assert planned[brain] == (runs[1].fit, ()), "the store is there, so nobody waits for it"
    assert planned[permuted] == (("report", str(runs[2].path)), ())


def test_a_job_of_the_plan_is_this_very_brainlit(tmp_path: Path) -> None:
    run_many.run_jobs([run_many.Job("version", (*run_many.BRAINLIT, "--version"))], tmp_path, 1)
    assert (tmp_path / "version.txt").read_text() == f"brainlit {__version__}\n"


def test_runs_that_were_made_with_other_settings_are_refused(tmp_path: Path) -> None:
    arguments = ["--quick", "--seeds", "1", "--regimes", "brain"]
    (run,) = plan(tmp_path, *arguments, "--trainer.max_epochs", "3")
    begin(run)
    with pytest.raises(ValueError, match=r"brain-1 was made with other settings: trainer.max_epochs is 8, was 3. Take"):
        check_settings(plan(tmp_path, *arguments))
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    config["trainer"]["max_epochs"] = 8
    del config["data"]["control"]["draw"], config["trainer"]["callbacks"][0]["init_args"]["seed"]
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    check_settings(plan(tmp_path, *arguments))  # options that came later do not count


def test_a_dry_run_prints_commands_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--seeds", "1", "--regimes", "pretrained", "brain"]
    begin(plan(tmp_path, *arguments)[0])
    before = sorted(tmp_path.rglob("*"))
    assert main(["reproduce", "--root", str(tmp_path), *arguments, "--dry-run", "--", "--run.wandb", "off"]) == 0
    *commands, count = capsys.readouterr().out.splitlines()
    folder = tmp_path / "reproduce-quick"
    assert [shlex.split(command)[1] for command in commands] == ["downstream", "fit", "downstream", "compare"]
    assert commands[1].endswith("--run.id wav2vec-brain-1 --run.wandb off")
    both = [str(folder / f"wav2vec-{regime}-1") for regime in ("pretrained", "brain")]
    assert shlex.split(commands[-1]) == ["brainlit", "compare", *both, "--output", str(folder)]
    assert count == "1 of 2 runs are finished."
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "wavvec"], "there is no model 'wavvec'. Did you mean 'wav2vec'?"),
        (["--regimes", "brains"], "there is no regime 'brains'. Did you mean 'brain'?"),
        (["--sedes", "11"], "there is no option '--sedes'. Did you mean --seeds?"),
        (["wav2vec"], "'wav2vec' belongs to no option"),
        (["--seeds", "1", "1"], "--seeds 1 1: give different numbers"),
        (["--jobs", "0"], "--jobs is 0; give at least 1"),
        (["--permutations", "0"], "--permutations is 0; give at least 1"),
        (["--seed_everything", "3"], "--seed_everything is set for each run"),
        (["--", "--run.id=x"], "--run.id is set for each run"),
        (["--quick", "--seeds", "1", "--trainer.max_epoch", "3"], "Did you mean --trainer.max_epochs?"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_many, "run_jobs", lambda *_: pytest.fail("something was started"))
    assert main(["reproduce", "--root", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_it_starts_in_any_folder_whose_own_experiments_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("experiments/model/mine.yaml")
    own.parent.mkdir(parents=True)
    own.touch()
    files = [word for before, word in pairwise(plan(tmp_path, "--model", "mine")[0].fit) if before == "-c"]
    brought = [str(ROOT / f"experiments/{name}.yaml") for name in ("brain_tune", "data/demo", "regime/pretrained")]
    assert files == [*brought[:2], str(own), brought[2]]
    with pytest.raises(UsageError, match=r"there is no model 'min'\. Did you mean 'mine'"):
        plan(tmp_path, "--model", "min")


def test_a_failed_job_ends_in_words_and_1_and_the_report_comes_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["reproduce", "--root", str(tmp_path), "--quick", "--seeds", "1", "--jobs", "3"]
    compared: list[Sequence[str]] = []
    monkeypatch.setattr("brainlit.cli.reports.run_compare", lambda given: compared.append(given) or 0)
    monkeypatch.setattr(run_many, "available_cores", lambda: 8)
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(run_many, "run_jobs", lambda *given: calls.append(given))
    assert main(arguments) == 0
    ((_, logs, n_at_once, environment),) = calls
    assert (logs, n_at_once) == (tmp_path / "reproduce-quick" / "logs", 3)
    assert environment == run_many.thread_variables(3, 8)
    assert compared[0][-2:] == ["--output", str(tmp_path / "reproduce-quick")]
    assert len(compared[0]) == 5

    def fail(*_: object) -> None:
        raise run_many.JobError("wav2vec-brain-1 failed (exit status 2).")

    monkeypatch.setattr(run_many, "run_jobs", fail)
    capsys.readouterr()
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: wav2vec-brain-1 failed (exit status 2).\nThe same command goes on")
    assert len(compared) == 1


# --- sweep ---


SWEEP = ["sweep", "--key", "model.backbone_lr", "--values", "1e-3", "2e-3"]


def test_every_value_meets_every_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "--root", str(tmp_path), "--dry-run", "--trainer.max_epochs", "3"]) == 0
    *commands, count = capsys.readouterr().out.splitlines()
    fits = [shlex.split(command)[1:] for command in commands]
    assert [fit[fit.index("--run.id") + 1] for fit in fits] == ["1e-3-0", "2e-3-0", "1e-3-1", "2e-3-1"]
    config = parsed("fit", fits[3][1:]).resolved
    assert (config["model"]["backbone_lr"], config["seed_everything"]) == (2e-3, 1)
    assert (config["run"]["experiment"], config["trainer"]["max_epochs"]) == ("sweep-model.backbone_lr", 3)
    assert count == "0 of 4 runs are finished."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "model.backbone_lrr", "--values", "1"], "Did you mean --model.backbone_lr?"),
        (["--key", "model.layer", "--values", "[-1]", "1"], "give values that make different folder names"),
        (["--key", "model.layer", "--values", "1", "--regime", "brian"], "Did you mean 'brain'?"),
        (["--key", "model.layer", "--values", "1", "--quick"], "there is no option '--quick'"),
        (["--key", "run.id", "--values", "1"], "--run.id is set for each run"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *arguments, "--root", str(tmp_path), "--dry-run"]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def paths(tmp_path: Path) -> dict[tuple[str, int], Path]:
    """Four runs; by their loss 2e-3 is best, by their alignment 1e-3."""
    found = {}
    for value, losses in {"1e-3": (0.8, 0.7), "2e-3": (0.6, 0.5)}.items():
        for seed, loss in enumerate(losses):
            found[value, seed] = folder = tmp_path / f"{value}-{seed}"
            folder.mkdir()
            rows = ["epoch,test/r,val/loss", f"0,,{loss}", f"1,,{loss + 0.1}", "1,0.9,"]
            (folder / "metrics.csv").write_text("\n".join(rows))
    return found


def test_values_are_compared_by_the_loss_of_the_best_epoch(paths: dict[tuple[str, int], Path]) -> None:
    lines = sweep_table("model.backbone_lr", ["1e-3", "2e-3"], [0, 1], paths).splitlines()
    assert lines[2:4] == ["| 1e-3 | 0.8000 | 0.7000 | 0.7500 |", "| 2e-3 | 0.6000 | 0.5000 | 0.5500 |"]
    assert lines[-2].startswith("val/loss on the stories that choose")
    assert lines[-2].endswith("model.backbone_lr 2e-3.")
    assert lines[-1] == "The scored stories were not looked at."


def test_alignment_on_stories_that_choose_goes_before_the_loss(paths: dict[tuple[str, int], Path]) -> None:
    for (value, seed), path in paths.items():
        if (value, seed) == ("2e-3", 1):
            assert "val/loss on" in sweep_table("lr", ["1e-3", "2e-3"], [0, 1], paths), "not all runs have it yet"
        chosen = {"by": "choose/semantic/r", "value": 0.5 if value == "1e-3" else 0.4}
        (path / "chosen.json").write_text(json.dumps(chosen))
    lines = sweep_table("lr", ["1e-3", "2e-3"], [0, 1], paths).splitlines()
    assert lines[2] == "| 1e-3 | 0.5000 | 0.5000 | 0.5000 |"
    assert lines[-2].startswith("choose/semantic/r on the stories that choose")
    assert lines[-2].endswith("(highest is best): lr 1e-3.")


def test_a_run_without_validation_is_refused(paths: dict[tuple[str, int], Path]) -> None:
    (paths["1e-3", 0] / "metrics.csv").write_text("epoch,test/r\n1,0.9\n")
    with pytest.raises(ValueError, match="has no val/loss: give the role 'choose' a story"):
        sweep_table("lr", ["1e-3", "2e-3"], [0, 1], paths)


# --- published weights ---


@pytest.mark.parametrize(
    ("further", "few"),
    [
        ([], False),
        (["--model.backbone.weights", "tiny"], False),
        (["--model.backbone.weights=random:tiny-large"], False),
        (["--model.backbone.weights", "base"], True),
        (["--trainer.max_epochs", "3", "--model.backbone.weights=base"], True),
        (["--model.backbone.weights", "base", "--model.backbone.weights", "tiny"], False),
    ],
)
def test_published_weights_get_few_stories_of_the_demo_as_in_make_train(
    further: list[str], few: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in ("demo", "alice"):
        one = ["fractions", "--fractions", "1", "--seeds", "11", "--data", data, "--dry-run"]
        assert main([*one, *further]) == 0
        words = shlex.split(capsys.readouterr().out.splitlines()[0])
        names = [Path(word).stem for word in words if word.endswith(".yaml")]
        assert names == [
            "brain_tune",
            data,
            "wav2vec",
            *(["published_demo"] if few and data == "demo" else []),
            "brain",
        ]


def test_a_sweep_over_weights_gives_few_stories_to_the_published_ones(capsys: pytest.CaptureFixture[str]) -> None:
    values = ["--key", "model.backbone.weights", "--values", "tiny", "base", "--seeds", "1"]
    assert main(["sweep", *values, "--dry-run"]) == 0
    tiny, base, _ = capsys.readouterr().out.splitlines()
    assert "published_demo" not in tiny
    assert "published_demo" in base


# --- fractions ---


FRACTIONS = ["fractions", "--fractions", "0.25", "1", "--seeds", "11", "12"]


def test_every_fraction_meets_every_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FRACTIONS, "--root", str(tmp_path), "--dry-run", "--trainer.max_epochs", "3"]) == 0
    *commands, count = capsys.readouterr().out.splitlines()
    fits = [shlex.split(command)[1:] for command in commands]
    assert [fit[fit.index("--run.id") + 1] for fit in fits] == [
        f"wav2vec-brain-{fraction}-{seed}" for seed in (11, 12) for fraction in ("0.25", "1")
    ]
    config = parsed("fit", fits[2][1:]).resolved
    assert (config["data"]["tune_fraction"], config["seed_everything"]) == (0.25, 12)
    assert (config["run"]["experiment"], config["trainer"]["max_epochs"]) == ("fractions", 3)
    assert config["data"]["source"]["init_args"]["seed"] == 11, "all points are of one demo"
    assert config["data"]["store_dir"] == "data/store/demo-11"
    assert count == "0 of 4 runs are finished."


def test_the_demo_of_a_curve_may_be_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*FRACTIONS, "--root", str(tmp_path), "--dry-run", "--data.source.init_args.seed", "5"]
    assert main(given) == 0
    for command in capsys.readouterr().out.splitlines()[:-1]:
        words = shlex.split(command)
        asked = [words[k + 1] for k, word in enumerate(words) if word == "--data.source.init_args.seed"]
        assert asked[-1] == "5", "the last one counts"


def test_other_data_run_one_at_a_time_and_the_curve_is_of_all_runs_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wav2vec-permuted-1-11", "hubert-brain-1-11"):
        (tmp_path / "curves" / name).mkdir(parents=True)
        (tmp_path / "curves" / name / "report.html").touch()
    calls: list[tuple[Any, ...]] = []
    curves: list[Sequence[str]] = []
    monkeypatch.setattr(run_many, "run_jobs", lambda *given: calls.append(given))
    monkeypatch.setattr("brainlit.cli.reports.run_curve", lambda given: curves.append(given) or 0)
    where = ["--root", str(tmp_path), "--experiment", "curves"]
    assert main([*FRACTIONS, *where, "--data", "lebel2023", "--preset", "paper_text"]) == 0
    ((planned, _, n_at_once, _),) = calls
    files = [word for word in planned[0].command if word.endswith(".yaml")]
    assert [Path(file).stem for file in files] == ["brain_tune", "lebel2023", "wav2vec", "brain", "paper_text"]
    assert n_at_once == 1
    folder = tmp_path / "curves"
    assert curves == [["--output", str(folder / "wav2vec"), str(folder / "wav2vec-permuted-1-11")]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fractions", "0.5", "2"], "--fractions names '2'; give numbers above 0, up to 1"),
        (["--fractions", "half"], "--fractions names 'half'"),
        (["--fractions", "1", "1.0"], "--fractions 1 1.0: give different ones"),
        (["--data", "demoo"], "there is no data 'demoo'. Did you mean 'demo'?"),
        (["--data.tune_fraction", "0.5"], "--data.tune_fraction is set for each run"),
    ],
)
def test_what_is_no_fraction_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fractions", "--root", str(tmp_path), *arguments, "--dry-run"]) == 2
    assert message in capsys.readouterr().err
