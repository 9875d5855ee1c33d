"""What a run keeps of the tasks that its models were given: <run>/downstream/<model>/.

A model's folder holds one file per task (`TaskResult.save`) and one of words (`WordStates`), from which preference,
separation and maps follow. Models are 'untuned' (the backbone before the first step), 'tuned' (the run's last weights,
those that the last probe saw), or the name of another checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from brainlit.downstream.npz import load_npz, save_npz
from brainlit.downstream.pairs import DEMO_MEANING, WordPairs, demo_pairs, english_pairs
from brainlit.downstream.result import TaskResult, load_result
from brainlit.downstream.token_pairs import TokenPairs, pair_tokens

Float32Array: TypeAlias = npt.NDArray[np.float32]

UNTUNED, TUNED = "untuned", "tuned"
FOLDER, WORDS_FILE = "downstream", "words.npz"


@dataclass(frozen=True, eq=False)
class WordStates:
    """Spoken words and what each layer of a model makes of them.

    Parameters
    ----------
    words, speakers, categories : tuples of str, length n_tokens
        Of each token; its category is '' where there is none.
    phones : mapping of word to its phones
    meaning : str
        What words have to do with each other in a semantic pair: DEMO_MEANING, or else WordNet is asked.
    layers : mapping of layer to float32 array of shape (n_tokens, n_features)
        States averaged over the frames of the word, each word heard by itself.
    facts : mapping
        Plain JSON: stories, model, how many were left out.
    """

    words: tuple[str, ...]
    speakers: tuple[str, ...]
    categories: tuple[str, ...]
    phones: Mapping[str, tuple[str, ...]]
    meaning: str
    layers: Mapping[int, Float32Array]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def pairs(self, seed: int = 0) -> WordPairs:
        """Semantic, near-homophone and random pairs of these words."""
        if self.meaning == DEMO_MEANING:
            return demo_pairs(self.phones, seed=seed)
        return english_pairs(set(self.words), self.phones, seed=seed)

    def token_pairs(self, seed: int = 0) -> TokenPairs:
        """Which tokens are compared; the same for every model that heard the same tokens."""
        return pair_tokens(self.words, self.speakers, self.pairs(seed), seed=seed)

    def same_tokens(self, other: WordStates) -> bool:
        """Whether the other model heard the same words, so that the two can be paired."""
        return (self.words, self.speakers, self.facts.get("clips")) == (
            other.words,
            other.speakers,
            other.facts.get("clips"),
        )

    def save(self, path: Path) -> Path:
        """Write everything into one .npz file, without pickle; `load_words` reads it."""
        plain = ("words", "speakers", "categories", "phones", "meaning", "facts")
        arrays = {f"layer-{layer}": values.astype(np.float16) for layer, values in self.layers.items()}
        return save_npz(path, {name: getattr(self, name) for name in plain}, arrays)


def load_words(path: Path) -> WordStates:
    """What `WordStates.save` wrote.

    Raises
    ------
    ValueError
        If the file is something else.
    """
    record, arrays = load_npz(path, "states of words")
    return WordStates(
        words=tuple(record["words"]),
        speakers=tuple(record["speakers"]),
        categories=tuple(record["categories"]),
        phones={word: tuple(phones) for word, phones in record["phones"].items()},
        meaning=record["meaning"],
        layers={int(name.removeprefix("layer-")): values.astype(np.float32) for name, values in arrays.items()},
        facts=record["facts"],
    )


def model_folder(run: Path, model: str) -> Path:
    """Where the results of one model of a run lie."""
    return run / FOLDER / model


def task_path(folder: Path, task: str) -> Path:
    """The file of a task's result in a model's folder: demo/word_category is in demo-word_category.npz."""
    return folder / f"{task.replace('/', '-')}.npz"


def find_results(folder: Path) -> dict[str, TaskResult]:
    """The results of one model by task, in alphabetical order; none where the folder is missing."""
    paths = sorted(path for path in folder.glob("*.npz") if path.name != WORDS_FILE)
    return {result.task: result for result in map(load_result, paths)}


def find_words(folder: Path) -> WordStates | None:
    """The words that a model heard, or None."""
    path = folder / WORDS_FILE
    return load_words(path) if path.is_file() else None
