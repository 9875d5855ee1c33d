"""What every objective that needs no brain looks like from outside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from brainlit.backbones import FrontEnd, SpeechBackbone

Batch = Mapping[str, Any]


class Objective(nn.Module, ABC):
    """A loss on windows of sound, with the parameters that it needs beside the backbone's.

    All that is learned or fitted is in its state_dict. What it draws (masks, distractors, noise) depends on its seed,
    the step and the windows alone, never on the global random state; in eval mode not on the step either, so that
    validation measures the same thing each time.
    """

    needs_mask_embedding: ClassVar[bool] = False
    """Whether it hides frames, so that the backbone's mask embedding has to be there and to be trained."""

    @abstractmethod
    def forward(
        self,
        backbone: SpeechBackbone,
        front: FrontEnd,
        batch: Batch,
        step: int,
        states: Sequence[Tensor] | None = None,
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
