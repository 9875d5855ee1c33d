"""A small language model learns the grammar from text alone, and loads like a published one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from brainlit.backbones.tiny_text import RECORD_FILE, TextRecipe, recipe_folder, text_of, unigram_perplexity, vocabulary
from brainlit.demo.text import write_story
from brainlit.features import LanguageModel, LanguageModelConfig

SHORT = TextRecipe(steps=25, n_words=6000, batch_size=16, crop_words=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short recipe makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINLIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        before = torch.get_rng_state()
        made = recipe_folder(SHORT)
        assert recipe_folder(SHORT) == made
        assert torch.equal(before, torch.get_rng_state())
    return made


def test_it_knows_more_than_how_frequent_words_are(folder: Path) -> None:
    held_out = json.loads((folder / RECORD_FILE).read_text())["held_out"]
    assert held_out["perplexity"] < 0.8 * held_out["unigram_perplexity"]


def test_it_loads_like_a_published_model(folder: Path) -> None:
    model = LanguageModel(LanguageModelConfig(str(folder), context_words=10), progress=False)
    states, known = model.states(["The", "furry", "Rabbit,", "was", "not", "sweet."])
    plain, _ = model.states(["the", "furry", "rabbit", "was", "not", "sweet"])
    assert states.shape == (6, 128)
    assert known.all()
    np.testing.assert_allclose(states, plain, atol=1e-5)
    late, _ = model.states(["sweet"])
    assert np.abs(late[0] - states[-1]).max() > 0.1  # the context counts


def test_every_word_of_the_grammar_has_a_number() -> None:
    words = vocabulary()
    assert sorted(words.values()) == list(range(len(words)))
    text = text_of(np.random.default_rng(0), 3000, words)
    assert len(text) >= 3000
    names = {number: word for word, number in words.items()}
    story = write_story(np.random.default_rng(0), 600).lower()
    assert " ".join(names[number] for number in text[:5].tolist()) == " ".join(story.replace(",", "").split()[:5])


def test_unigram_perplexity_is_that_of_the_frequencies() -> None:
    text = np.array([0, 0, 0, 1])
    expected = np.exp(-np.mean(np.log([4 / 7, 2 / 7])))  # one added to each of three words
    assert unigram_perplexity(text, [0, 1], 3) == pytest.approx(expected)
