"""Which feature spaces a store holds: the one place where they are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from brainlit.features.per_tr import PerTr


@dataclass(frozen=True)
class LanguageModelConfig:
    """A text language model whose hidden states describe each word in its left context.

    Parameters
    ----------
    weights : str
        Hub id (ORG/NAME or ORG/NAME@REVISION) or local folder of a causal or masked language model of transformers.
    layer : int
        Hidden state to take: 0 is the embedding, -1 the last.
    context_words : int
        Words to the left that the model sees, at most.
    """

    weights: str
    layer: int = -1
    context_words: int = 20

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("language_model.weights is empty; give a hub id such as gpt2, or a folder.")
        if self.context_words < 0:
            raise ValueError(f"language_model.context_words is {self.context_words}; it is 0 or more.")


@dataclass(frozen=True)
class FeatureConfig:
    """What is computed from sound, words and phones of every story.

    Parameters
    ----------
    low_level : list of str or None
        Names of low-level spaces (`brainlit.features.LOW_LEVEL`). None takes the standard set, except where the source
        brings low-level spaces of its own. Spaces that need phones are left out, with the reason, where a story of
        the source has none.
    vectors : str or None
        File of word vectors: english1000 (.hf5), GloVe, fastText or word2vec as text, word2vec as binary (.bin).
    language_model : LanguageModelConfig or None
        A semantic space from a text language model.
    per_tr : 'mean' or 'lanczos'
        How values at their own times become values per TR: mean (rates: sum) of what falls into the row, or
        three-lobe Lanczos resampling to the middle of the row.
    max_diphones : int
        So many of the most frequent pairs of phones over all stories get a column of their own; the rest share none.
    max_triphones : int
        The same for three phones in a row.

    Raises
    ------
    ValueError
        If a low-level space is unknown (with the nearest known name) or named twice, or a setting is out of range.
    """

    low_level: list[str] | None = None
    vectors: str | None = None
    language_model: LanguageModelConfig | None = None
    per_tr: PerTr = "mean"
    max_diphones: int = 200
    max_triphones: int = 400

    def __post_init__(self) -> None:
        from brainlit.features.low_level import require_known

        require_known(self.low_level or ())
        if self.vectors == "":
            raise ValueError("features.vectors is empty; give a file of word vectors, or leave it out (null).")
        if self.per_tr not in get_args(PerTr):
            raise ValueError(f"features.per_tr is {self.per_tr!r}; it is one of {', '.join(get_args(PerTr))}.")
        for name in ("max_diphones", "max_triphones"):
            if getattr(self, name) < 1:
                raise ValueError(f"features.{name} is {getattr(self, name)}; it is at least 1.")
