"""Planted truth: the layer that knows most is found, on 'choose'; labels by lot score at chance."""

import json
from dataclasses import replace

import numpy as np
import pytest

from brainlit.downstream.evaluate import (
    compare,
    evaluate,
    majority,
    mcnemar_p,
    random_features,
    task_controls,
    task_result,
    transcript_only,
    untrained,
    with_controls,
)
from brainlit.downstream.features import clip_features
from brainlit.downstream.probes import LayerProbeConfig
from brainlit.downstream.result import ProbeOutcome, load_result
from brainlit.downstream.scores import BootstrapConfig, estimate
from brainlit.downstream.task import make_task
from tests.backbones.conftest import load, save_mini
from tests.downstream.planted import LABELS, SIZES, clip, planted_features, planted_task

LINEAR = LayerProbeConfig(probes=("linear",), strengths=(0.1, 0.01))


def run(task, features, config=LINEAR):
    return evaluate(task, features, config, model="planted", progress=False)


@pytest.mark.parametrize(("kind", "metric"), [("single", "accuracy"), ("multi", "macro_f1")])
def test_layers_are_ranked_by_what_was_planted_in_them(kind, metric):
    task = planted_task(kind, metric=metric)
    signals = {0: 0.0, 1: 0.35, 2: 1.2, 3: 0.7}
    config = LayerProbeConfig(strengths=(0.1, 0.01), decays=(0.1,), seeds=(0, 1), max_epochs=30)
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
    config = LayerProbeConfig(strengths=(0.1,), decays=(0.1,), seeds=(0, 1), max_epochs=3)
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
    assert run(asked, planted_features(asked, {0: 1.0})).score("test").n_units == {"clips": 40}
    task = planted_task()
    assert run(task, planted_features(task, {0: 1.0})).score("test").n_units == {"speakers": 10, "clips": 160}


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


# --- compare
# Two models on the same clips: what they share cancels.


def answered(task, right, n_seeds=1):
    """A result whose clips are right where it is said: `right` is (n_seeds, n_clips)."""
    truth = task.targets["test"]
    said = np.where(np.atleast_2d(right), truth, (truth + 1) % len(task.labels))
    outcome = ProbeOutcome(0, np.zeros(1), np.zeros(1), {"test": said[None]})
    return task_result(task, "model", (0,), {"linear": outcome})


@pytest.fixture
def task():
    return planted_task(sizes={"train": 20, "choose": 20, "test": 200})


def test_pairing_makes_the_interval_narrower(task):
    rng = np.random.default_rng(0)
    easy = rng.random(200) < 0.6
    a = answered(task, easy)
    b = answered(task, easy | (rng.random(200) < 0.15))
    found = compare(a, b)
    alone = [estimate("accuracy", result.sums("test"), [""] * 200) for result in (a, b)]
    assert found.difference.value == pytest.approx(alone[1].value - alone[0].value)
    assert 0 < found.difference.low < found.difference.value < found.difference.high
    assert found.difference.high - found.difference.low < 0.7 * (alone[0].high - alone[0].low)
    assert found.only_a == 0
    assert found.only_b == pytest.approx(200 * found.difference.value)
    assert found.mcnemar_p == mcnemar_p(0, int(found.only_b)) < 0.01


def test_the_same_model_twice_shows_no_difference(task):
    a = answered(task, np.arange(200) % 3 == 0)
    found = compare(a, a)
    assert (found.difference.value, found.difference.interval, found.mcnemar_p) == (0, (0, 0), 1)


def test_turned_round_it_changes_its_sign(task):
    rng = np.random.default_rng(1)
    a, b = answered(task, rng.random(200) < 0.5), answered(task, rng.random(200) < 0.6)
    there, back = compare(a, b), compare(b, a)
    one, other = there.difference, back.difference
    assert (one.value, one.low) == pytest.approx((-other.value, -other.high))
    assert (there.only_a, there.mcnemar_p) == (back.only_b, back.mcnemar_p)


def test_mcnemar_is_a_coin_toss_over_the_clips_that_only_one_gets_right():
    from math import comb

    exact = 2 * sum(comb(9, k) for k in range(3)) / 2**9
    assert mcnemar_p(2, 7) == pytest.approx(exact)
    assert mcnemar_p(0, 0) == 1


def test_several_seeds_are_compared_by_their_means(task):
    rng = np.random.default_rng(2)
    right_a, right_b = rng.random((3, 200)) < 0.5, rng.random((2, 200)) < 0.6
    found = compare(answered(task, right_a), answered(task, right_b))
    assert found.difference.value == pytest.approx(right_b.mean() - right_a.mean())
    assert found.only_b == pytest.approx(np.mean([(b & ~a).sum() for a in right_a for b in right_b]))
    assert np.isnan(found.mcnemar_p)


def test_what_cannot_be_paired_is_refused(task):
    a = answered(task, np.ones(200, dtype=bool))
    with pytest.raises(ValueError, match="not made from the same clips of 'test'"):
        compare(a, replace(a, clips={"test": tuple(reversed(a.clips["test"]))}))
    with pytest.raises(ValueError, match="different task"):
        compare(a, replace(a, task="other"))
    with pytest.raises(ValueError, match="no test part"):
        compare(a, a, "test_new")


# --- controls
# Controls score what they must, and warn where the words alone explain a score, or do not.


WORDS = {"blue": "the sky", "green": "the grass", "red": "the rose", "white": "the snow"}


def model(task, signal=1.0):
    return evaluate(task, planted_features(task, {0: signal}), LINEAR, model="model", progress=False)


def test_majority_says_the_commonest_label_of_train():
    labels = {"train": "aab", "choose": "ab", "test": "abbb"}
    pairs = {part: [(clip(part, k), label) for k, label in enumerate(own)] for part, own in labels.items()}
    task = make_task("t", "single", pairs, metric="accuracy")
    assert majority(task).score().value == 0.25
    several = {part: [(clip(part, 0), ["a"]), (clip(part, 1), ["a", "b"]), (clip(part, 2), [])] for part in labels}
    assert majority(make_task("t", "multi", several)).predictions()[0].tolist() == [[1, 0]] * 3


def test_reading_solves_a_task_whose_words_give_it_away_and_the_score_says_so():
    task = planted_task(text=WORDS.get)
    reader = transcript_only(task)
    assert reader.score().value == 1.0
    assert reader.facts["known_words/test"] == "1.0000"
    result = with_controls(model(task), task_controls(task, 12, LINEAR))
    assert set(result.controls) == {"majority", "random_features", "transcript"}
    (warning,) = result.warnings
    assert "Words by themselves reach this score, so it is no evidence for semantics" in warning
    assert warning.startswith(f"test: accuracy {result.score().value:.3f} (linear), and 1.000 from the words")


def test_a_score_above_what_reading_allows_is_said_to_be():
    task = planted_task(text=lambda label: "always the same")
    assert transcript_only(task).score().value < 0.4
    (warning,) = with_controls(model(task), task_controls(task, 12, LINEAR)).warnings
    assert "not in which words are said" in warning


def test_a_difference_that_may_be_chance_is_said_to_be():
    task = planted_task(sizes={"train": 20, "choose": 20, "test": 40}, text=WORDS.get)
    reader = replace(answered(task, np.arange(40) < 20), facts={"known_words/test": "1.0"})
    (warning,) = with_controls(answered(task, np.arange(40) % 10 < 6), {"transcript": reader}).warnings
    assert "accuracy 0.600 (linear), and 0.500" in warning
    assert "may be chance, so the score is no evidence for semantics" in warning


def test_where_the_reader_knows_no_word_it_is_blind():
    seen = planted_task(text=WORDS.get)
    new = [(clip("new", k, "unheard of"), "blue") for k in range(30)]
    pairs = {p: [(c, seen.labels[t]) for c, t in zip(seen.clips[p], seen.targets[p], strict=True)] for p in seen.parts}
    task = make_task("planted", "single", {**pairs, "test_new": new}, metric="accuracy")
    first, second = with_controls(model(task), task_controls(task, 12, LINEAR)).warnings
    assert "no evidence for semantics" in first
    assert second.startswith("test_new: train has none of the words")


def test_without_transcripts_that_is_said():
    task = planted_task()
    controls = task_controls(task, 12, LINEAR)
    assert "transcript" not in controls
    (warning,) = with_controls(model(task), controls).warnings
    assert "no transcript" in warning


def test_the_order_of_words_is_not_read():
    order = {"blue": "a b", "green": "b a"}
    task = planted_task(labels=("blue", "green"), text=order.get)
    assert 0.35 < transcript_only(task).score().value < 0.65


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_features_score_at_chance(seed):
    task = planted_task(sizes={"train": 240, "choose": 120, "test": 400})
    found = random_features(task, 12, LINEAR, seed=seed).score().value
    assert abs(found - 0.25) < 2 * np.sqrt(0.25 * 0.75 / 400)


def test_other_models_stand_beside_the_score():
    task = planted_task(text=WORDS.get)
    strong, weak = model(task, 1.0), model(task, 0.3)
    result = with_controls(strong, {"pretrained": weak}, BootstrapConfig(n_boot=50))
    assert result.controls["pretrained"]["test"].value == weak.score().value
    rows = [row for row in result.rows() if row["probe"] == "pretrained"]
    assert [(row["part"], row["value"]) for row in rows] == [("test", weak.score().value)]
    assert "no transcript" in result.warnings[0]


def test_an_untrained_backbone_has_the_architecture_and_none_of_the_weights(tmp_path):
    save_mini(tmp_path / "mini")
    trained = load(tmp_path / "mini")
    fresh, again, other = untrained(trained), untrained(trained), untrained(trained, seed=1)
    assert fresh.architecture() == trained.architecture()
    assert fresh.config.weights == f"random:{tmp_path / 'mini'}"
    sound = replace(clip("a", 0), source=np.random.default_rng(0).integers(-3000, 3000, 4000).astype(np.int16))
    values = [clip_features(one, [sound], [2], progress=False)[2] for one in (trained, fresh, again, other)]
    np.testing.assert_array_equal(values[1], values[2])
    assert not np.allclose(values[0], values[1], atol=1e-3)
    assert not np.allclose(values[1], values[3], atol=1e-3)
