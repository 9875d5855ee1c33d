"""What a backbone is asked to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class BackboneConfig:
    """Which speech model to start from, and what is switched on in it while it trains.

    Dropout, layer drop and SpecAugment are off by default. `from_pretrained` hands back a model in eval mode and
    Lightning keeps it so, hence published brain-tuning ran without them; here that is said and logged.

    Parameters
    ----------
    family : str
        Name of the speech family: wav2vec.
    weights : str
        tiny (a small model that first learns phones on synthetic speech, once, then cached), a hub id such as
        facebook/wav2vec2-base, a local save_pretrained folder, or random:NAME for random weights, where NAME is
        tiny, base, a folder or a hub id whose architecture is taken.
    seed : int
        Seed of random weights and of the tiny model's training.
    dropout : float
        Probability in all dropouts of the backbone; they act in train mode only, and are slow on CPU.
    layerdrop : float
        Probability of leaving out a layer in a step; acts in train mode only.
    spec_augment : bool
        Mask stretches of time and features as the checkpoint's own settings say; acts in train mode only.
    positions : {truncated, padded}
        Whisper's alone. padded: silence is added up to 30 s and all of it encoded, as published. truncated: only the
        window's own frames are encoded, several times cheaper for short windows. Silence is pooled in neither.
    """

    family: str = "wav2vec"
    weights: str = "tiny"
    seed: int = 0
    dropout: float = 0.0
    layerdrop: float = 0.0
    spec_augment: bool = False
    positions: Literal["truncated", "padded"] = "truncated"

    def __post_init__(self) -> None:
        for name in ("dropout", "layerdrop"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"backbone {name} is {value}; it is a probability, 0 <= {name} < 1.")
        if self.positions not in ("truncated", "padded"):
            raise ValueError(f"backbone positions are {self.positions!r}; they are 'truncated' or 'padded'.")
        if self.positions == "padded" and self.family != "whisper":
            raise ValueError(
                f"backbone positions are 'padded', and only whisper pads; leave them out for {self.family!r}."
            )
        if not self.weights:
            raise ValueError("backbone weights are empty; give tiny, a hub id, a folder or random:NAME.")
