"""The verb downstream, and the commands of docs/downstream.md."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from brainlit.cli import HELP, downstream, main
from brainlit.demo import DemoSource
from brainlit.downstream import demo_tasks, probes
from brainlit.downstream.demo_tasks import DemoSize, DemoSpeech
from brainlit.downstream.evaluate import compare
from brainlit.downstream.preference import preference
from brainlit.downstream.recognise import load_recognition_result
from brainlit.downstream.result import find_results, model_folder, task_path
from brainlit.downstream.scores import drawn_units
from brainlit.downstream.tasks import DEMO, TASK_NAMES, TASKS
from brainlit.downstream.words import find_words
from brainlit.files import write_csv, write_json
from brainlit.results import wandb_logger
from brainlit.store import StoryStore, build_store
from tests.backbones.conftest import load, save_mini
from tests.layouts.speech import RATE_HZ, samples
from tests.layouts.timit import write_timit

PAGE = (Path(__file__).parents[2] / "docs" / "downstream.md").read_text()
COMMANDS = re.findall(r"^brainlit (downstream .*)$", PAGE, re.MULTILINE)
SMALL = DemoSize(1, 1, 1, 1, 1, 6, 1, 1, 1)


@pytest.fixture(scope="session")
def demo_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two short stories of the demo, both to score."""
    path = tmp_path_factory.mktemp("demo") / "store"
    small = {"n_tune": 0, "n_choose": 0, "n_fit": 0, "n_score": 2, "n_subjects": 1, "n_voxels": 4}
    build_store(DemoSource(story_minutes=3.0, **small), path, progress=False)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="session")
def demo_run(finished_run: Path, demo_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run that says it was tuned on the demo."""
    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("copy") / "brain_tune" / "ID"))
    store = StoryStore.open(demo_store)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["store_dir"] = str(demo_store)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    said = json.loads((run / "run.json").read_text())
    roles = {"tune": [], "score": [f"{name}[0:{store.n_trs(name)}]" for name in store.story_names]}
    said["data_module"] |= {"store_fingerprint": store.fingerprint, "roles": roles}
    write_json(run / "run.json", said)
    return run


@pytest.fixture(scope="session")
def page_folder(demo_run: Path, demo_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's commands were run, one after the other; said.txt has what they printed.

    Speech is made once, and there is little of it; probes are fitted in few steps.
    """
    folder = tmp_path_factory.mktemp("page")
    (folder / "runs" / "brain_tune").mkdir(parents=True)
    (folder / "runs" / "brain_tune" / "ID").symlink_to(demo_run)
    write_timit(folder / "TIMIT")
    for sound in folder.rglob("*.WAV"):
        soundfile.write(sound, np.tile(samples(str(sound.relative_to(folder))), 10), RATE_HZ)
    replaced = {"--weights base": "--weights random:tiny", "/path/to/TIMIT": "TIMIT", "--epochs 10": "--epochs 1"}
    replaced["data/store/demo-0"] = str(demo_store)
    with pytest.MonkeyPatch.context() as patch, (folder / "said.txt").open("w") as said:
        patch.chdir(folder)
        patch.setattr("sys.stdout", said)
        patch.setattr(demo_tasks, "DemoSpeech", cache(lambda seed: DemoSpeech(seed, SMALL)))
        patch.setattr(probes, "LayerProbeConfig", partial(probes.LayerProbeConfig, strengths=(0.1,), max_steps=20))
        for command in COMMANDS:
            for old, new in replaced.items():
                command = command.replace(old, new)
            assert main([*command.split(), "--device", "cpu"]) == 0, command
    return folder


def test_a_run_has_the_answers_of_both_models_with_their_controls(page_folder: Path, demo_run: Path) -> None:
    assert len(COMMANDS) == 6
    untuned, tuned = (find_results(model_folder(demo_run, name)) for name in ("untuned", "tuned"))
    assert set(untuned) == set(tuned) == {entry.name for entry in TASKS if entry.data_set == DEMO}
    for task, result in tuned.items():
        before = untuned[task]
        assert {"majority", "random_features", "transcript", "pretrained"} <= set(result.controls)
        assert "pretrained" not in before.controls
        assert result.controls["pretrained"]["test"] == before.score("test")
        assert result.model == "tuned"
        assert result.facts["made_from"].startswith("last.ckpt, ")
        assert before.facts["made_from"] == "wav2vec random:tiny, seed 0"
    category = tuned["demo/word_category"]
    assert set(category.probes) == {"linear", "mlp"}, "asked again with both"
    assert set(tuned["demo/speaker"].probes) == {"linear"}
    untrained = find_results(model_folder(demo_run, "untrained"))
    assert list(untrained) == ["demo/word_category"]
    assert category.controls["untrained"]["test"] == untrained["demo/word_category"].score("test")


def test_models_are_told_apart(page_folder: Path, demo_run: Path) -> None:
    """The tuned model is the last checkpoint, 'best' the other file, and the untuned one neither."""
    heard = {name: find_words(model_folder(demo_run, name)) for name in ("untuned", "tuned", "best")}
    found = {name: states for name, states in heard.items() if states is not None}
    assert len(found) == 3
    assert found["tuned"].same_tokens(found["untuned"])
    moved = {name: abs(states.layers[4] - found["untuned"].layers[4]).max() for name, states in found.items()}
    assert moved["tuned"] > 0.01
    assert found["best"].facts["made_from"].startswith("best.ckpt, ")
    assert set(find_results(model_folder(demo_run, "best"))) == {"demo/speaker"}


def test_what_is_printed_is_what_the_files_say(page_folder: Path, demo_run: Path) -> None:
    said = (page_folder / "said.txt").read_text()
    untuned, tuned = (find_results(model_folder(demo_run, name)) for name in ("untuned", "tuned"))
    score = tuned["demo/speaker"].score("test")
    cells = f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}] | {score.n_units['clips']} clips"
    assert f"| tuned | test | linear | {cells} | {tuned['demo/speaker'].chosen_layer()} |" in said
    change = compare(untuned["demo/phones"], tuned["demo/phones"], "test").difference
    units = drawn_units(change)
    between = f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
    assert f"| tuned - untuned | test | linear | {between} | {change.n_units[units]} {units}" in said
    states = find_words(model_folder(demo_run, "tuned"))
    assert states is not None
    for one in preference(states.layers, states.token_pairs()):
        assert f"- {one.words()}" in said
    assert said.count("tuned - untuned, last layer, the same words: semantic / phonetic") >= 2
    assert "kept (--again makes them anew)" in said
    warning = "- demo/phones, untuned, tuned: test_unseen_words: train has none of the words"
    assert said.count(warning) == 1, "once for both models, and phones were asked once"


def test_scores_of_all_models_are_in_one_table(page_folder: Path, demo_run: Path) -> None:
    rows = list(csv.DictReader((demo_run / "downstream" / "scores.csv").open()))
    assert {row["model"] for row in rows} == {"untrained", "untuned", "tuned", "best"}
    tuned = find_results(model_folder(demo_run, "tuned"))["demo/sentence_type"]
    (row,) = (
        row
        for row in rows
        if (row["task"], row["model"], row["part"], row["probe"]) == ("demo/sentence_type", "tuned", "test", "linear")
        and row["layer"] == str(tuned.chosen_layer())
    )
    assert float(row["value"]) == tuned.score("test").value
    assert row["chosen"] == "True"
    assert "pretrained" in {row["probe"] for row in rows if row["model"] == "tuned"}


def test_a_model_without_a_run_and_published_data(page_folder: Path) -> None:
    home = page_folder / "runs" / "downstream" / "wav2vec-random-tiny"
    (result,) = find_results(model_folder(home, "untuned")).values()
    assert (result.task, result.kind) == ("timit/phones", "multi")
    read = load_recognition_result(home / "downstream" / "untuned" / "timit-recognition.json")
    assert read.task == "timit/recognition"
    wer, cer = read.error_rate(), read.error_rate(unit="characters")
    said = (page_folder / "said.txt").read_text()
    rates = " | ".join(f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in (wer, cer))
    assert f"| untuned | test | {rates} | 24 speakers (24 clips) | 1 |" in said
    assert {row["metric"] for row in csv.DictReader((home / "downstream" / "scores.csv").open())} == {
        *("macro_f1", "WER", "CER")
    }
    assert find_words(model_folder(page_folder / "words" / "base", "untuned")) is not None


def test_what_is_there_is_kept_and_never_taken_for_another(
    page_folder: Path,
    demo_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be made")

    monkeypatch.setattr(demo_tasks, "DemoSpeech", refuse)
    run = shutil.copytree(demo_run, tmp_path / "run")
    path = task_path(model_folder(run, "tuned"), "demo/speaker")
    before = path.stat().st_mtime_ns
    assert main(["downstream", str(run), "--task", "demo/speaker"]) == 0
    assert "tuned has demo/speaker: kept" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before
    assert main(["downstream", str(run), "--task", "demo/speaker", "--probes", "mlp"]) == 2
    assert "no probe mlp" in capsys.readouterr().err
    assert main(["downstream", str(run), "--task", "words", "--seed", "1"]) == 2
    assert "seed 0, not 1" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="nothing is to be made"):
        main(["downstream", str(run), "--task", "demo/speaker", "--again"])


def test_a_pretrained_run_has_the_untuned_model_only(
    page_folder: Path,
    demo_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo_tasks, "DemoSpeech", lambda seed: DemoSpeech(seed, SMALL))
    run = Path(shutil.copytree(demo_run, tmp_path / "run", ignore=shutil.ignore_patterns("*.ckpt", "tuned", "best")))
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert main(["downstream", str(run), "--task", "demo/speaker"]) == 2, "a run that was stopped early is none"
    assert "has no checkpoint" in capsys.readouterr().err
    config["data"]["regime"] = "pretrained"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["downstream", str(run), "--task", "demo/speaker"]) == 0
    said = capsys.readouterr().out
    assert "is a pretrained run: it has no tuned model" in said
    assert "| untuned | test |" in said
    assert main(["downstream", str(run), "--models", "tuned", "--task", "demo/speaker"]) == 2
    assert "no model is left to ask" in capsys.readouterr().err


def test_words_that_cannot_be_had_are_left_out_or_refused(
    page_folder: Path, finished_run: Path, demo_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    output = ["--output", str(tmp_path), "--models", "untuned"]
    assert main(["downstream", str(finished_run), "--task", "words", *output]) == 2
    assert "is read by nltk, which is not installed; cure: pip install nltk" in capsys.readouterr().err
    shutil.copytree(demo_run / "downstream", tmp_path / "downstream")
    (tmp_path / "downstream" / "untuned" / "words.npz").unlink()
    assert main(["downstream", str(finished_run), *output]) == 0
    assert "the task words is left out. the word list" in capsys.readouterr().out
    run = Path(shutil.copytree(demo_run, tmp_path / "run"))
    said = json.loads((run / "run.json").read_text())
    said["data_module"]["store_fingerprint"] = "other"
    write_json(run / "run.json", said)
    assert main(["downstream", str(run), "--task", "words", "--again"]) == 2
    assert "is not the store that" in capsys.readouterr().err
    (run / "run.json").unlink()
    assert main(["downstream", str(run), "--task", "words", "--again"]) == 2
    assert "does not say which stories are scored" in capsys.readouterr().err


def test_what_cannot_be_meant_is_refused_before_anything_is_loaded(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert main(["downstream", *arguments]) == 2
        return capsys.readouterr().err

    run, model = str(finished_run), ("--model", "wav2vec", "--weights", "random:tiny")
    assert "or --model FAMILY: one of the two" in refused()
    assert "or --model FAMILY: one of the two" in refused(run, *model)
    assert "--weights is for --model, not for runs" in refused(run, "--weights", "base")
    assert "--checkpoint is for runs, not for --model" in refused(*model, "--checkpoint", "best")
    assert "--output is for one run, and 2 are named" in refused(run, run, "--output", str(tmp_path))
    assert "Did you mean 'demo/phones'?" in refused(run, "--task", "demo/phone")
    assert "Did you mean 'timit/phones'?" in refused(run, "--task", "timit/phone")
    assert "give --store DIR" in refused(*model, "--task", "words")
    assert "timit/phones needs --data" in refused(run, "--task", "timit/phones")
    assert "no task that needs it" in refused(run, "--data", str(tmp_path))
    assert "nowhere is no folder" in refused(run, "--task", "slurp/intent", "--data", "nowhere")
    two = ("--task", "slurp/intent", "--task", "crema_d/emotion", "--data", str(tmp_path))
    assert "are from crema_d and slurp, and --data is one folder" in refused(run, *two)
    assert "Did you mean 'mlp'?" in refused(run, "--probes", "mlpp")
    assert "--batch_s is 0.0" in refused(run, "--batch_s", "0")
    assert "not a run directory" in refused(str(tmp_path))
    assert "The run has: best.ckpt, last.ckpt" in refused(run, "--checkpoint", "bset")
    assert "Did you mean 'wav2vec'?" in refused("--model", "wavvec")
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_text("weights")
    assert "the checkpoint cannot be read" in refused(run, "--checkpoint", str(damaged))
    taken = shutil.copy(finished_run / "checkpoints" / "best.ckpt", tmp_path / "tuned.ckpt")
    assert "would be called 'tuned'" in refused(run, "--checkpoint", str(taken))


def test_help_lists_every_task_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from brainlit.cli import main\n"
        "try: main(['downstream', '--help'])\n"
        "except SystemExit: pass\n"
        "main(['downstream', 'runs', '--task', 'demo/phone'])\n"
        "print([m for m in ('torch', 'lightning', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "\n  downstream " in HELP
    for name in TASK_NAMES:
        assert re.search(rf"^    {name} +\w", done.stdout, re.MULTILINE), name


def test_the_examples_of_the_preference_page_run(
    demo_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "preference.md").read_text()
    save_mini(tmp_path)
    given = {"store": StoryStore.open(demo_store), "pretrained": load(tmp_path), "tuned": load(tmp_path)}
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "preference.md", "exec"), given)
    said = capsys.readouterr().out
    assert said.count("layer ") == 3, "what may be said of every layer"
    assert "Rsa(rho=" in said
    assert "Separation(accuracy=" in said
    assert given["figure"].name == "word-map"


def test_wandb_has_the_scores_of_the_chosen_layers_and_all_in_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = {"task": "demo/phones", "model": "tuned", "metric": "accuracy", "part": "test"}
    rows: list[dict[str, Any]] = [
        {**common, "probe": "linear", "layer": 0, "chosen": False, "value": 0.5},
        {**common, "probe": "linear", "layer": 1, "chosen": True, "value": 0.75},
        {**common, "probe": "untrained", "value": 0.25},
        {"task": "demo/words", "model": "tuned", "metric": "WER", "part": "test", "value": 0.125},
    ]
    scores = write_csv(tmp_path / "scores.csv", list(rows[0]), rows)
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(wandb_logger, "log_folder", lambda *values, **own: given.append((*values, own)))
    downstream._to_wandb(tmp_path / "brain_tune" / "one", scores, "offline")
    ((run, kind, values, tables, mode, *_, own),) = given
    assert (run.path, kind, mode) == (tmp_path / "brain_tune" / "one", "downstream", "offline")
    assert values == {"downstream/demo/phones/tuned/test/accuracy": 0.75, "downstream/demo/words/tuned/test/WER": 0.125}
    assert [float(row["value"]) for row in tables["downstream/table"]] == [0.5, 0.75, 0.25, 0.125]
    assert own == {"name": "one-downstream", "group": "brain_tune"}
