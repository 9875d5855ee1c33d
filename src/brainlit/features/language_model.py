"""What a text language model makes of each word in its left context: hidden states per TR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from brainlit.features.config import LanguageModelConfig
from brainlit.features.per_tr import PerTr, space_per_tr
from brainlit.stories import FeatureSpace, Story
from brainlit.stories.base import BoolArray, Float32Array, SourceError
from brainlit.weight_files import (
    folder_damage,
    is_from_readers_of_weights,
    is_path,
    numbers_damage,
    split_revision,
    what_readers_say,
    without_bars,
)

NAME = "language_model"
MAY_BE_MISSING = ("pooler.dense.weight", "pooler.dense.bias")
"""Parameters that no hidden state depends on, and that checkpoints of masked models often lack."""

_WORDS_PER_BATCH = 32


class LanguageModelError(SourceError):
    """A language model that is not there, is of another kind, or cannot take what it is asked for."""


class LanguageModel:
    """Hidden states of a transformers language model, one per word.

    Nothing is loaded before the first word. Runs on the GPU where there is one, in fp32.

    Parameters
    ----------
    config : LanguageModelConfig
    progress : bool
        Show a progress bar.
    choose_layers : function, optional
        From the number of layers to the hidden states that are put side by side, in place of `config.layer`.
    """

    def __init__(
        self,
        config: LanguageModelConfig,
        progress: bool = True,
        choose_layers: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        self.config, self.progress = config, progress
        self._choose_layers = choose_layers or self._configured_layer

    def space(self, story: Story, per_tr: PerTr = "mean") -> FeatureSpace:
        """Sum of the hidden states of the words of each TR; `coverage` is the share of words with a token."""
        states, known = self.states(story.words.labels, story.name)
        columns = (f"{NAME}_{column:04d}" for column in range(states.shape[1]))
        source = (
            f"hidden state {self.config.layer} of {shown_weights(self.config.weights)} at the last sub-word of each"
            f" word, with up to {self.config.context_words} words to its left"
        )
        coverage, middles_s = float(known.mean()) if known.size else 0.0, story.words.middle_s
        return space_per_tr(story, NAME, columns, source, states, middles_s, "sum", per_tr, "semantic", coverage)

    def states(self, words: Sequence[str], label: str = "") -> tuple[Float32Array, BoolArray]:
        """The hidden state of each word, and which words have one.

        The model reads up to `context_words` words and then the word itself, separated by spaces; nothing to its
        right. A transcript all in capitals is read in lower case, for models know capitals as abbreviations.

        Parameters
        ----------
        words : sequence of str
            Words of one story, in order.
        label : str
            What the progress bar shows.

        Returns
        -------
        states : float32 array of shape (n_words, n_layers * hidden_size)
            Of the last sub-word token of each word; zeros for a word without a token.
        known : bool array of shape (n_words,)

        Raises
        ------
        LanguageModelError
            If the model cannot be loaded, has no such layer, or a context is longer than it can read.
        """
        tokenizer, model, layers = self._loaded
        capitals = all(word == word.upper() for word in words)
        words = [word.strip().lower() if capitals else word.strip() for word in words]
        known = np.zeros(len(words), dtype=bool)
        blocks = [np.zeros((0, len(layers) * model.config.hidden_size), dtype=np.float32)]
        firsts = range(0, len(words), _WORDS_PER_BATCH)
        bar = tqdm(firsts, desc=f"{NAME} {label}", unit="batch", leave=False, disable=None if self.progress else True)
        for first in bar:
            rows = range(first, min(first + _WORDS_PER_BATCH, len(words)))
            texts = [" ".join(words[max(0, row - self.config.context_words) : row + 1]) for row in rows]
            encoded = tokenizer(texts, return_offsets_mapping=True)
            hidden = self._hidden(encoded["input_ids"])
            block = np.zeros((len(rows), hidden.shape[-1]), dtype=np.float32)
            for k, (row, text, offsets) in enumerate(zip(rows, texts, encoded["offset_mapping"], strict=True)):
                token = _last_token(offsets, len(text) - len(words[row]), len(text))
                if token is not None:
                    block[k], known[row] = hidden[k, token], True
            blocks.append(block)
        return np.concatenate(blocks[1:] or blocks), known

    def _hidden(self, ids: list[list[int]]) -> Float32Array:
        """Hidden states of the layers, (n_texts, n_tokens, n_layers * hidden_size); texts are padded on the right."""
        import torch

        tokenizer, model, layers = self._loaded
        n_tokens = max(1, *(len(text) for text in ids))
        limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
        most = min(int(limit) for limit in limits if limit)
        if n_tokens > most:
            raise LanguageModelError(
                f"{self.config.context_words} words of context are {n_tokens} tokens, and {self.config.weights} reads"
                f" {most} at most; lower language_model.context_words."
            )
        padding = tokenizer.pad_token_id or 0
        padded = torch.tensor([text + [padding] * (n_tokens - len(text)) for text in ids], device=model.device)
        mask = torch.tensor([[1] * len(text) + [0] * (n_tokens - len(text)) for text in ids], device=model.device)
        with torch.no_grad():
            outputs = model(input_ids=padded, attention_mask=mask, output_hidden_states=True)
        chosen = torch.cat([outputs.hidden_states[layer] for layer in layers], dim=-1)
        return np.asarray(chosen.float().cpu().numpy())

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Sequence[int]]:
        """Tokenizer, model, and the hidden states that are taken."""
        tokenizer, model = load_language_model(self.config.weights)
        return tokenizer, model, self._choose_layers(model.config.num_hidden_layers)

    def _configured_layer(self, n_layers: int) -> list[int]:
        if not -n_layers - 1 <= self.config.layer <= n_layers:
            raise LanguageModelError(
                f"language_model.layer is {self.config.layer}, but {self.config.weights} has the hidden states 0"
                f" (embedding) to {n_layers}; negative ones count from the last, -1."
            )
        return [self.config.layer]


def load_language_model(weights: str) -> tuple[Any, Any]:
    """Tokenizer and model of a folder or hub id, the model in fp32 and eval mode, on the GPU where there is one.

    Raises
    ------
    LanguageModelError
        If there is no such folder, the hub cannot be reached, or it is no text model with a fast tokenizer.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    location, revision = _checked_location(weights)
    asked = {} if revision is None else {"revision": revision}
    try:
        _require_kind(weights, not AutoConfig.from_pretrained(location, **asked).is_encoder_decoder)
        tokenizer = AutoTokenizer.from_pretrained(location, use_fast=True, **asked)
        how = {"dtype": torch.float32, "output_loading_info": True}
        with torch.random.fork_rng(devices=[]), without_bars():
            model, report = AutoModel.from_pretrained(location, **how, **asked)
    except LanguageModelError:
        raise
    except (OSError, ValueError) as error:
        raise _unreachable(weights, error) from error
    except Exception as error:
        if is_from_readers_of_weights(error):
            raise LanguageModelError(f"language model {weights!r}: {what_readers_say(error)}") from error
        raise
    if damage := numbers_damage(model):
        raise LanguageModelError(f"language model {weights!r} is damaged: {damage}. Download it again.")
    _require_kind(weights, model.main_input_name == "input_ids")
    if not tokenizer.is_fast:
        raise LanguageModelError(f"language model {weights!r} has no fast tokenizer, which says where tokens stand.")
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(MAY_BE_MISSING))
    if missing:
        raise LanguageModelError(
            f"language model {weights!r} lacks {len(missing)} parameters, for instance {missing[0]!r}; they would"
            " start at random. Use a complete checkpoint."
        )
    return tokenizer, model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _require_kind(weights: str, fits: bool) -> None:
    if not fits:
        raise LanguageModelError(
            f"language model {weights!r} is of another kind; take a causal or a masked model of text, such as gpt2 or"
            " bert-base-uncased."
        )


def shown_weights(weights: str) -> str:
    """A hub id as it is; of a folder its name, so that what is remembered does not depend on where it lies.

    >>> shown_weights("openai-community/gpt2"), shown_weights("/data/models/gpt2/")
    ('openai-community/gpt2', 'gpt2')
    """
    return Path(weights).name if is_path(weights) else weights


def _checked_location(weights: str) -> tuple[str, str | None]:
    """The folder or hub id, and the revision behind its @."""
    name, revision = split_revision(weights)
    folder = Path(name).expanduser()
    if revision is not None and folder.exists():
        raise LanguageModelError(
            f"language model {weights!r} is the folder {folder}, and a folder has no revision; leave @{revision} out."
        )
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise LanguageModelError(
                f"language model {weights!r}: the folder has no config.json; name the folder in it."
            )
        if damage := folder_damage(folder):
            raise LanguageModelError(f"language model {weights!r} cannot be read: {damage}")
        return str(folder), None
    if folder.exists() or is_path(name):
        raise LanguageModelError(f"language model {weights!r}: there is no such folder. {_how_to_fetch(weights)}")
    return name, revision


def _unreachable(weights: str, error: Exception) -> LanguageModelError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if Path(weights).expanduser().is_dir():
        return LanguageModelError(f"language model {weights!r} cannot be read: {reason}")
    return LanguageModelError(
        f"could not get the language model {weights!r}: {reason} It is no folder here, so it was looked up on the"
        f" model hub. {_how_to_fetch(weights)}"
    )


def _how_to_fetch(weights: str) -> str:
    folder = f"models/{shown_weights(weights).split('/')[-1]}"
    name, revision = ("HUB_ID", None) if is_path(weights) else split_revision(weights)
    hub_id = name if revision is None else f"{name} --revision {revision}"
    return (
        f"Without a network: run 'hf download {hub_id} --local-dir {folder}' on a machine that has one, copy the folder"
        f" (config.json, model.safetensors, tokenizer.json, ...) to {Path(folder).absolute()} here and set"
        f" language_model.weights to ./{folder}."
    )


def _last_token(offsets: Sequence[tuple[int, int]], start: int, stop: int) -> int | None:
    """The last token that holds a character of text[start:stop]; None if there is none."""
    inside = [token for token, (first, last) in enumerate(offsets) if first < stop and last > start]
    return inside[-1] if inside else None
