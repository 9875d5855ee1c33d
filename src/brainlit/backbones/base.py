"""The interface behind which every speech family stands."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from brainlit.backbones.config import BackboneConfig

_NOT_ARCHITECTURE = ("transformers_version", "dtype", "torch_dtype", "architectures")


class FrontEnd(NamedTuple):
    """What the front end (convolutions over the waveform, or a log-mel spectrogram) makes of a batch of windows.

    It is frozen in brain-tuning, so it is a function of the sound alone and may be kept between epochs.

    Parameters
    ----------
    features : float Tensor of shape (batch, n_frames, n_features)
    frame_mask : bool Tensor of shape (batch, n_frames)
        True for frames that hear nothing but real sound. The others must not be pooled.
    frame_times_s : float32 Tensor of shape (n_frames,)
        Middle of each frame's receptive field, in seconds from the window's first sample.
    """

    features: Tensor
    frame_mask: Tensor
    frame_times_s: Tensor


class Encoded(NamedTuple):
    """What a backbone makes of a batch of windows.

    Parameters
    ----------
    hidden_states : tuple of n_layers + 1 Tensors of shape (batch, n_frames, hidden_size)
        Entry 0 goes into the first layer, entry k comes out of layer k; the last is the model's output.
    frame_mask, frame_times_s : Tensors
        As in FrontEnd.
    """

    hidden_states: tuple[Tensor, ...]
    frame_mask: Tensor
    frame_times_s: Tensor


class SpeechBackbone(nn.Module, ABC):
    """A speech model that turns windows of sound into hidden states with known times.

    Parameters
    ----------
    model : transformers model
        The whole published model: what `save_pretrained` writes when a tuned one is exported.
    config : BackboneConfig
        What was asked for.
    origin : mapping
        Where the weights came from, for the record; plain JSON values.

    Attributes
    ----------
    family : str
        Name in BACKBONES.
    model_type : str
        What config.json of its weights must say.
    class_names : tuple of two str
        The configuration's and the model's class in transformers.
    lora_targets : tuple of str
        Names (last parts) of the linear maps of attention, which LoRA adapts by default.
    tiny_recipe : mapping
        Settings of TinyRecipe that its tiny model learns better with than with the common ones.
    hidden_size : int
        Features of a hidden state.
    n_layers : int
        Transformer layers; there is one hidden state more.
    n_features : int
        Features of a frame of the front end.
    frame_rate_hz : float
        Frames per second.
    sample_rate_hz : int
        Rate of the audio it expects.
    max_samples : int or None
        Longest window it can take; None where there is no limit.
    gradient_checkpointing : bool
        Keep only what goes into each layer and compute the layer again in the backward pass.
    """

    family: ClassVar[str]
    model_type: ClassVar[str]
    class_names: ClassVar[tuple[str, str]]
    lora_targets: ClassVar[tuple[str, ...]]
    tiny_recipe: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    hidden_size: int
    n_layers: int
    n_features: int
    frame_rate_hz: float
    sample_rate_hz: int
    max_samples: int | None = None

    def __init__(self, model: Any, config: BackboneConfig, origin: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.origin = origin
        self.gradient_checkpointing = False
        self.feature_encoder_frozen = False

    @classmethod
    def transformers_classes(cls) -> tuple[Any, Any]:
        """The configuration's and the model's class."""
        import transformers

        config_class, model_class = (getattr(transformers, name) for name in cls.class_names)
        return config_class, model_class

    @classmethod
    def refusal(cls, settings: Mapping[str, Any]) -> str | None:
        """Why a checkpoint of this model_type cannot be used, as the end of "weights ... "; None if it can.

        Parameters
        ----------
        settings : mapping
            Its config.json.
        """
        return None

    @classmethod
    @abstractmethod
    def switches(cls, config: BackboneConfig) -> dict[str, Any]:
        """Settings of the model that the backbone's config decides."""

    @classmethod
    @abstractmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the family's tiny model as its config.json would hold them, model_type among them."""

    @abstractmethod
    def front_end(self, audio: Tensor, audio_mask: Tensor) -> FrontEnd:
        """What the frozen part makes of a batch of windows; without gradients once it is frozen.

        Parameters
        ----------
        audio : int16 or floating Tensor of shape (batch, n_samples)
            On the backbone's device; normalised here, clip by clip.
        audio_mask : bool Tensor of shape (batch, n_samples)
            True where there is sound.

        Raises
        ------
        ValueError
            If the windows are too short or too long for the model.
        """

    @abstractmethod
    def trunk(self, features: Tensor, frame_mask: Tensor, hidden_from: Tensor | None = None) -> tuple[Tensor, ...]:
        """The trained part: (batch, n_frames, n_features) -> n_layers + 1 tensors (batch, n_frames, hidden_size).

        Parameters
        ----------
        hidden_from : bool Tensor of shape (batch, n_frames), or None
            Frames to hide from the transformer behind the model's mask embedding, for masked prediction.

        Raises
        ------
        ValueError
            If frames are to be hidden and the family knows no mask embedding.
        """

    @abstractmethod
    def frame_times_s(self, n_samples: int) -> Tensor:
        """Middle of each frame of n_samples of audio, in seconds from the first; float32, shape (n_frames,)."""

    @abstractmethod
    def frame_mask(self, audio_mask: Tensor) -> Tensor:
        """Frames that hear nothing but real sound: bool (batch, n_samples) -> bool (batch, n_frames)."""

    @property
    @abstractmethod
    def layers(self) -> Sequence[nn.Module]:
        """The transformer layers, from the bottom."""

    @abstractmethod
    def front_end_modules(self) -> Sequence[nn.Module]:
        """What `freeze_feature_encoder` freezes."""

    def encode(self, audio: Tensor, audio_mask: Tensor) -> Encoded:
        """Hidden states of a batch of windows: front end, then trunk."""
        front = self.front_end(audio, audio_mask)
        return Encoded(self.trunk(front.features, front.frame_mask), front.frame_mask, front.frame_times_s)

    def front_end_settings(self) -> str:
        """What decides the front end's output besides its weights and the sound."""
        return json.dumps(self.architecture(), sort_keys=True, default=str)

    def freeze_feature_encoder(self) -> None:
        """Freeze the front end; it then runs without gradients."""
        for module in self.front_end_modules():
            module.requires_grad_(False)
        self.feature_encoder_frozen = True

    def restore_description(self, config: BackboneConfig, origin: dict[str, Any]) -> None:
        """Say where the weights really came from, after those of a tuned checkpoint were loaded into random ones."""
        self.config, self.origin = config, origin

    def describe(self) -> dict[str, Any]:
        """Where the weights came from, the architecture and every switch, as plain JSON values."""
        return {
            "family": self.family,
            "weights": self.config.weights,
            "origin": self.origin,
            "hidden_size": self.hidden_size,
            "n_layers": self.n_layers,
            "frame_rate_hz": self.frame_rate_hz,
            "sample_rate_hz": self.sample_rate_hz,
            "n_parameters": sum(parameter.numel() for parameter in self.parameters()),
            "mode": "train" if self.training else "eval",
            "dropout": self.config.dropout,
            "layerdrop": self.config.layerdrop,
            "spec_augment": self.config.spec_augment,
            "feature_encoder_frozen": self.feature_encoder_frozen,
            "gradient_checkpointing": self.gradient_checkpointing,
            "architecture": self.architecture(),
        }

    def architecture(self) -> dict[str, Any]:
        """Settings of the model as its config.json would hold them; enough to build it again."""
        settings = json.loads(self.model.config.to_json_string(use_diff=True))
        return {key: value for key, value in settings.items() if key not in _NOT_ARCHITECTURE and key[0] != "_"}

    def _left_out(self) -> bool:
        """Whether layer drop leaves out the next layer; draws a number only where it is on."""
        return self.training and self.config.layerdrop > 0 and float(torch.rand(())) < self.config.layerdrop

    def _run(self, layer: Callable[..., Any], hidden: Tensor, **options: Any) -> Any:
        """One layer, computed again in the backward pass where gradient checkpointing is on."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, hidden, use_reentrant=False, **options)
        return layer(hidden, **options)
