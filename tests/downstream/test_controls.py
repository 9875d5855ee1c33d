"""Controls score what they must, and warn where the words alone explain a score, or do not."""

from dataclasses import replace

import numpy as np
import pytest

from brainlit.downstream import make_task
from brainlit.downstream.controls import (
    majority,
    random_features,
    task_controls,
    transcript_only,
    untrained,
    with_controls,
)
from brainlit.downstream.evaluate import evaluate
from brainlit.downstream.features import clip_features
from brainlit.downstream.probes import ProbeConfig
from brainlit.downstream.scores import Draws
from tests.backbones.conftest import load, save_mini
from tests.downstream.planted import clip, planted_features, planted_task
from tests.downstream.test_compare import answered

LINEAR = ProbeConfig(probes=("linear",), strengths=(0.1, 0.01))
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
    result = with_controls(strong, {"pretrained": weak}, Draws(n_boot=50))
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
