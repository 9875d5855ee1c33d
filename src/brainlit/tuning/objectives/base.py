"""What every objective that needs no brain looks like from outside."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from brainlit.backbones import FrontEnd, SpeechBackbone

Batch = Mapping[str, Any]


class Objective(nn.Module, ABC):
    """A loss on windows of sound, with the parameters that it needs beside the backbone's.

    All that is learned or fitted is in its state_dict. What it draws (masks, distractors, noise) depends on its seed,
    the step and the windows alone, never on the global random state; in eval mode not on the step either, so that
    validation measures the same thing each time.
    """

    @abstractmethod
    def forward(
        self, backbone: SpeechBackbone, front: FrontEnd, batch: Batch, step: int, states: Sequence[Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The loss of a batch under `loss`, and parts to log, all of shape ().

        Parameters
        ----------
        front : FrontEnd
            Of the batch's sound.
        batch : mapping
            As the data module gives it.
        step : int
            Optimiser steps so far.
        states : sequence of Tensors, or None
            Hidden states of the same batch with nothing hidden, where they are known already.
        """

    def prepare(self, backbone: SpeechBackbone, batches: Iterable[Batch]) -> None:
        """Fit what has to be fitted on training windows before the first step; does nothing when that was done."""


# --- What the backbone is trained for ---


WEIGHTS = ("targets", "stimulus", "self_supervised", "ctc")
AT_LEAST_ONE = ("mask_length", "n_negatives", "n_groups", "n_vars", "kmeans_frames")


@dataclass(frozen=True)
class ObjectiveConfig:
    """How much each loss counts, and how the losses that need no brain are set up.

    Stimulus-tuning, the control for having heard the stories at all, is `targets: 0` with `stimulus: 1`; several
    weights above 0 add the losses up.

    Contrastive loss: wav2vec 2.0 (arXiv 2006.11477, eq. 3 and 4). Masked prediction of k-means clusters: HuBERT (arXiv
    2106.07447, section II), also for WavLM (arXiv 2110.13900) without the overlaid speakers and noise of its
    denoising, for UniSpeech-SAT, and for data2vec, which was trained on a moving average of itself instead. CTC:
    Graves et al. 2006.

    Parameters
    ----------
    targets : float
        Weight of the loss on the targets (voxels, or another model's states).
    stimulus : float
        Weight of whichever of the next two the family was trained with: self_supervised, or ctc for whisper, speecht5
        and w2v-bert, whose own losses cannot be continued here.
    self_supervised : float
        Weight of the family's self-supervised loss: wav2vec, hubert, wavlm, data2vec, unispeech-sat.
    ctc : float
        Weight of the CTC loss on the words of the window, letter by letter; any family.
    mask_prob : float or None
        Frames in masked spans as a share of all, were there no overlaps; None: 0.65 for wav2vec, 0.8 for the others.
    mask_length : int or None
        Frames per masked span; None: 0.2 s of frames (10 in published models).
    n_negatives : int
        Distractors per masked frame of the contrastive loss, from the same window.
    temperature : float
        What similarities are divided by, in the contrastive loss and in masked prediction.
    diversity_weight : float
        Weight of the codebook diversity in the contrastive loss.
    n_groups : int or None
        Codebooks of the contrastive loss; None: what the checkpoint says (2).
    n_vars : int or None
        Entries in each codebook; None: what the checkpoint says (320).
    gumbel_start : float
        Temperature of the Gumbel softmax at first: it is start x decay^step, not below stop. A published quantiser has
        come to the end of this: give 0.5 to go on from there.
    gumbel_stop : float
        Lowest temperature of the Gumbel softmax.
    gumbel_decay : float
        Factor of that temperature with every optimiser step.
    n_clusters : int or None
        Clusters of masked prediction; None: 500, or 100 for models of fewer than 12 layers.
    kmeans_layer : int or None
        Hidden state of the untuned model that is clustered; None: the middle one (6 of 12, as in HuBERT).
    kmeans_frames : int
        Frames to find the clusters on, at most.
    characters : str or None
        Alphabet of CTC, beginning with a space; None: the letters of the training texts.
    """

    targets: float = 1.0
    stimulus: float = 0.0
    self_supervised: float = 0.0
    ctc: float = 0.0
    mask_prob: float | None = None
    mask_length: int | None = None
    n_negatives: int = 100
    temperature: float = 0.1
    diversity_weight: float = 0.1
    n_groups: int | None = None
    n_vars: int | None = None
    gumbel_start: float = 2.0
    gumbel_stop: float = 0.5
    gumbel_decay: float = 0.999995
    n_clusters: int | None = None
    kmeans_layer: int | None = None
    kmeans_frames: int = 50_000
    characters: str | None = None

    def __post_init__(self) -> None:
        for name in (*WEIGHTS, "diversity_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"objective.{name} is {value}; a weight is 0 or more.")
        if not any(getattr(self, name) for name in WEIGHTS):
            raise ValueError(
                f"objective weights {', '.join(WEIGHTS)} are all 0, so nothing is trained; give one of them a weight,"
                " or choose regime pretrained to measure the untuned model."
            )
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"objective.{name} is {value}; give at least 1.")
        if self.n_clusters is not None and self.n_clusters < 2:
            raise ValueError(f"objective.n_clusters is {self.n_clusters}; telling clusters apart needs at least 2.")
        if self.mask_prob is not None and not 0 < self.mask_prob <= 1:
            raise ValueError(f"objective.mask_prob is {self.mask_prob}; it is a share of the frames, above 0 up to 1.")
        if not self.temperature > 0:
            raise ValueError(f"objective.temperature is {self.temperature}; it divides similarities: above 0.")
        if not 0 < self.gumbel_stop <= self.gumbel_start:
            raise ValueError(
                f"objective.gumbel_start is {self.gumbel_start} and gumbel_stop {self.gumbel_stop}; the temperature"
                " falls from the one to the other and both are above 0."
            )
        if not 0 < self.gumbel_decay <= 1:
            raise ValueError(
                f"objective.gumbel_decay is {self.gumbel_decay}; it is a factor per step, above 0 up to 1."
            )
        if self.characters is not None:
            check_characters(self.characters)

    def gumbel_temperature(self, step: int) -> float:
        """Temperature of the Gumbel softmax at an optimiser step (arXiv 2006.11477, section 4.2).

        >>> config = ObjectiveConfig()
        >>> [round(config.gumbel_temperature(step), 3) for step in (0, 100_000, 1_000_000)]
        [2.0, 1.213, 0.5]
        """
        return max(self.gumbel_start * self.gumbel_decay**step, self.gumbel_stop)


def check_characters(characters: str) -> str:
    """The alphabet itself.

    Raises
    ------
    ValueError
        If it does not begin with a space, has nothing else, or has something twice.
    """
    if characters[:1] != " " or len(characters) < 2 or len(set(characters)) < len(characters):
        raise ValueError(
            f"objective.characters are {characters!r}; the alphabet of CTC begins with a space, which separates words,"
            ' and has each letter once, such as " \'abcdefghijklmnopqrstuvwxyz".'
        )
    return characters
