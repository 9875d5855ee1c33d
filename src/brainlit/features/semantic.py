"""What a story is about, per TR: vectors of its words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainlit.stories import FeatureSpace, Story


def word_vectors(
    story: Story, vectors: Mapping[str, npt.ArrayLike], source: str, name: str = "word_vectors"
) -> FeatureSpace:
    """Sum of the vectors of the words of each TR; zeros where no word has one.

    A word belongs to the row in which its middle falls. It is looked up as written and then in lower case.

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
    table = np.zeros((len(story.words), n_dimensions))
    found = np.zeros(len(story.words), dtype=bool)
    lowered = {word.lower(): word for word in vectors}
    for row, word in enumerate(story.words.labels):
        key = word if word in vectors else lowered.get(word.lower())
        if key is not None:
            table[row] = _checked(vectors[key], n_dimensions, key, name)
            found[row] = True
    return FeatureSpace(
        name=name,
        kind="semantic",
        columns=tuple(f"{name}_{column:03d}" for column in range(n_dimensions)),
        source=source,
        values=story.timebase.sum_per_tr(table, story.words.middle_s).astype(np.float32),
        coverage=float(found.mean()) if found.size else 0.0,
    )


def read_word_vectors(path: Path | str) -> dict[str, npt.NDArray[np.float32]]:
    """Word vectors in the text form of word2vec and GloVe: a word and its numbers per line, separated by spaces.

    word2vec's first line ('400000 300') is recognised and skipped. Of a word that occurs twice the first is kept. A
    few entries of GloVe contain spaces ('. . .'); they are read as such.

    Raises
    ------
    ValueError
        If a line has another number of values than the first, a value is not a number, or the file has no vectors.
    """
    vectors: dict[str, npt.NDArray[np.float32]] = {}
    n_dimensions: int | None = None
    with Path(path).open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            parts = line.rstrip().split(" ")
            is_header = number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts)
            if is_header or parts == [""]:
                continue
            n_dimensions = n_dimensions or len(parts) - 1
            word, values = " ".join(parts[:-n_dimensions]), parts[-n_dimensions:]
            if not word or any(_is_number(part) for part in word.split(" ")[1:]):
                raise ValueError(
                    f"{path}, line {number}: {len(parts) - 1} values, but the first vector has {n_dimensions};"
                    " the file is cut off or not in word2vec/GloVe text form."
                )
            try:
                vectors.setdefault(word, np.asarray(values, dtype=np.float32))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}; expected a word and then numbers.") from error
    if not vectors:
        raise ValueError(f"{path} holds no word vectors.")
    return vectors


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _checked(vector: npt.ArrayLike, n_dimensions: int, word: str, name: str) -> npt.NDArray[np.float64]:
    array = np.asarray(vector, dtype=np.float64).ravel()
    if array.size != n_dimensions:
        raise ValueError(
            f"word vectors {name!r}: {word!r} has {array.size} numbers and the first word {n_dimensions};"
            " all vectors of a space need one length."
        )
    return array
