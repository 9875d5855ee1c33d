"""Models are evaluated once each; an answer is known by the weights and the seed that it is from."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from brainlit.backbones import BackboneConfig
from brainlit.downstream import run_models as module
from brainlit.downstream.clip import Clip
from brainlit.downstream.evaluate import evaluate
from brainlit.downstream.probes import LayerProbeConfig
from brainlit.downstream.result import find_results, model_folder, model_folders, task_path
from brainlit.downstream.run_models import EvaluationConfig, Evaluator, Model, add_model_controls, untuned_model
from brainlit.downstream.task import make_task
from tests.backbones.conftest import load, save_mini
from tests.backbones.test_whisper import save as save_whisper
from tests.downstream.planted import planted_features, planted_task

LINEAR = LayerProbeConfig(probes=("linear",), strengths=(0.1,))


@pytest.fixture
def tasks():
    """Two tasks on the same clips."""
    rng = np.random.default_rng(0)
    examples = {
        part: [
            (Clip(f"{part}/{k}", rng.integers(-999, 999, 3200).astype(np.int16), text="ab"[k % 2]), k % 2)
            for k in range(8)
        ]
        for part in ("train", "choose", "test")
    }
    named = {name: {part: [(clip, f"{name} {k}") for clip, k in pairs] for part, pairs in examples.items()}
             for name in ("one", "two")}  # fmt: skip
    return [make_task(name, "single", pairs, metric="accuracy") for name, pairs in named.items()]


def test_a_model_is_loaded_once_and_controls_are_made_once_for_all(tasks, tmp_path, monkeypatch):
    save_mini(tmp_path / "mini")
    n_calls: Counter[str] = Counter()

    def counted(name, function):
        def call(*given, **named):
            n_calls[name] += 1
            return function(*given, **named)

        return call

    monkeypatch.setattr(module, "task_controls", counted("controls", module.task_controls))
    monkeypatch.setattr(module, "task_features", counted("features", module.task_features))
    evaluator = Evaluator(EvaluationConfig(LINEAR, seed=3), progress=False)
    for name in ("untuned", "tuned"):
        model = Model(name, f"weights of {name}", counted("load", lambda: load(tmp_path / "mini")))
        evaluator.evaluate(model, model_folder(tmp_path, name), tasks)
        assert evaluator.is_done(task_path(model_folder(tmp_path, name), "one"), model)
    assert n_calls == {"load": 2, "features": 2, "controls": 2}, "a pass for each model, controls for each task"
    found = find_results(model_folder(tmp_path, "tuned"))
    assert list(found) == ["one", "two"]
    assert set(found["one"].controls) == {"majority", "random_features", "transcript"}
    assert found["one"].facts["made_from"] == "weights of tuned"
    assert found["one"].facts["seed"] == "3"


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        ("auto", "auto: clips shorter than 1.5 s with silence after them"),
        ("truncated", "truncated: clips without silence"),
    ],
)
def test_the_record_says_whether_silence_was_added(tasks, tmp_path, positions, said):
    save_whisper(tmp_path / "mini")
    model = Model("untuned", "w", lambda: load(tmp_path / "mini", "whisper", positions=positions))
    Evaluator(EvaluationConfig(LINEAR), progress=False).evaluate(model, tmp_path / "results", tasks[:1])
    assert find_results(tmp_path / "results")["one"].facts["positions"] == said


def test_answers_of_clips_with_and_without_silence_are_told_apart():
    origins = [untuned_model(BackboneConfig("whisper", positions=p)).origin for p in ("truncated", "auto", "padded")]
    assert origins == [
        "whisper tiny, seed 0",
        "whisper tiny, seed 0, positions auto",
        "whisper tiny, seed 0, positions padded",
    ]
    assert untuned_model(BackboneConfig("hubert")).origin == "hubert tiny, seed 0"


def kept(folder, model="tuned", n_test=10, **facts):
    """A result that is there already."""
    task = planted_task(sizes={"train": 20, "choose": 10, "test": n_test})
    features = planted_features(task, {0: 1.0}, seed=len(model))
    result = evaluate(task, features, LINEAR, model=model, progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    return replace(result, facts=facts).save(task_path(folder, "planted"))


@pytest.mark.parametrize(
    ("origin", "config", "words"),
    [
        ("last.ckpt, 20 steps", EvaluationConfig(LINEAR), r"made_from last\.ckpt, 10 steps, not last\.ckpt, 20 steps"),
        ("last.ckpt, 10 steps", EvaluationConfig(LINEAR, seed=1), "seed 0, not 1"),
        ("last.ckpt, 10 steps", EvaluationConfig(LayerProbeConfig()), "no probe mlp"),
    ],
)
def test_an_answer_to_something_else_is_refused(tmp_path, origin, config, words):
    path = kept(tmp_path, made_from="last.ckpt, 10 steps", seed="0")
    with pytest.raises(ValueError, match=rf"{words}.*--again makes it anew"):
        Evaluator(config).is_done(path, Model("tuned", origin, load))
    same = Model("tuned", "last.ckpt, 10 steps", load)
    evaluator = Evaluator(EvaluationConfig(LINEAR))
    assert evaluator.is_done(path, same)
    assert not evaluator.is_done(tmp_path / "other.npz", same)


def test_models_are_controls_of_those_that_came_after_them(tmp_path):
    for name in ("best", "tuned", "untrained", "untuned"):
        kept(model_folder(tmp_path, name), name)
    (tmp_path / "downstream" / "scores.csv").touch()
    folders = model_folders(tmp_path)
    assert list(folders) == ["untrained", "untuned", "tuned", "best"]
    add_model_controls(folders)
    found = {name: find_results(folder)["planted"] for name, folder in folders.items()}
    assert {name: set(result.controls) for name, result in found.items()} == {
        "untrained": set(),
        "untuned": {"untrained"},
        "tuned": {"untrained", "pretrained"},
        "best": {"untrained", "pretrained"},
    }
    assert found["tuned"].controls["pretrained"] == {"test": found["untuned"].score("test")}
    assert found["tuned"].controls["untrained"] == {"test": found["untrained"].score("test")}


def test_a_model_that_heard_other_clips_is_no_control(tmp_path):
    kept(model_folder(tmp_path, "untuned"), "untuned", n_test=11)
    kept(model_folder(tmp_path, "tuned"))
    add_model_controls(model_folders(tmp_path))
    assert find_results(model_folder(tmp_path, "tuned"))["planted"].controls == {}
