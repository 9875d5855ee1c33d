"""The interface behind which every speech family stands."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.frames import FrameGrid
from brainlit.timebase import SAMPLE_RATE_HZ

SOUND_KEY = "brainlit_sound"
"""Entry of the model's configuration that keeps what its feature extractor does otherwise than published ones."""
_NOT_ARCHITECTURE = ("transformers_version", "dtype", "torch_dtype", "architectures")


def require(extractor: Any, name: str, value: Any, why: str) -> None:
    """Refuse a setting of a feature extractor that is not the value needed here; why: what the value is needed for."""
    found = getattr(extractor, name)
    if found != value:
        raise ValueError(f"its {name} is {found!r} and must be {value!r}, for {why}")


class FrontEnd(NamedTuple):
    """What the front end (convolutions over the waveform, or a log-mel spectrogram) makes of a batch of windows.

    It is frozen in brain-tuning, so it is a function of the sound alone and may be kept between epochs.

    Attributes
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

    A family says in class attributes what its classes and settings in transformers are called, and in methods where the
    parts of its model are and how they run; what most families do alike is written here.

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
    dropouts : tuple of str
        What all dropouts of the model are called in its config.json.
    layerdrop : str
        What layer drop is called there.
    never_run : tuple of str
        Parts of the published model that no forward pass here uses; a checkpoint may lack them, each as a whole.
    extractor : str
        The class in transformers that prepares sound for its published models.
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
    frames : FrameGrid
        When the frames happen; a family whose frames are no such grid has `frame_times_s` and `frame_mask` of its own.
    frame_rate_hz : float
        Frames per second.
    sample_rate_hz : int
        Rate of the audio it expects.
    max_samples : int or None
        Longest window it can take; None where there is no limit.
    uses_attention_mask : bool
        Whether frames of padding are kept from being attended to.
    gradient_checkpointing : bool
        Keep only what goes into each layer and compute the layer again in the backward pass.
    """

    family: ClassVar[str]
    model_type: ClassVar[str]
    class_names: ClassVar[tuple[str, str]]
    dropouts: ClassVar[tuple[str, ...]]
    layerdrop: ClassVar[str] = "layerdrop"
    never_run: ClassVar[tuple[str, ...]] = ()
    extractor: ClassVar[str] = "Wav2Vec2FeatureExtractor"
    lora_targets: ClassVar[tuple[str, ...]]
    tiny_recipe: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    hidden_size: int
    n_layers: int
    n_features: int
    frames: FrameGrid
    frame_rate_hz: float
    sample_rate_hz: int = SAMPLE_RATE_HZ
    max_samples: int | None = None
    uses_attention_mask: bool = True

    def __init__(self, model: Any, config: BackboneConfig, origin: dict[str, Any]) -> None:
        super().__init__()
        if getattr(model.config, "add_adapter", False):
            raise ValueError(
                f"weights {config.named!r} have an adapter that changes the frame rate after the transformer; it is"
                " not supported. Use a checkpoint without one (add_adapter: false)."
            )
        self.model = model
        self.config = config
        self.origin = origin
        self.gradient_checkpointing = False
        self.feature_encoder_frozen = False
        self.n_layers = len(self.layers)
        if self.mask_embedding is not None:
            self.mask_embedding.requires_grad_(config.spec_augment)

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
    def sound_settings(cls, extractor: Any, said: Mapping[str, Any], config: Any) -> dict[str, Any]:
        """What a checkpoint's own feature extractor does otherwise than this class where nothing is said.

        Parameters
        ----------
        extractor : feature extractor of transformers
            Of the class that `extractor` names; its sampling rate is checked already.
        said : mapping
            What its file says.
        config : configuration of the model

        Raises
        ------
        ValueError
            For what cannot be done here, as the end of "the extractor of weights ... does not fit: ".
        """

    @classmethod
    def switches(cls, config: BackboneConfig) -> dict[str, Any]:
        """Settings of the model that the backbone's config decides."""
        dropouts = dict.fromkeys(cls.dropouts, config.dropout)
        return {**dropouts, cls.layerdrop: config.layerdrop, "apply_spec_augment": config.spec_augment}

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
            On the backbone's device; prepared here as the checkpoint's feature extractor prepares it, clip by clip.
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

    def frame_times_s(self, n_samples: int) -> Tensor:
        """Middle of each frame of n_samples of audio, in seconds from the first; float32, shape (n_frames,)."""
        return self.frames.times_s(n_samples)

    def encoded_samples(self, n_samples: int) -> int:
        """Samples that are encoded for a window of n_samples: more where silence is added to it."""
        return n_samples

    def frame_mask(self, audio_mask: Tensor) -> Tensor:
        """Frames that hear nothing but real sound: bool (batch, n_samples) -> bool (batch, n_frames)."""
        return self.frames.mask(audio_mask)

    @property
    def sound(self) -> Mapping[str, Any]:
        """What the checkpoint's feature extractor does otherwise than the family's published ones."""
        found: Mapping[str, Any] = getattr(self.model.config, SOUND_KEY, None) or {}
        return found

    @property
    def encoder(self) -> Any:
        """The transformer, with its positions where it has them."""
        return self.model.encoder

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The transformer layers, from the bottom."""
        found: Sequence[nn.Module] = self.encoder.layers
        return found

    @property
    def masked_part(self) -> Any:
        """The module of transformers that holds the mask embedding and does SpecAugment."""
        return self.model

    @property
    def mask_embedding(self) -> nn.Parameter | None:
        """What stands in for a hidden frame; None where the checkpoint has none."""
        embedding: nn.Parameter | None = getattr(self.masked_part, "masked_spec_embed", None)
        return embedding

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
            "weights": self.config.named,
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

    def attended(self, frame_mask: Tensor) -> Tensor | None:
        """Frames that may be attended to, None for all; a clip of nothing but padding attends to itself."""
        if not self.uses_attention_mask:
            return None
        return frame_mask | ~frame_mask.any(1, keepdim=True)

    def masked(self, hidden: Tensor, attended: Tensor | None, hidden_from: Tensor | None) -> Tensor:
        """Projected frames with those of hidden_from behind the mask embedding, or else SpecAugment; padding is 0."""
        if hidden_from is None:
            hidden = self.masked_part._mask_hidden_states(hidden, attention_mask=attended)
        elif self.mask_embedding is None:
            raise ValueError(
                f"weights {self.config.named!r} have no mask embedding (mask_time_prob is 0 in their config), so"
                " nothing can be hidden from them; masked prediction needs another checkpoint."
            )
        else:
            hidden = torch.where(hidden_from[:, :, None], self.mask_embedding.to(hidden.dtype), hidden)
        return hidden if attended is None else hidden.masked_fill(~attended[:, :, None], 0.0)

    def run_layers(self, hidden: Tensor, attended: Tensor | None, **options: Any) -> list[Tensor]:
        """What goes into the first layer, and what comes out of each; options go to every layer."""
        from transformers.masking_utils import create_bidirectional_mask

        options["attention_mask"] = create_bidirectional_mask(
            config=self.model.config, inputs_embeds=hidden, attention_mask=attended
        )
        states = [hidden]
        for layer in self.layers:
            after = states[-1] if self._left_out() else self._run(layer, states[-1], **options)
            states.append(after[0] if isinstance(after, tuple) else after)
        return states

    def _left_out(self) -> bool:
        """Whether layer drop leaves out the next layer; draws a number only where it is on."""
        return self.training and self.config.layerdrop > 0 and float(torch.rand(())) < self.config.layerdrop

    def _run(self, layer: Callable[..., Any], hidden: Tensor, **options: Any) -> Any:
        """One layer, computed again in the backward pass where gradient checkpointing is on."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, hidden, use_reentrant=False, **options)
        return layer(hidden, **options)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for the time being; each part gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
