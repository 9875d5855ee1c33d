from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from brainlit.comparison.figures import CATEGORY_COLOURS, apart_from_each_other, word_map_figure
from brainlit.downstream.representation import WordMap, word_map
from brainlit.results.style import Figure

KINDS = ("animals", "body", "food", "money", "music", "vehicles")


@pytest.fixture(scope="module")
def words() -> WordMap:
    rng = np.random.default_rng(0)
    kinds = [kind for kind in KINDS for _ in range(8)]
    centre = np.repeat(rng.standard_normal((6, 12)), 8, axis=0)
    noise = rng.standard_normal((48, 12))
    return word_map(noise, 2 * centre + noise, [str(k) for k in range(48)], kinds)


@pytest.fixture(scope="module")
def figure(words: WordMap) -> Figure:
    return word_map_figure(words, name="words-layer-3")


def test_each_category_has_its_colour_in_both_panels(figure: Figure) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB")).astype(int)
    half = pixels.shape[1] // 2
    for colour in CATEGORY_COLOURS[: len(KINDS)]:
        rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
        near = (np.abs(pixels - rgb) <= 3).all(axis=2)
        assert min(near[:, :half].sum(), near[:, half:].sum()) > 20
    assert figure.svg is not None
    assert figure.svg.lstrip().startswith(b"<?xml")


def test_the_words_beside_it_have_the_numbers(figure: Figure, words: WordMap) -> None:
    before, after = words.separation
    assert figure.name == "words-layer-3"
    assert f"before {100 * before.accuracy:.0f} % of words" in figure.alt
    assert f"after {100 * after.accuracy:.0f} % of words" in figure.alt
    assert all(kind in figure.alt for kind in KINDS)
    assert "principal components" in figure.caption
    assert f"after {after.p:.3f}" in figure.caption


def test_names_do_not_lie_on_each_other_and_stay_where_they_have_room() -> None:
    places = np.array([[0.0, 0.0], [0.1, 0.0], [0.05, 0.01], [5.0, 0.0]])
    size = np.array([1.0, 0.2])
    moved = apart_from_each_other(places, size)
    heights = np.sort(moved[:3, 1])
    assert (np.diff(heights) >= 0.2).all()
    assert heights[-1] - heights[0] < 0.5
    assert np.array_equal(moved[:, 0], places[:, 0])
    assert np.array_equal(moved[3], places[3])
