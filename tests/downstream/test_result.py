"""What a run keeps of its models' answers: it comes back as it was, and other files are refused."""

from pathlib import Path

import numpy as np
import pytest

from brainlit.downstream.evaluate import evaluate
from brainlit.downstream.pairs import DEMO_MEANING, WORDNET_MEANING
from brainlit.downstream.probes import ProbeConfig
from brainlit.downstream.result import WordStates, find_results, find_words, load_words, model_folder, task_path
from tests.downstream.planted import planted_features, planted_task

PHONES = {"horse": ("h", "o", "s"), "rabbit": ("r", "a", "b", "i", "t")}
LINEAR = ProbeConfig(probes=("linear",), strengths=(0.1,))


def states(meaning=DEMO_MEANING, clips=("a/0", "a/1", "b/0")):
    rng = np.random.default_rng(0)
    return WordStates(
        words=("horse", "rabbit", "horse"),
        speakers=("a", "a", "b"),
        categories=("animals", "animals", "animals"),
        phones=PHONES,
        meaning=meaning,
        layers={layer: rng.standard_normal((3, 5)).astype(np.float32) for layer in (0, 2, 10)},
        facts={"clips": list(clips), "stories": ["a[0:4]", "b[0:4]"]},
    )


def test_words_come_back_as_they_were(tmp_path: Path):
    kept = states()
    folder = model_folder(tmp_path, "tuned")
    assert find_words(folder) is None
    kept.save(folder / "words.npz")
    found = find_words(folder)
    assert (found.words, found.speakers, found.categories) == (kept.words, kept.speakers, kept.categories)
    assert (found.phones, found.meaning, found.facts) == (PHONES, DEMO_MEANING, kept.facts)
    assert list(found.layers) == [0, 2, 10]
    for layer, values in kept.layers.items():
        np.testing.assert_allclose(found.layers[layer], values, rtol=1e-3)
        assert found.layers[layer].dtype == np.float32
    assert found.same_tokens(kept)
    assert not found.same_tokens(states(clips=("a/0", "a/1", "b/7")))


def test_pairs_are_of_the_kind_that_meaning_says(monkeypatch):
    asked = []
    monkeypatch.setattr("brainlit.downstream.result.english_pairs", lambda *given, **_: asked.append(given))
    assert states().pairs().of_kind("semantic") == [("horse", "rabbit")]
    assert not asked
    states(WORDNET_MEANING).pairs()
    assert asked == [({"horse", "rabbit"}, PHONES)]


def test_other_files_are_refused(tmp_path: Path):
    np.savez(tmp_path / "words.npz", values=np.zeros(3))
    with pytest.raises(ValueError, match=r"words\.npz holds no states of words of this version"):
        load_words(tmp_path / "words.npz")


def test_results_are_found_by_task_and_words_are_none_of_them(tmp_path: Path):
    assert find_results(tmp_path / "nowhere") == {}
    for name in ("demo/speaker", "demo/phones"):
        task = planted_task(name=name, sizes={"train": 20, "choose": 10, "test": 10})
        result = evaluate(task, planted_features(task, {0: 1.0}), LINEAR, model="tuned", progress=False)
        result.save(task_path(tmp_path, name))
    states().save(tmp_path / "words.npz")
    assert (tmp_path / "demo-speaker.npz").is_file()
    found = find_results(tmp_path)
    assert list(found) == ["demo/phones", "demo/speaker"]
    assert found["demo/speaker"].task == "demo/speaker"
