"""What can be predicted instead of the responses, and how it is made to match them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from brainlit.hints import did_you_mean

Regime = Literal["brain", "permuted", "language_model", "large_speech_model", "stimulus", "pretrained"]
REGIMES: tuple[Regime, ...] = get_args(Regime)
REPRESENTATIONS: tuple[Regime, ...] = ("language_model", "large_speech_model")
"""Regimes whose targets are the hidden states of another model."""

ControlKind = Literal["blocks", "phase", "shift", "other_story"]
Layers = Literal["all"] | tuple[int, ...]


@dataclass(frozen=True)
class ControlConfig:
    """How the regime 'permuted' takes the responses away from the sound; drawn once per run, from the data's seed.

    Parameters
    ----------
    kind : str
        blocks exchanges blocks of time over all tuning rows; phase draws the phases of all frequencies anew, the same
        for all voxels, story by story (spectra and covariances stay); shift turns each story round in a circle;
        other_story gives each story the responses to another one, cut or begun again where the lengths differ.
    block_trs : int
        Length of the blocks of kind blocks, longer than the responses' autocorrelation.
    min_shift_trs : int
        Smallest shift of kind shift, either way round the circle.
    draw : int
        Which draw from the data's seed, counted from 1; draws are independent of each other. Several say how much of a
        control's result is its permutation's.
    """

    kind: ControlKind = "blocks"
    block_trs: int = 10
    min_shift_trs: int = 30
    draw: int = 1

    def __post_init__(self) -> None:
        require_choice("control.kind", self.kind, get_args(ControlKind))
        for name in ("block_trs", "min_shift_trs"):
            if getattr(self, name) < 1:
                raise ValueError(f"control.{name} is {getattr(self, name)}; give at least 1 TR.")
        if self.draw < 1:
            raise ValueError(f"control.draw is {self.draw}; draws are counted from 1.")


@dataclass(frozen=True)
class LanguageTargetsConfig:
    """The text language model whose hidden states the regime 'language_model' predicts.

    Parameters
    ----------
    weights : str
        Hub id (with @REVISION, if a certain one is meant) or local folder of a causal or masked language model
        (gpt2-medium, say), or tiny: a small one that first
        learns the grammar of the demo's stories, once, then cached.
    layers : 'all' or tuple of int
        Hidden states to put side by side: 0 is the embedding, -1 the last.
    context_words : int
        Words to the left that the model sees, at most.
    per_tr : str
        sum or mean of the words of each row.
    seed : int
        Of the tiny model.
    """

    weights: str = "tiny"
    layers: Layers = "all"
    context_words: int = 20
    per_tr: Literal["sum", "mean"] = "sum"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("language_model.weights is empty; give tiny, a hub id such as gpt2-medium, or a folder.")
        if self.context_words < 0:
            raise ValueError(f"language_model.context_words is {self.context_words}; it is 0 or more.")
        require_choice("language_model.per_tr", self.per_tr, ("sum", "mean"))
        _check_layers("language_model", self.layers)


@dataclass(frozen=True)
class SpeechTargetsConfig:
    """The speech model whose hidden states the regime 'large_speech_model' predicts, averaged per row.

    Parameters
    ----------
    family : str
        Name of the speech family, as for the backbone that is tuned.
    weights : str
        Hub id, size name (either with @REVISION), folder or tiny-large; `medium` of whisper in arXiv 2410.09230.
    layers : 'all' or tuple of int
        Hidden states to put side by side: 0 goes into the first layer, -1 is the last.
    batch_size : int
        Windows per forward pass.
    seed : int
        Of tiny and random weights.
    """

    family: str = "wav2vec"
    weights: str = "tiny-large"
    layers: Layers = "all"
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"speech_model.batch_size is {self.batch_size}; give at least 1.")
        _check_layers("speech_model", self.layers)


@dataclass(frozen=True)
class RepresentationConfig:
    """How hidden states of another model become targets that match the responses.

    Parameters
    ----------
    dimension : 'voxels', 'own' or int
        voxels: for each subject as many targets as the subject has target voxels, by a fixed random projection, and
        with the subject's own stories, so that head, loss and data are those of regime brain. own: the hidden states
        themselves, as one set of targets under the regime's name. A number: so many projections of them.
    haemodynamic : bool
        Pass them through the canonical haemodynamic response, so that they lag behind the sound and are as slow as
        responses are; the delays of the head then mean the same.
    seed : int
        Of the projection.
    """

    dimension: Literal["voxels", "own"] | int = "voxels"
    haemodynamic: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dimension not in ("voxels", "own") and not (
            isinstance(self.dimension, int) and not isinstance(self.dimension, bool) and self.dimension > 0
        ):
            raise ValueError(
                f"representation.dimension is {self.dimension!r}; give voxels (match the responses), own (all hidden"
                " states) or a positive number of targets."
            )


def layer_numbers(what: str, layers: Layers, n_layers: int) -> list[int]:
    """The hidden states asked for, counted from 0.

    Raises
    ------
    ValueError
        If the model has no such hidden state, or one comes twice.
    """
    if layers == "all":
        return list(range(n_layers + 1))
    for layer in layers:
        if not -n_layers - 1 <= int(layer) <= n_layers:
            raise ValueError(
                f"{what}.layers holds {layer}, but the model has the hidden states 0 (below the first layer) to"
                f" {n_layers}; negative ones count from the last, -1."
            )
    numbers = [int(layer) % (n_layers + 1) for layer in layers]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{what}.layers is {tuple(layers)}, which names a hidden state twice (of 0 to {n_layers}).")
    return numbers


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ValueError with the nearest choice if the value is none of them."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}. {did_you_mean(value, choices)}")


def _check_layers(what: str, layers: Layers) -> None:
    if (isinstance(layers, str) and layers != "all") or not layers:
        raise ValueError(f"{what}.layers is {layers!r}; give all, or numbers of hidden states such as [-1].")
