import gzip
import logging

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainlit.features import lanczos_resample, read_word_vectors, word_vectors
from brainlit.features.vectors import AnyCase, VectorFileError
from brainlit.stories import Intervals, Story
from brainlit.timebase import TimeBase

WORDS = {"the": [1.0, 2.0, 3.0], "Katze": [-0.5, 1e-3, 0.0], "été": [4.0, 5.0, 6.0]}


def binary(vectors, newline=b"\n", header=None):
    n_dimensions = len(next(iter(vectors.values())))
    start = header or f"{len(vectors)} {n_dimensions}\n".encode()
    return start + b"".join(
        word.encode() + b" " + np.asarray(vector, dtype="<f4").tobytes() + newline for word, vector in vectors.items()
    )


def text(vectors, header=""):
    return header + "".join(f"{word} {' '.join(map(repr, vector))}\n" for word, vector in vectors.items())


def write_hdf5(path, data, vocab):
    with h5py.File(path, "w") as file:
        file["data"], file["vocab"] = data, vocab
    return path


def same(vectors, expected=WORDS):
    assert list(vectors) == list(expected)
    for word, vector in expected.items():
        np.testing.assert_allclose(vectors[word], vector, rtol=1e-6)
        assert vectors[word].dtype == np.float32
    return True


@pytest.mark.parametrize("header", ["", "3 3\n"])
def test_glove_word2vec_and_fasttext_text_files(tmp_path, header):
    path = tmp_path / "vectors.vec"
    path.write_text(text(WORDS, header) + "the 9 9 9\n\n", encoding="utf-8")
    assert same(read_word_vectors(path))
    path.write_text(text(WORDS, header).replace("\n", " \r\n"), encoding="utf-8", newline="")
    assert same(read_word_vectors(path))


def test_entries_of_glove_that_contain_spaces_are_read(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2\n. . . 3 4\n\x85 5 6\n\xa0 7 8\n", encoding="utf-8")
    vectors = read_word_vectors(path)
    assert list(vectors) == ["the", ". . .", "\x85", "\xa0"]
    assert vectors[". . ."].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2 3\ncat 1 2\n", "line 2: 2 values, but the first vector has 3"),
        ("the 1 2\ncat 1 2 3\n", "line 2: 3 values"),
        ("the 1 2\ncat 1 x\n", "line 2: could not convert"),
        ("the 1 2\ncat 1 nan\n", "line 2: the vector holds NaN"),
        ("the\t1\t2\n", "line 1: .*with spaces"),
        ("2 3\nthe 1 2 3\ncat 1 2\n", "line 3: 2 values, but the first vector has 3"),
        ("3 2\nthe 1 2\ncat 1 2\n", "holds 2 word vectors; its first line promises 3"),
        ("", "holds no word vectors"),
        ("3 300\n", "holds no word vectors"),
    ],
)
def test_broken_text_files_are_refused_with_the_line(tmp_path, content, message):
    path = tmp_path / "vectors.txt"
    path.write_text(content)
    with pytest.raises(VectorFileError, match=message):
        read_word_vectors(path)


@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_word2vec_binary_files_with_and_without_line_ends(tmp_path, newline):
    path = tmp_path / "vectors.bin"
    path.write_bytes(binary(WORDS, newline))
    assert same(read_word_vectors(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: the file is empty"),
        (b"the 1 2 3\n", "byte 0: expected a line such as '3000000 300'"),
        (b"no line end", "byte 0: expected a line"),
        (b"\xba\x16\x4f\x2f rest", "fastText model.*vec"),
        (binary(WORDS)[:-6], r"byte 39: word 3 of 3 has no vector of 3 numbers"),
        (binary(WORDS) + b"more", "byte 58: 5 bytes follow the last of 3"),
        (binary({"a": [1.0, np.nan]}), "byte 6: the vector holds NaN"),
        (binary(WORDS, header=b"3 4\n"), "word 3 of 3"),
    ],
)
def test_broken_binary_files_are_refused_with_the_byte(tmp_path, content, message):
    path = tmp_path / "vectors.bin"
    path.write_bytes(content)
    with pytest.raises(VectorFileError, match=message):
        read_word_vectors(path)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 58))
def test_a_binary_file_cut_off_anywhere_is_refused(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut") / "vectors.bin"
    whole = binary(WORDS, newline=b"")
    path.write_bytes(whole[: min(length, len(whole) - 1)])
    with pytest.raises(VectorFileError, match=r"byte \d+"):
        read_word_vectors(path)


@pytest.mark.parametrize("flip", [False, True])
def test_english1000_in_both_orientations(tmp_path, flip):
    data = np.array(list(WORDS.values())[:2]).T
    vocab = np.array([b"the", b"Katze"])
    path = write_hdf5(tmp_path / "english1000sm.hf5", data.T if flip else data, vocab)
    assert same(read_word_vectors(path), {word: WORDS[word] for word in ("the", "Katze")})


def test_a_square_table_has_one_column_per_word_and_words_may_be_text(tmp_path):
    path = write_hdf5(tmp_path / "v.h5", np.arange(4.0).reshape(2, 2), ["a", "b"])
    assert read_word_vectors(path)["b"].tolist() == [1, 3]


def test_words_whose_vector_is_nan_count_as_unknown(tmp_path, caplog):
    path = write_hdf5(tmp_path / "v.hdf5", np.array([[1.0, np.nan], [1.0, 2.0], [0.0, 0.0]]), [b"a", b"b"])
    with caplog.at_level(logging.WARNING):
        assert list(read_word_vectors(path)) == ["a"]
    assert "1 of 2 vectors hold NaN" in caplog.text


def test_broken_hdf5_files_are_refused(tmp_path):
    with pytest.raises(VectorFileError, match=r"'data' is float64 of shape \(3, 4\) for 2 words"):
        read_word_vectors(write_hdf5(tmp_path / "a.hf5", np.zeros((3, 4)), [b"a", b"b"]))
    with h5py.File(tmp_path / "b.hf5", "w") as file:
        file["data"], file["vocabulary"] = np.zeros((2, 2)), [b"a", b"b"]
    with pytest.raises(VectorFileError, match=r"no dataset 'vocab'\. Did you mean 'vocabulary'"):
        read_word_vectors(tmp_path / "b.hf5")
    (tmp_path / "c.hf5").write_bytes(b"annexed elsewhere")
    with pytest.raises(VectorFileError, match=r"c\.hf5 cannot be read as HDF5"):
        read_word_vectors(tmp_path / "c.hf5")


def test_packed_and_missing_files_are_named(tmp_path):
    path = tmp_path / "vectors.bin.gz"
    path.write_bytes(gzip.compress(binary(WORDS)))
    with pytest.raises(VectorFileError, match=r"packed.*unpack it"):
        read_word_vectors(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt.*features\.vectors"):
        read_word_vectors(tmp_path / "nowhere.txt")


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
