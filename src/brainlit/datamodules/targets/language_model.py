"""What a text language model makes of the words of each row, with what was said before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from brainlit.datamodules.targets.config import LanguageTargetsConfig, layer_numbers
from brainlit.datamodules.targets.stamp import stamp_of_weights
from brainlit.datamodules.targets.voxels import Float32Array
from brainlit.datamodules.tiny_language_model import tiny_language_model
from brainlit.features import LanguageModel, LanguageModelConfig
from brainlit.features.per_tr import to_trs
from brainlit.store import StoryStore

NAME = "language_model"


class LanguageRepresentation:
    """Hidden states of a text language model, one vector per word in its left context, summed or averaged per row.

    Parameters
    ----------
    config : LanguageTargetsConfig
    """

    name = NAME

    def __init__(self, config: LanguageTargetsConfig) -> None:
        self.config = config

    def settings(self) -> dict[str, Any]:
        """All that decides the numbers; of a folder the sizes and times of its files."""
        config = self.config
        return {
            "weights": stamp_of_weights(self._weights()),
            "layers": config.layers if isinstance(config.layers, str) else list(config.layers),
            "context_words": config.context_words,
            "per_tr": config.per_tr,
        }

    def features(self, store: StoryStore, stories: Sequence[str]) -> Iterator[Float32Array]:
        """Hidden states of the layers side by side, shape (n_trs, n_layers * hidden_size); 0 in rows without words.

        Raises
        ------
        LanguageModelError
            If the weights cannot be had or are no text model's.
        ValueError
            If the model has no such layer.
        """
        config = self.config
        settings = LanguageModelConfig(self._weights(), layer=0, context_words=config.context_words)
        model = _LayersSideBySide(settings, config)
        for story in stories:
            words = store.words(story)
            states, _ = model.states(words.labels, story)
            yield to_trs(states, words.middle_s, store.timebase(story), config.per_tr)

    def _weights(self) -> str:
        return str(tiny_language_model(self.config.seed)) if self.config.weights == "tiny" else self.config.weights


class _LayersSideBySide(LanguageModel):
    """A language model whose only hidden state is several of them, side by side."""

    def __init__(self, config: LanguageModelConfig, targets: LanguageTargetsConfig) -> None:
        super().__init__(config)
        self.targets = targets
        self._joined: tuple[Any, Any] | None = None

    def _load(self) -> tuple[Any, Any]:
        if self._joined is None:
            tokenizer, model = super()._load()
            numbers = layer_numbers(NAME, self.targets.layers, model.config.num_hidden_layers)
            self._joined = (tokenizer, _Joined(model, numbers))
        return self._joined


class _Joined:
    """A transformers model that gives out one hidden state: those of some layers, side by side."""

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        self.model, self.layers, self.device = model, layers, model.device
        most_tokens = getattr(model.config, "max_position_embeddings", None)
        size = len(layers) * model.config.hidden_size
        self.config = SimpleNamespace(hidden_size=size, max_position_embeddings=most_tokens)

    def __call__(self, **inputs: Any) -> SimpleNamespace:
        states = self.model(**inputs).hidden_states
        return SimpleNamespace(hidden_states=(torch.cat([states[layer] for layer in self.layers], dim=-1),))
