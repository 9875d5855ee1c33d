"""What a backbone is asked to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from brainlit.backbones.addresses import RANDOM_PREFIX, asked_revision, check_subfolder, named

Positions: TypeAlias = Literal["auto", "truncated", "padded"]


@dataclass(frozen=True)
class BackboneConfig:
    """Which speech model to start from, and what is switched on in it while it trains.

    Dropout, layer drop and SpecAugment are off by default. `from_pretrained` hands back a model in eval mode and
    Lightning keeps it so, hence published brain-tuning ran without them; here that is said and logged.

    Parameters
    ----------
    family : str
        Name of the speech family: wav2vec (2.0), hubert, wavlm, data2vec, unispeech-sat, whisper, speecht5 (its speech
        encoder) or w2v-bert (2.0).
    weights : str
        tiny: a small model (0.9 million parameters in wav2vec) that first learns phones on synthetic speech, in a
        minute or two, then is kept in the cache. tiny-large: one of 4 times that size, for offline experiments.
        A size: base, large and others (`backbones.families.FAMILIES`), which stands for a hub id. A hub id, such as
        facebook/wav2vec2-base: looked for in $BRAINLIT_WEIGHTS/ORG/NAME (or weights/ORG/NAME in brainlit's cache), then
        in the hub's own cache, then on the hub; with @REVISION behind it, that branch, tag or commit. A local
        save_pretrained folder. A hub id or folder of a LoRA adapter that peft saved: its base model, with the adapter
        merged. Or random:NAME for random weights, where NAME is any of these and only the architecture is taken; no
        download for tiny and the common sizes.
    seed : int
        Seed of random weights and of the tiny model's training.
    dropout : float
        Probability in all dropouts of the backbone; they act in train mode only, and are slow on CPU.
    layerdrop : float
        Probability of leaving out a layer in a step; acts in train mode only.
    spec_augment : bool
        Mask stretches of time and features as the checkpoint's own settings say; acts in train mode only.
    positions : {auto, truncated, padded}
        Whisper's alone. padded: silence is added up to 30 s and all of it encoded, as published. truncated: only the
        window's own frames are encoded, several times cheaper for short windows. auto: padded for windows shorter than
        half of what the model hears (15 s), as clips and single words are, whose truncated states are far from the
        published ones; truncated for others. Silence is pooled in none.
    revision : str or None
        Branch, tag or commit of the hub, in place of @REVISION behind the hub id. A folder has none.
    subfolder : str or None
        Folder inside that of the weights, or inside their repository on the hub, that holds the model.
    adapter_base : str or None
        Of an adapter alone: the weights that it changes, where they are elsewhere than its adapter_config.json says.
    """

    family: str = "wav2vec"
    weights: str = "tiny"
    seed: int = 0
    dropout: float = 0.0
    layerdrop: float = 0.0
    spec_augment: bool = False
    positions: Positions = "auto"
    revision: str | None = None
    subfolder: str | None = None
    adapter_base: str | None = None

    def __post_init__(self) -> None:
        for name in ("dropout", "layerdrop"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"backbone {name} is {value}; it is a probability, 0 <= {name} < 1.")
        if self.positions not in get_args(Positions):
            raise ValueError(f"backbone positions are {self.positions!r}; they are 'auto', 'truncated' or 'padded'.")
        if self.positions == "padded" and self.family != "whisper":
            raise ValueError(
                f"backbone positions are 'padded', and only whisper pads; leave them out for {self.family!r}."
            )
        if not self.weights:
            raise ValueError(
                "backbone weights are empty; give tiny, a size such as base, a hub id, a folder or random:NAME."
            )
        asked_revision(self.weights.removeprefix(RANDOM_PREFIX), self.revision)
        check_subfolder(self.subfolder)

    @property
    def named(self) -> str:
        """The weights with revision, subfolder and an adapter's base, where they are given: what tells models apart."""
        name = named(self.weights, self.revision, self.subfolder)
        return f"{name}, adapter of {self.adapter_base}" if self.adapter_base else name

    def random_like(self, folder: str | Path) -> BackboneConfig:
        """The same with random weights of the architecture that a folder's config.json says."""
        return replace(self, weights=f"{RANDOM_PREFIX}{folder}", revision=None, subfolder=None, adapter_base=None)
