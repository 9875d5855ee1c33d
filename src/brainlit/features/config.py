"""Which feature spaces a store holds: the one place where they are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LanguageModelConfig:
    """A text language model whose hidden states describe each word in its left context.

    Parameters
    ----------
    weights : str
        Hub id or local folder of a causal or masked language model of transformers.
    layer : int
        Hidden state to take: 0 is the embedding, -1 the last.
    context_words : int
        Words to the left that the model sees, at most.
    """

    weights: str
    layer: int = -1
    context_words: int = 20


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
    max_diphones, max_triphones : int
        The most frequent ones that get a column of their own, over all stories; the rest share none.
    """

    low_level: list[str] | None = None
    vectors: str | None = None
    language_model: LanguageModelConfig | None = None
    per_tr: Literal["mean", "lanczos"] = "mean"
    max_diphones: int = 200
    max_triphones: int = 400
