"""Planted truth: the layer that knows most is found, on 'choose'; labels by lot score at chance."""

import json
from dataclasses import replace

import numpy as np
import pytest

from brainlit.downstream import make_task
from brainlit.downstream.evaluate import evaluate
from brainlit.downstream.probes import ProbeConfig
from brainlit.downstream.result import load_result
from tests.downstream.planted import LABELS, SIZES, clip, planted_features, planted_task

LINEAR = ProbeConfig(probes=("linear",), strengths=(0.1, 0.01))


def run(task, features, config=LINEAR):
    return evaluate(task, features, config, model="planted", progress=False)


@pytest.mark.parametrize(("kind", "metric"), [("single", "accuracy"), ("multi", "macro_f1")])
def test_layers_are_ranked_by_what_was_planted_in_them(kind, metric):
    task = planted_task(kind, metric=metric)
    signals = {0: 0.0, 1: 0.35, 2: 1.2, 3: 0.7}
    config = ProbeConfig(strengths=(0.1, 0.01), decays=(0.1,), seeds=(0, 1), max_epochs=30)
    result = run(task, planted_features(task, signals), config)
    for probe in ("linear", "mlp"):
        curve = [result.score("test", probe, layer).value for layer in result.layers]
        assert np.argsort(curve).tolist() == [0, 1, 3, 2]
        assert result.chosen_layer(probe) == 2
        assert result.score("test", probe).value == curve[2]
        assert result.score("test", probe).low < curve[2] < result.score("test", probe).high
    assert result.score("test").value > 0.9


@pytest.mark.parametrize("shuffle_seed", [0, 1, 2])
def test_labels_by_lot_score_at_chance(shuffle_seed):
    """Features know the labels perfectly, and the labels are then shuffled within each part."""
    sizes = {**SIZES, "test": 400}
    task = planted_task(sizes=sizes)
    features = planted_features(task, {0: 1.0, 1: 2.0, 2: 0.5})
    rng = np.random.default_rng(shuffle_seed)
    shuffled = replace(task, targets={part: rng.permutation(values) for part, values in task.targets.items()})
    chance = 1 / len(LABELS)
    standard_error = np.sqrt(chance * (1 - chance) / sizes["test"])
    found = run(shuffled, features).score("test").value
    assert abs(found - chance) < 2 * standard_error


def two_faced_features(task):
    """Layer 1 knows the labels in train and choose and not in test; layer 0 knows them everywhere, less well."""
    return planted_features(task, {0: 0.5, 1: {"train": 2.0, "choose": 2.0, "test": 0.0}})


def test_the_layer_that_is_best_on_choose_is_reported_where_another_is_best_on_test():
    task = planted_task()
    result = run(task, two_faced_features(task))
    curve = {layer: result.score("test", layer=layer).value for layer in result.layers}
    assert curve[0] > curve[1] + 0.2
    assert result.chosen_layer() == 1
    assert result.score("test").value == curve[1]
    assert [row["chosen"] for row in result.rows()] == [False, True]


def test_nothing_of_the_test_decides_anything():
    task = planted_task()
    features = planted_features(task, {0: 0.3, 1: 0.5, 2: 0.4})
    rng = np.random.default_rng(5)
    other = {**features, "test": {layer: rng.permutation(values) * 3 for layer, values in features["test"].items()}}
    config = replace(LINEAR, strengths=(1.0, 0.1, 0.01))
    one, two = run(task, features, config).probes["linear"], run(task, other, config).probes["linear"]
    assert one.chosen == two.chosen
    np.testing.assert_array_equal(one.settings, two.settings)
    np.testing.assert_array_equal(one.choose_scores, two.choose_scores)
    assert (one.predictions["test"] != two.predictions["test"]).any()


def test_regularisation_is_chosen_on_choose():
    """With more features than clips and a weak signal, the weakest penalty is not the best one."""
    task = planted_task(sizes={"train": 60, "choose": 300, "test": 300})
    features = planted_features(task, {0: 0.25}, n_features=100)
    both = run(task, features, replace(LINEAR, strengths=(1.0, 1e-6)))
    assert both.probes["linear"].settings.tolist() == [1.0]
    weak = run(task, features, replace(LINEAR, strengths=(1e-6,)))
    assert both.probes["linear"].choose_scores[0] > weak.probes["linear"].choose_scores[0]


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_result_comes_back_from_its_file(kind, tmp_path):
    sizes = {**SIZES, "test_new": 40}
    task = replace(planted_task(kind, sizes=sizes, metric="macro_f1"), facts={"licence": "none"})
    config = ProbeConfig(strengths=(0.1,), decays=(0.1,), seeds=(0, 1), max_epochs=3)
    result = run(task, planted_features(task, {0: 0.3, 2: 0.6}), config)
    again = load_result(result.save(tmp_path / "results" / "planted.npz"))
    assert again.rows() == result.rows()
    assert json.dumps(again.rows()) == json.dumps(result.rows())
    assert (again.labels, again.layers, again.clips, again.facts) == (
        result.labels,
        result.layers,
        result.clips,
        {"licence": "none"},
    )
    np.testing.assert_array_equal(again.predictions("test_new", "mlp", 0), result.predictions("test_new", "mlp", 0))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="no result of a downstream task"):
        load_result(tmp_path / "other.npz")


def test_rows_hold_every_layer_part_and_probe():
    task = planted_task(sizes={**SIZES, "test_new": 40})
    result = run(task, planted_features(task, {0: 0.0, 1: 0.5}))
    rows = result.rows()
    assert [(row["part"], row["layer"]) for row in rows] == [("test", 0), ("test", 1), ("test_new", 0), ("test_new", 1)]
    assert rows[3] | {"value": 0, "low": 0, "high": 0, "choose_score": 0, "setting": 0} == {
        "task": "planted", "model": "planted", "metric": "accuracy", "part": "test_new", "probe": "linear", "layer": 1,
        "chosen": True, "choose_score": 0, "setting": 0, "seed_sd": 0.0, "value": 0, "low": 0, "high": 0,
        "n_clips": 40, "n_drawn": 10, "drawn": "speakers",
    }  # fmt: skip


def test_where_the_speaker_is_the_answer_clips_are_drawn():
    names = tuple(f"speaker {k}" for k in range(10))
    parts = {part: [(clip(part, k), names[k % 10]) for k in range(40)] for part in ("train", "choose", "test")}
    asked = make_task("who", "single", parts, metric="accuracy")
    assert run(asked, planted_features(asked, {0: 1.0})).score("test").drawn == "clips"
    task = planted_task()
    assert run(task, planted_features(task, {0: 1.0})).score("test").drawn == "speakers"


def test_what_was_not_asked_is_not_answered():
    task = planted_task()
    result = run(task, planted_features(task, {0: 0.5}))
    with pytest.raises(ValueError, match=r"no test part 'tset'\. Did you mean 'test'"):
        result.score("tset")
    with pytest.raises(ValueError, match="was not probed with 'mlp'"):
        result.score("test", "mlp")
    with pytest.raises(ValueError, match="layer 5 was not probed"):
        result.score("test", layer=5)


def test_features_that_do_not_fit_are_refused():
    task = planted_task()
    features = planted_features(task, {0: 0.5})
    with pytest.raises(ValueError, match="not in its part 'test'"):
        run(task, {**features, "test": {}})
    with pytest.raises(ValueError, match=r"shape \(3, 12\) for 160 clips"):
        run(task, {**features, "test": {0: features["test"][0][:3]}})
    with pytest.raises(ValueError, match="NaN"):
        run(task, {**features, "test": {0: features["test"][0] * np.nan}})
