"""A model learns to spell tones; error rates are those of a slow reference."""

from functools import cache

import numpy as np
import pytest
import torch

from brainlit.downstream.clip import Clip
from brainlit.downstream.recognise import (
    CtcConfig,
    RecognitionResult,
    _batches,
    character_errors,
    compare_recognition,
    load_recognition_result,
    recognise,
    word_errors,
)
from brainlit.downstream.task import make_recognition_task
from tests.backbones.conftest import load, save_mini

TONES_HZ = {"a": 300, "b": 1100, "c": 2500}
LETTER_SAMPLES = 1600


def spoken(text):
    """Each letter a tone of 0.1 s, a space silence."""
    t = np.arange(LETTER_SAMPLES) / 16_000
    tones = [np.sin(2 * np.pi * TONES_HZ[letter] * t) if letter != " " else 0 * t for letter in text]
    return (8000 * np.concatenate(tones)).astype(np.int16)


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    clips = {}
    for part, n_clips in (("train", 40), ("choose", 6), ("test", 8)):
        texts = [
            "".join(rng.choice(list("abc"), 2)) + " " + "".join(rng.permutation(list("abc"))[:2])
            for _ in range(n_clips)
        ]
        clips[part] = [Clip(f"{part}/{k}", spoken(text), text=text) for k, text in enumerate(texts)]
    return make_recognition_task("tones", clips, {"licence": "none"})


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini")
    save_mini(folder)
    return load(folder)


QUICK = CtcConfig(epochs=12, batch_s=2.5, backbone_lr=1e-2, head_lr=3e-2)


@pytest.fixture(scope="module")
def tuned(backbone, task):
    return recognise(backbone, task, QUICK, model="tuned", progress=False)


def test_it_learns_to_spell_and_leaves_the_backbone_as_it_was(backbone, task, tuned, tmp_path):
    untouched = {name: value.clone() for name, value in backbone.state_dict().items()}
    grads = {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}
    drawn = torch.get_rng_state()
    poor = recognise(
        backbone, task, CtcConfig(epochs=1, head_lr=0.0, tune_backbone=False), model="poor", progress=False
    )
    assert tuned.error_rate(unit="characters").value < 0.5 * poor.error_rate(unit="characters").value
    assert tuned.said["test"] == tuple(clip.text for clip in task.clips["test"])
    assert all(torch.equal(value, untouched[name]) for name, value in backbone.state_dict().items())
    assert {name: parameter.requires_grad for name, parameter in backbone.named_parameters()} == grads
    assert torch.equal(torch.get_rng_state(), drawn)
    better = compare_recognition(poor, tuned, unit="characters")
    assert better.high < 0
    assert better.value == pytest.approx(
        tuned.error_rate(unit="characters").value - poor.error_rate(unit="characters").value
    )


def test_the_same_seed_learns_the_same(backbone, task):
    short = CtcConfig(epochs=2, batch_s=5.0, backbone_lr=1e-2, head_lr=3e-2)
    one, again = (recognise(backbone, task, short, progress=False) for _ in range(2))
    assert one.read == again.read


def test_a_layer_that_is_not_there_is_refused(backbone, task):
    with pytest.raises(ValueError, match="layers 0 to 2"):
        recognise(backbone, task, CtcConfig(layer=3))
    for settings in ({"layer": -1}, {"epochs": 0}, {"warmup_fraction": 2.0}):
        with pytest.raises(ValueError, match="ctc"):
            CtcConfig(**settings)


def slow_distance(first, second):
    @cache
    def distance(i, j):
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        )

    return distance(len(first), len(second))


def test_error_rates_are_edit_distances_over_what_was_said():
    rng = np.random.default_rng(0)
    for _ in range(30):
        said, read = (" ".join(rng.choice(["the", "cat", "sat", "on", "a"], rng.integers(1, 7))) for _ in range(2))
        assert word_errors(said, read) == (slow_distance(said.split(), read.split()), len(said.split()))
        assert character_errors(said, read) == (slow_distance(said, read), len(said))
    parts = {"test": ("one two", "three")}
    names = {"test": ("x", "y")}
    result = RecognitionResult("t", "m", names, {"test": ("", "")}, parts, {"test": ("one", "three four")})
    assert result.error_rate().value == pytest.approx(2 / 3)


def test_a_result_comes_back_from_its_file(tuned, tmp_path):
    again = load_recognition_result(tuned.save(tmp_path / "tones.json"))
    assert (again.read, again.clips, again.facts) == (tuned.read, tuned.clips, tuned.facts)
    assert again.error_rate() == tuned.error_rate()
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="no recognition result"):
        load_recognition_result(tmp_path / "other.json")
    with pytest.raises(ValueError, match="no test part 'tset'"):
        tuned.error_rate("tset")
    elsewhere = RecognitionResult(**{**vars(tuned), "clips": {"test": ("x",) * 8}})
    with pytest.raises(ValueError, match="cannot be paired"):
        compare_recognition(tuned, elsewhere)


def test_batches_hold_similar_lengths_and_no_more_than_fits():
    lengths = [10, 50, 12, 49, 11]
    batches = _batches(lengths, 100, int)
    assert sorted(place for batch in batches for place in batch) == list(range(5))
    assert batches[0] == [1, 3]
    assert all(max(lengths[k] for k in batch) * len(batch) <= 100 for batch in batches)
    assert _batches([500], 100, int) == [[0]]
    with_silence = _batches(lengths, 100, lambda n: max(n, 50))
    assert [len(batch) for batch in with_silence] == [2, 2, 1]
