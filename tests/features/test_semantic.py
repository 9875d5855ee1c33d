import numpy as np
import pytest

from brainlit.features import lanczos_resample, word_vectors
from brainlit.features.semantic import AnyCase
from brainlit.stories import Intervals, Story
from brainlit.timebase import TimeBase

VECTORS = {"cat": np.array([1.0, 0.0]), "Dog": np.array([0.0, 2.0])}


def story_of(words, start_s, duration_s=0.5, tr_s=2.0):
    words = Intervals(tuple(words), np.asarray(start_s), np.full(len(words), duration_s))
    return Story("s", np.zeros(10, dtype=np.int16), words, None, TimeBase.regular(4, tr_s))


def test_sum_over_the_words_of_each_tr_by_their_middle():
    space = word_vectors(story_of(["Cat", "dog", "the", "CAT"], [0.1, 0.5, 1.0, 1.8]), VECTORS, "test")
    np.testing.assert_array_equal(space.values, [[1, 2], [1, 0], [0, 0], [0, 0]])
    assert space.kind == "semantic"
    assert space.coverage == 0.75


def test_a_word_as_written_comes_before_its_lower_case():
    vectors = {"May": np.array([1.0]), "may": np.array([5.0])}
    space = word_vectors(story_of(["May", "may"], [0.0, 2.0]), vectors, "test")
    assert space.values[:2, 0].tolist() == [1.0, 5.0]


@pytest.mark.parametrize("tr_s", [1.5, 2.0, 2.0045])
def test_a_word_planted_at_a_row_is_found_there_after_hundreds_of_rows(tr_s):
    timebase = TimeBase.regular(500, tr_s, onset_s=0.3)
    words = Intervals(("cat",), timebase.tr_starts_s[400:401] + 0.01, np.array([0.0]))
    space = word_vectors(Story("s", np.zeros(1, np.int16), words, None, timebase), VECTORS, "test")
    assert np.flatnonzero(space.values.any(axis=1)).tolist() == [400]


def test_a_story_without_known_words_is_all_zeros_with_coverage_zero():
    space = word_vectors(story_of(["xyzzy"], [0.0]), VECTORS, "test")
    assert not space.values.any()
    assert space.coverage == 0
    assert word_vectors(story_of([], []), VECTORS, "test").values.shape == (4, 2)


def test_empty_and_ragged_vectors_are_refused():
    with pytest.raises(ValueError, match="are empty"):
        word_vectors(story_of(["cat"], [0.0]), {}, "nowhere")
    with pytest.raises(ValueError, match="'dog' has 3 numbers"):
        word_vectors(story_of(["cat", "dog"], [0, 1]), {"cat": np.ones(2), "dog": np.ones(3)}, "test")


def test_any_case_finds_what_is_there_and_only_that():
    lookup = AnyCase({"IBM": [1.0], "ibm's": [2.0], "USA": [3.0], "Usa": [4.0]})
    assert (lookup["Ibm"], lookup["USA"], lookup["usa"], lookup["IBM'S"]) == ([1.0], [3.0], [3.0], [2.0])
    assert "dell" not in lookup
    assert len(lookup) == 4


def test_lanczos_spreads_a_word_over_its_neighbours():
    story = story_of(["cat"], [2.75])
    space = word_vectors(story, VECTORS, "test", per_tr="lanczos")
    expected = lanczos_resample([[1.0, 0.0]], [3.0], [1.0, 3.0, 5.0, 7.0])
    np.testing.assert_allclose(space.values, expected, atol=1e-6)
    assert space.values[1, 0] == pytest.approx(1)
    assert "Lanczos" in space.source
