"""The commands and tables of benchmarks/reference.py, and that docs/reference.md is the page that it writes."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from brainlit.cli import main
from brainlit.cli.config_names import expanded
from brainlit.cli.probe import _understood
from brainlit.cli.probe_options import ProbeCLI
from brainlit.cli.training import parsed
from brainlit.results import report
from brainlit.store import StoryStore
from tests.benchmarks import reference, reference_tables
from tests.benchmarks.reference import Step
from tests.benchmarks.reference_tables import Results
from tests.cli.test_group import CONFIG
from tests.comparison.planted_runs import planted_run
from tests.make import made

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference.md"
COST = {"cpu_s": 12.0, "clock_s": 20.0, "peak_gb": 1.5}
CROWD = f"{CONFIG}  roles: {{{{folds: 3, purge: auto}}}}\n"
PRESET = """
probe:
  bands: {word_rate: [envelope], word_vectors: [word_vectors]}
  temporal: fir
  n_bootstraps: 50
  n_gammas: {1: 1, 2: 2, 3: 2}
"""
PEOPLE = ["p1", "p2", "p3", "p4"]


# --- Rows and commands ---


def test_a_row_without_weights_or_listeners_is_skipped_with_the_reason_and_its_part_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRAINLIT_ALICE", str(tmp_path))
    monkeypatch.setattr(reference, "run_step", lambda *_: pytest.fail("nothing can be measured"))
    page = Path(shutil.copy(PAGE, tmp_path / "page.md"))
    reference.main(["--page", str(page)])
    assert page.read_text() == PAGE.read_text()
    said = capsys.readouterr().out
    assert said.count(": skipped, its part of") == len(reference.rows())
    assert f"there is no {tmp_path / 'alice.flac'}: set BRAINLIT_ALICE" in said
    assert "it needs Whisper base: say where the weights are, make reference WEIGHTS=folder" in said
    reference.main(["--page", str(page), "--weights", str(tmp_path), "--rows", "layers", "--dry-run"])
    assert (
        f"there is no Whisper base in the folder of weights: {tmp_path}/whisper-base/config.json"
        in capsys.readouterr().out
    )
    with pytest.raises(SystemExit):
        reference.main(["--rows", "layer"])
    assert "there is no row 'layer'. Did you mean 'layers'?" in capsys.readouterr().err


def test_what_has_finished_is_kept_and_a_failure_says_the_end_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Step("help", ("--version",))
    note = reference.run_step(step, None, tmp_path)
    assert capsys.readouterr().out == "brainlit --version\n"
    assert note["cpu_s"] > 0
    assert reference.run_step(step, None, tmp_path)["cpu_s"] == note["cpu_s"]
    assert not capsys.readouterr().out
    with pytest.raises(SystemExit, match="help was measured by another command; delete"):
        reference.run_step(Step("help", ("--help",)), None, tmp_path)
    with pytest.raises(SystemExit, match=r"(?s)wrong failed \(exit status \d\)\. The end of .*wrong\.txt:\n.*prboe"):
        reference.run_step(Step("wrong", ("prboe",)), None, tmp_path)
    assert not (tmp_path / "wrong.json").exists()


def test_the_folder_of_weights_is_named_by_what_it_stands_for() -> None:
    for row in reference.rows():
        for step in row.steps:
            assert all(word.startswith(("$WEIGHTS/", "random:$WEIGHTS/")) for word in step.command if "WEIGHTS" in word)
            if step.by_make is None:
                assert shlex.split(step.said.replace("\\\n", ""))[1:] == list(step.command)
            assert max(map(len, step.said.splitlines())) < 200


def test_what_is_shown_of_make_is_what_runs(tmp_path: Path) -> None:
    steps = [step for row in reference.rows() for step in row.steps if step.name in ("demo-steps", "demo-permuted-43")]
    for k, step in enumerate(steps):
        assert step.by_make is not None
        verb, target, *variables = shlex.split(step.by_make.replace("\\\n", ""))
        ((program, *command),) = made(tmp_path / str(k), target, *variables)
        assert (verb, program, tuple(command)) == ("make", "brainlit", step.command)
    assert len(steps) == 2


def test_every_command_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in reference.VARIABLES:
        monkeypatch.setenv(name, "/weights/there")
    steps = {step.name: step.command for row in reference.rows() for step in row.steps}
    for name in ("alice-word-rate-fir-each", "alice-three-bands"):
        kind, _, options = _understood(steps[name][1:])
        cli = ProbeCLI(expanded(options), {})
        assert kind == "model"
        assert cli.resolved["data"]["roles"] == {"folds": 5, "purge": "auto"}
        assert list(cli.settings.bands) == (["word_rate"] if "word" in name else ["low_level", "semantic"])
        assert cli.settings.temporal == ("fir" if "fir" in name else "hrf")
        assert cli.config.output == f"runs/reference/{name}"
    for name in ("demo-pretrained-41", "demo-steps"):
        config = parsed("fit", steps[name][1:]).resolved
        callbacks = config["trainer"]["callbacks"]
        assert ("Probe" in str(callbacks)) == (name == "demo-pretrained-41"), callbacks
        assert (config["run"]["id"], config["trainer"]["max_epochs"]) == (name, 1 if "steps" in name else 0)
    runs = {name for name, command in steps.items() if command[0] == "fit"}
    for command in steps.values():
        if command[0] in ("downstream", "export"):
            assert Path(command[1]).name in runs


def test_the_page_has_a_part_for_every_row_with_its_commands() -> None:
    text = PAGE.read_text()
    assert re.findall(r"<!-- (\S+):begin -->", text) == [row.name for row in reference.rows()]
    for row in reference.rows():
        part = text.split(f"<!-- {row.name}:begin -->")[1].split(f"<!-- {row.name}:end -->")[0]
        if "Not measured" not in part:
            assert "\n".join(step.said for step in row.steps) in part, f"make reference ARGS='--rows {row.name}'"


def test_make_hands_the_folder_of_weights_over(tmp_path: Path) -> None:
    (command,) = made(tmp_path, "reference", "WEIGHTS=/my weights", "ARGS=--rows layers")
    assert command == ["python", "-m", "tests.benchmarks.reference", "--weights", "/my weights", "--rows", "layers"]


# --- Tables ---


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Four people and their mean, probed with random features; each probe of the page is one of both."""
    folder = tmp_path_factory.mktemp("reference")
    config, preset, features = folder / "crowd.yaml", folder / "preset.yaml", folder / "features.h5"
    config.write_text(CROWD.format(store=folder / "store"))
    preset.write_text(PRESET)
    assert main(["data", "prepare", str(config)]) == 0
    store, rng = StoryStore.open(folder / "store"), np.random.default_rng(0)
    with h5py.File(features, "w") as file:
        for story in store.story_names:
            file[story] = rng.standard_normal((store.n_trs(story), 3)).astype(np.float32)
    names = {"group": ["word-rate-hrf", "word-rate-fir", "four-bands", "three-bands", "untrained"]}
    names["each"] = ["word-rate-hrf-each", "word-rate-fir-each", "four-bands-each"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_figures", lambda *_, **__: ({}, {}))
        for who, subjects in (("group", "[group]"), ("each", f"[{','.join(PEOPLE)}]")):
            options = ["--features", str(features), "-c", str(config), "-c", str(preset), "--data.subjects", subjects]
            assert main(["probe", *options, "--output", str(folder / who)]) == 0
            for name in names[who]:
                shutil.copytree(folder / who, folder / f"alice-{name}")
    assert main(["probe", "--compare", str(folder / "group"), str(folder / "alice-untrained"), "--bootstrap_trs", "8",
                 "--output", str(folder / "alice-trained-untrained")]) == 0  # fmt: skip
    return Results(folder, {f"alice-{name}": COST for own in names.values() for name in own})


def cells(text: str, name: str) -> list[str]:
    """Of the first row of that name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def numbers(folder: Path, metric: str, region: str = "all voxels") -> dict[str, float]:
    """By subject, from the table that the probe wrote."""
    with (folder / "probe.csv").open() as file:
        found = [row for row in csv.DictReader(file) if (row["metric"], row["region"]) == (metric, region)]
    return {row["subject"]: float(row["value"]) for row in found}


def test_word_rate_of_the_mean_and_of_each(probes: Results) -> None:
    text = reference_tables.word_rate(probes)
    of_mean, *regions, people, least, most = cells(text, "word rate, hrf")
    each = numbers(probes.folder / "each", "r_word_rate")
    assert sorted(each) == PEOPLE
    assert of_mean.startswith(f"{numbers(probes.folder / 'group', 'r_word_rate')['group']:.3f} [")
    assert people.startswith(f"{np.mean(list(each.values())):.3f} [")
    assert (least, most) == (f"{min(each.values()):.3f}", f"{max(each.values()):.3f}")
    assert len(regions) == 2
    agree, low, high = re.findall(r"[-\d.]+", cells(text, "each with the mean of the others: mean (least to most)")[1])
    assert float(low) <= float(agree) <= float(high)
    said = " ".join(text.split())
    assert "210 rows scored, each once, in 3 folds whose models were fitted on 140 to 140 other rows" in said
    assert "alice-word-rate-fir 12 s, 1.5 GB" in said


def test_bands_alone_together_and_beside_each_other(probes: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_tables, "NAMES", {"word_rate": "word rate", "word_vectors": "GloVe"})
    text = reference_tables.four_bands(probes)
    for name, metric in (
        ("word rate", "r_word_rate"),
        ("GloVe", "r_word_vectors"),
        ("Whisper base, state 0", "r_backbone"),
        ("all four, with state 0", "r_joint"),
        ("all four together", "r2_joint"),
    ):
        assert cells(text, name)[0].startswith(f"{numbers(probes.folder / 'group', metric)['group']:.3f} [")
    monkeypatch.setattr(reference_tables, "NAMES", {"word_vectors": "GloVe", "language_model": "MiniLM"})
    text = reference_tables.three_bands(probes)
    assert cells(text, "all bands together")[0] == cells(text, "all bands together")[1]
    text = reference_tables.untrained(probes)
    assert len(set(cells(text, "state 0"))) == 1
    assert "paired: +0.000 [+0.000, +0.000]" in " ".join(text.split())


def test_layers_of_a_run(probes: Results) -> None:
    text = reference_tables.layers(Results(probes.folder, {"each": COST}))
    assert cells(text, "state 0")[-1].startswith(
        f"{np.mean(list(numbers(probes.folder / 'each', 'r_backbone').values())):.3f}"
    )
    assert "mean over 4 simulated listeners" in " ".join(text.split())


def test_tuned_beside_permuted_and_words(tmp_path: Path) -> None:
    runs = [planted_run(tmp_path, seed, regime) for seed in (11, 12) for regime in ("brain", "permuted")]
    folder, names = runs[0].path.parent, [run.path.name for run in runs]
    text = reference_tables.tuned(Results(folder, dict.fromkeys(names, COST)))
    assert "| wav2vec (tiny) | 11 |" in text
    assert re.search(r"mean over 2 seeds and 95 % t interval: r \+0\.\d+ \[[-+]", " ".join(text.split()))


def test_states_of_an_export_are_those_of_the_checkpoint(finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    assert main(["export", str(run)]) == 0
    text = reference_tables.export(Results(tmp_path, {"run": COST, "run-export": COST}))
    found = np.array([cells(text, f"state {k}") for k in range(5)], dtype=float)
    assert found[:, 0].max() < 1e-4
    assert found[-1, 1] > 10 * found[-1, 0], "tuning has changed the last state"


def test_seeds_have_a_t_interval() -> None:
    assert reference_tables.over_seeds([0.061, 0.054, 0.053]) == "+0.056 [+0.045, +0.067]"
