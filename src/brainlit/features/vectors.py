"""What a story is about, per TR: vectors of its words, from files of english1000, GloVe, fastText or word2vec."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from brainlit.features.per_tr import PerTr, space_per_tr
from brainlit.hints import did_you_mean
from brainlit.stories import FeatureSpace, Story
from brainlit.stories.base import Float32Array, SourceError
from brainlit.weight_files import something_else

log = logging.getLogger(__name__)

WordAndVector = tuple[str, Float32Array]

_HDF5_SUFFIXES = (".hf5", ".hdf5", ".h5")
_PACKED_SUFFIXES = (".gz", ".zip", ".bz2", ".xz")

_FASTTEXT_MODEL = (793712314).to_bytes(4, "little")
_LONGEST_WORD = 4096
_SILENT_BYTES = 50_000_000


def word_vectors(
    story: Story,
    vectors: Mapping[str, npt.ArrayLike],
    source: str,
    name: str = "word_vectors",
    per_tr: PerTr = "mean",
) -> FeatureSpace:
    """Sum of the vectors of the words of each TR; zeros where no word has one.

    A word belongs to the row in which its middle falls. It is looked up as written, then in lower case, then in any.

    Parameters
    ----------
    vectors : mapping of word to array of shape (n_dimensions,)
    source : str
        Where the vectors come from.

    Returns
    -------
    FeatureSpace
        Semantic; `coverage` is the share of the story's words that have a vector.

    Raises
    ------
    ValueError
        If there are no vectors or they differ in length.
    """
    if not vectors:
        raise ValueError(f"word vectors {name!r} ({source}) are empty; check the file or the mapping.")
    n_dimensions = np.asarray(next(iter(vectors.values()))).size
    lookup = vectors if isinstance(vectors, AnyCase) else AnyCase(vectors)
    found = np.asarray([word in lookup for word in story.words.labels], dtype=bool)
    table = np.zeros((len(story.words), n_dimensions))
    for row in np.flatnonzero(found):
        word = story.words.labels[row]
        vector = np.asarray(lookup[word], dtype=np.float64).ravel()
        if vector.size != n_dimensions:
            raise ValueError(
                f"word vectors {name!r}: {word!r} has {vector.size} numbers and the first word {n_dimensions};"
                " all vectors of a space need one length."
            )
        table[row] = vector
    columns = (f"{name}_{column:03d}" for column in range(n_dimensions))
    coverage, middles_s = float(found.mean()) if found.size else 0.0, story.words.middle_s
    return space_per_tr(story, name, columns, source, table, middles_s, "sum", per_tr, "semantic", coverage)


class AnyCase(Mapping[str, npt.ArrayLike]):
    """Word vectors that are found as written, else in lower case, else in any case (the first one of the mapping).

    Made once and passed to `word_vectors` for each story, it saves going through a large vocabulary every time.

    >>> AnyCase({"May": [1.0], "may": [5.0], "IBM": [2.0]})["ibm"]
    [2.0]
    """

    def __init__(self, vectors: Mapping[str, npt.ArrayLike]) -> None:
        self._vectors = vectors
        self._written: dict[str, str] = {}
        for word in vectors:
            self._written.setdefault(word.lower(), word)

    def __getitem__(self, word: str) -> npt.ArrayLike:
        for key in (word, word.lower()):
            if key in self._vectors:
                return self._vectors[key]
        return self._vectors[self._written[word.lower()]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)


# --- Files of word vectors ---


class VectorFileError(SourceError):
    """A file of word vectors that cannot be read; the message names file, place, cause and cure."""


def read_word_vectors(path: Path | str) -> dict[str, Float32Array]:
    """The vectors of a file by word, each of shape (n_dimensions,); of a word that occurs twice, the first.

    Parameters
    ----------
    path : Path or str
        english1000 and its like (.hf5, .h5, .hdf5): the datasets 'data', (n_dimensions, n_words) or the other way
        round, and 'vocab', (n_words,); as in derivative/english1000sm.hf5 of ds003020 (985 x 10470).
        word2vec as binary (.bin): https://code.google.com/archive/p/word2vec.
        Everything else is text with a word and its numbers per line, separated by spaces: GloVe, or word2vec and
        fastText (.vec) with their first line '400000 300'. A few entries of GloVe contain spaces ('. . .').

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    VectorFileError
        If the file breaks off, a vector has another length than the first or holds something else than finite numbers,
        or there are none. (Of an HDF5 file, words whose vector holds NaN are left out with a warning.)
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of word vectors; check features.vectors.")
    if path.suffix.lower() in _PACKED_SUFFIXES:
        raise VectorFileError(f"{path} is packed ({path.suffix}); unpack it and name the file inside.")
    if path.stat().st_size and (damage := something_else(path, "download it again.")):
        raise VectorFileError(f"word vectors: {damage}")
    readers = {**dict.fromkeys(_HDF5_SUFFIXES, _read_hdf5), ".bin": _read_binary}
    vectors: dict[str, Float32Array] = {}
    for word, vector in readers.get(path.suffix.lower(), _read_text)(path):
        vectors.setdefault(word, vector)
    return vectors


def _read_text(path: Path) -> Iterator[WordAndVector]:
    n_promised, n_dimensions, n_read = 0, 0, 0
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for number, line in enumerate(_with_progress(lines, path), start=1):
            parts = line.rstrip().split(" ")
            if number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts):
                n_promised, n_dimensions = int(parts[0]), int(parts[1])
                continue
            if parts == [""]:
                continue
            n_dimensions = n_dimensions or len(parts) - 1
            word = _word_of_line(path, number, parts, n_dimensions)
            n_read += 1
            yield word, _numbers_of_line(path, number, parts[-n_dimensions:])
    if n_read < max(n_promised, 1):
        promised = f"; its first line promises {n_promised}, so the file was cut off" if n_promised and n_read else ""
        raise VectorFileError(f"{path} holds {n_read or 'no'} word vectors{promised}. Download it again.")


def _word_of_line(path: Path, number: int, parts: list[str], n_dimensions: int) -> str:
    word = " ".join(parts[: len(parts) - n_dimensions])
    if n_dimensions == 0:
        raise VectorFileError(f"{path}, line {number}: {word[:40]!r}; expected a word and then numbers, with spaces.")
    if not word or any(_is_number(part) for part in word.split(" ")[1:]):
        raise VectorFileError(
            f"{path}, line {number}: {len(parts) - 1} values, but the first vector has {n_dimensions};"
            " the file is cut off or not in word2vec/GloVe text form."
        )
    return word


def _numbers_of_line(path: Path, number: int, parts: list[str]) -> Float32Array:
    try:
        vector = np.asarray(parts, dtype=np.float32)
    except ValueError as error:
        raise VectorFileError(f"{path}, line {number}: {error}; expected a word and then numbers.") from error
    if not np.isfinite(vector).all():
        raise VectorFileError(f"{path}, line {number}: the vector holds NaN or infinite numbers; remove the line.")
    return vector


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_binary(path: Path) -> Iterator[WordAndVector]:
    """A text line 'n_words n_dimensions', then a word, a space and little-endian 32-bit floats for each word."""
    if path.stat().st_size == 0:
        raise VectorFileError(f"{path}, byte 0: the file is empty. Download it again.")
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as raw:
        n_words, n_dimensions, place = _binary_header(path, raw)
        for index in tqdm(range(n_words), desc=path.name, unit="word", disable=len(raw) < _SILENT_BYTES):
            space = raw.find(b" ", place, place + _LONGEST_WORD)
            end = space + 1 + 4 * n_dimensions
            if space < 0 or end > len(raw):
                raise VectorFileError(
                    f"{path}, byte {place}: word {index + 1} of {n_words} has no vector of {n_dimensions} numbers; the"
                    " file is cut off or not in word2vec's binary form. Download it again."
                )
            word = raw[place:space].decode("utf-8", errors="replace").lstrip("\n")
            vector = np.frombuffer(raw[space + 1 : end], dtype="<f4").astype(np.float32)
            if not np.isfinite(vector).all():
                raise VectorFileError(
                    f"{path}, byte {space + 1}: the vector holds NaN or infinite numbers. Download it again."
                )
            yield word, vector
            place = end
        if raw[place:].strip():
            raise VectorFileError(
                f"{path}, byte {place}: {len(raw) - place} bytes follow the last of {n_words} words; the first line"
                " does not fit the file. Download it again."
            )


def _binary_header(path: Path, raw: mmap) -> tuple[int, int, int]:
    """Number of words, number of dimensions, and where the first word starts."""
    if raw[:4] == _FASTTEXT_MODEL:
        raise VectorFileError(f"{path}, byte 0: this is a fastText model; give its vectors as text (.vec) instead.")
    stop = raw.find(b"\n", 0, 100)
    counts = raw[: max(stop, 0)].split()
    if len(counts) != 2 or not all(count.isdigit() and int(count) > 0 for count in counts):
        raise VectorFileError(
            f"{path}, byte 0: expected a line such as '3000000 300' and found {bytes(raw[:20])!r}; the file is not in"
            " word2vec's binary form. Vectors as text must not be called .bin."
        )
    return int(counts[0]), int(counts[1]), stop + 1


def _read_hdf5(path: Path) -> Iterator[WordAndVector]:
    try:
        with h5py.File(path, "r") as file:
            data, vocabulary = (_dataset(path, file, name)[()] for name in ("data", "vocab"))
    except OSError as error:
        raise VectorFileError(f"{path} cannot be read as HDF5 ({error}). Download it again.") from error
    words = [str(word, "utf-8", "replace") if isinstance(word, bytes) else str(word) for word in np.ravel(vocabulary)]
    if data.ndim != 2 or len(words) not in data.shape or not np.issubdtype(data.dtype, np.number):
        raise VectorFileError(
            f"{path}: 'data' is {data.dtype} of shape {data.shape} for {len(words)} words in 'vocab'; need numbers of"
            " shape (n_dimensions, n_words)."
        )
    # A square table is read as english1000 is stored: one column per word.
    rows = np.asarray(data.T if data.shape[1] == len(words) else data, dtype=np.float32)
    usable = np.isfinite(rows).all(axis=1)
    if not usable.all():
        log.warning("%s: %d of %d vectors hold NaN; their words count as unknown.", path, (~usable).sum(), len(words))
    for index in np.flatnonzero(usable):
        yield words[index], rows[index]


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    if not isinstance(file.get(name), h5py.Dataset):
        raise VectorFileError(f"{path} has no dataset {name!r}. {did_you_mean(name, file)}")
    return file[name]


def _with_progress(lines: Iterator[str], path: Path) -> Iterator[str]:
    """The lines, with a bar of the bytes read where the file is large."""
    n_bytes = path.stat().st_size
    with tqdm(total=n_bytes, desc=path.name, unit="B", unit_scale=True, disable=n_bytes < _SILENT_BYTES) as bar:
        for line in lines:
            bar.update(len(line))
            yield line
