import numpy as np
import pytest

from brainlit.features import read_word_vectors, word_vectors
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


@pytest.mark.parametrize("header", ["", "2 3\n"])
def test_word2vec_and_glove_text_files(tmp_path, header):
    path = tmp_path / "vectors.txt"
    path.write_text(header + "the 1 2 3\nKatze -0.5 1e-3 0\nthe 9 9 9\n\n", encoding="utf-8")
    vectors = read_word_vectors(path)
    assert list(vectors) == ["the", "Katze"]
    np.testing.assert_allclose(vectors["Katze"], [-0.5, 1e-3, 0])
    assert vectors["the"].tolist() == [1, 2, 3]


def test_entries_of_glove_that_contain_spaces_are_read(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2\n. . . 3 4\n")
    assert read_word_vectors(path)[". . ."].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the 1 2 3\ncat 1 2\n", "line 2: 2 values, but the first vector has 3"),
        ("the 1 2\ncat 1 2 3\n", "line 2: 3 values"),
        ("the 1 2\ncat 1 x\n", "line 2: could not convert"),
        ("", "holds no word vectors"),
        ("3 300\n", "holds no word vectors"),
    ],
)
def test_broken_files_are_refused_with_the_line(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_word_vectors(path)
