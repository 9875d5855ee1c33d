"""What a story is about, per TR: vectors of its words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from brainlit.features.config import PerTr
from brainlit.features.per_tr import in_words, to_trs
from brainlit.features.vectors import read_word_vectors
from brainlit.stories import FeatureSpace, Story

__all__ = ["AnyCase", "read_word_vectors", "word_vectors"]


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
        table[row] = _checked(lookup[word], n_dimensions, word, name)
    return FeatureSpace(
        name=name,
        kind="semantic",
        columns=tuple(f"{name}_{column:03d}" for column in range(n_dimensions)),
        source=f"{source}, {in_words('sum', per_tr)}",
        values=to_trs(table, story.words.middle_s, story.timebase, "sum", per_tr),
        coverage=float(found.mean()) if found.size else 0.0,
    )


def _checked(vector: npt.ArrayLike, n_dimensions: int, word: str, name: str) -> npt.NDArray[np.float64]:
    array = np.asarray(vector, dtype=np.float64).ravel()
    if array.size != n_dimensions:
        raise ValueError(
            f"word vectors {name!r}: {word!r} has {array.size} numbers and the first word {n_dimensions};"
            " all vectors of a space need one length."
        )
    return array
