"""What wav2vec 2.0 and its kin share: strided convolutions over the waveform, then a transformer over their frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from brainlit.backbones.base import FrontEnd, SpeechBackbone, require
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.frames import FrameGrid, normalise_clips, real_sound

# --- Strided convolutions as matrix products: the same numbers, several times faster on a CPU ---
#
# transformers' layer-normalised convolutions swap time and channels twice per layer, and most of a training step of the
# tiny backbone goes into copying and into activations over memory that is not contiguous. Here the layout never
# changes: time comes before channels.


def can_run(config: Any) -> bool:
    """Whether convolutions with this configuration have the form that `conv_features` computes.

    Layer-normalised, as data2vec's always are without saying so, and each kernel a multiple of its stride.
    """
    shapes = zip(config.conv_kernel, config.conv_stride, strict=True)
    return getattr(config, "feat_extract_norm", "layer") == "layer" and all(
        kernel % stride == 0 for kernel, stride in shapes
    )


def conv_features(feature_extractor: Any, sound: Tensor) -> Tensor:
    """What transformers' feature extractor computes, transposed: (batch, n_samples) -> (batch, n_frames, conv_size)."""
    hidden = sound[:, :, None]
    for layer in feature_extractor.conv_layers:
        stride = layer.conv.stride[0]
        hidden = layer.activation(layer.layer_norm(strided_conv(hidden, layer.conv.weight, layer.conv.bias, stride)))
    return hidden


def strided_conv(signal: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Convolution of (batch, n_times, n_in) with weight (n_out, n_in, kernel) -> (batch, n_frames, n_out).

    Cut into blocks of `stride` times, a kernel of m blocks is m products of the block matrix, added with shifts.
    """
    n_batch, n_times, n_in = signal.shape
    n_out, _, kernel = weight.shape
    n_blocks = kernel // stride
    n_frames = (n_times - kernel) // stride + 1
    if n_in == 1:
        return functional.linear(signal[:, :, 0].unfold(1, kernel, stride), weight[:, 0], bias)
    # Kernel tap m * stride + r meets time r of block frame + m: one product per m, all in one matrix, then added.
    # Autograd goes back through slices and products alone, so gradients are those of the convolution.
    blocks = signal[:, : (n_frames + n_blocks - 1) * stride].reshape(n_batch, -1, stride * n_in)
    taps = weight.view(n_out, n_in, n_blocks, stride).permute(2, 0, 3, 1).reshape(n_blocks * n_out, stride * n_in)
    products = functional.linear(blocks, taps)
    total = products[:, :n_frames, :n_out]
    for j in range(1, n_blocks):
        total = total + products[:, j : j + n_frames, j * n_out : (j + 1) * n_out]
    return total if bias is None else total + bias


TINY_SETTINGS: dict[str, Any] = {
    "conv_dim": [48, 64, 96, 96, 128],
    "conv_stride": [10, 4, 4, 2, 2],
    "conv_kernel": [20, 8, 8, 4, 4],
    "num_feat_extract_layers": 5,
    "feat_extract_norm": "layer",
    "conv_bias": False,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.05,
    "mask_time_length": 5,
}
"""Of the tiny models; kernels that are multiples of their strides run fast on a CPU (see conv_features)."""


class ConvolutionalBackbone(SpeechBackbone):
    """A waveform model of two separate parts: convolutions over the sound, and a transformer over their frames.

    Checkpoints whose convolutions normalise over the group (the base models) were trained on zero-padded clips without
    an attention mask and are run so; those that normalise over the layer (the large ones, the tiny ones) get a mask.
    Frames of padding are never pooled in either.

    Each clip is normalised where the folder's own feature extractor does so, and in models without one; whether there
    is a mask, a folder can also say itself.

    Parameters are those of SpeechBackbone.
    """

    dropouts = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
    lora_targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "out_proj")
    normalises_unsaid: ClassVar[bool] = True
    """Whether clips are normalised where no extractor says so."""

    def __init__(self, model: Any, config: BackboneConfig, origin: dict[str, Any]) -> None:
        super().__init__(model, config, origin)
        settings = model.config
        self.frames = FrameGrid(tuple(settings.conv_kernel), tuple(settings.conv_stride), self.sample_rate_hz)
        self.frame_rate_hz = self.frames.frame_rate_hz
        self.hidden_size = int(settings.hidden_size)
        self.n_features = int(settings.conv_dim[-1])
        self.normalises = bool(self.sound.get("do_normalize", self.normalises_unsaid))
        by_norm = self.masks_unsaid(settings)
        self.uses_attention_mask = bool(self.sound.get("return_attention_mask", by_norm))
        self.strided = can_run(settings)
        self.train(model.training)

    @classmethod
    def sound_settings(cls, extractor: Any, said: Mapping[str, Any], config: Any) -> dict[str, Any]:
        """Whether clips are normalised, and whether there is a mask; see SpeechBackbone.sound_settings."""
        require(extractor, "feature_size", 1, "one channel of sound is given")
        require(extractor, "padding_value", 0, "windows are padded with silence")
        usual = {"do_normalize": cls.normalises_unsaid, "return_attention_mask": cls.masks_unsaid(config)}
        found = {"do_normalize": bool(extractor.do_normalize)}
        if "return_attention_mask" in said:
            found["return_attention_mask"] = bool(said["return_attention_mask"])
        return {name: value for name, value in found.items() if value != usual[name]}

    @classmethod
    def masks_unsaid(cls, config: Any) -> bool:
        """Whether there is an attention mask where no extractor says so: by how the convolutions normalise."""
        return getattr(config, "feat_extract_norm", "layer") == "layer"

    @classmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the family's tiny model: five convolutions down to 25 Hz and four layers of 128."""
        return {"model_type": cls.model_type, **TINY_SETTINGS}

    # --- where the parts are ---

    @property
    def feature_extractor(self) -> nn.Module:
        """The convolutions."""
        module: nn.Module = self.model.feature_extractor
        return module

    @property
    def convolution_norm(self) -> str:
        """How the convolutions normalise: 'group' (the first one, over time) or 'layer' (each, over channels)."""
        return str(self.model.config.feat_extract_norm)

    @property
    def layer_norm_last(self) -> bool:
        """Whether layer normalisation comes before attention and after the last layer, as in most large models."""
        return bool(self.model.config.do_stable_layer_norm)

    # --- forward ---

    def front_end(self, audio: Tensor, audio_mask: Tensor) -> FrontEnd:
        """Frames of the convolutions; see SpeechBackbone.front_end."""
        frame_mask = self.frame_mask(audio_mask)
        features = self.conv_features(self.prepared(audio, audio_mask))
        return FrontEnd(features, frame_mask, self.frame_times_s(audio.shape[1]).to(audio.device))

    def prepared(self, audio: Tensor, audio_mask: Tensor) -> Tensor:
        """Sound as the convolutions get it, (batch, n_samples): normalised clip by clip, or as it is."""
        return normalise_clips(audio, audio_mask) if self.normalises else real_sound(audio, audio_mask)

    def conv_features(self, sound: Tensor) -> Tensor:
        """Frames of the convolutions: prepared sound (batch, n_samples) -> (batch, n_frames, n_features).

        Without gradients once frozen, so that nothing of the waveform's length is kept for the backward pass.
        """
        extractor = self.feature_extractor
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.feature_encoder_frozen):
            if self.strided and sound.device.type == "cpu":
                return conv_features(extractor, sound)
            features: Tensor = extractor(sound).transpose(1, 2)
        return features

    def trunk(self, features: Tensor, frame_mask: Tensor, hidden_from: Tensor | None = None) -> tuple[Tensor, ...]:
        """Projection and transformer; see SpeechBackbone.trunk."""
        encoder, attended = self.encoder, self.attended(frame_mask)
        hidden = self.masked(self.project(features), attended, hidden_from)
        hidden = hidden + self.position_signal(hidden, attended)
        if not self.layer_norm_last:
            hidden = encoder.layer_norm(hidden)
        states = self.run_layers(encoder.dropout(hidden), attended)
        if self.layer_norm_last:
            states[-1] = encoder.layer_norm(states[-1])
        return tuple(states)

    def position_signal(self, hidden: Tensor, attended: Tensor | None) -> Tensor:
        """What the positional convolution adds to each frame; attended: see SpeechBackbone."""
        signal: Tensor = self.encoder.pos_conv_embed(hidden)
        return signal

    def project(self, features: Tensor) -> Tensor:
        """Frames of the convolutions -> what goes into the transformer, (batch, n_frames, hidden_size)."""
        projected = self.model.feature_projection(features)
        hidden: Tensor = projected[0] if isinstance(projected, tuple) else projected
        return hidden

    def front_end_modules(self) -> Sequence[nn.Module]:
        """The convolutions."""
        return [self.feature_extractor]

    def describe(self) -> dict[str, Any]:
        """Where the weights came from, the architecture and every switch, as plain JSON values."""
        return {
            **super().describe(),
            "receptive_field_samples": self.frames.field_samples,
            "normalises": self.normalises,
            "attention_mask": self.uses_attention_mask,
        }


class UniSpeechSatBackbone(ConvolutionalBackbone):
    """UniSpeech-SAT (Chen et al. 2021, arXiv 2110.05752): HuBERT's architecture, trained to know speakers apart too."""

    family: ClassVar[str] = "unispeech-sat"
    model_type: ClassVar[str] = "unispeech-sat"
    class_names: ClassVar[tuple[str, str]] = ("UniSpeechSatConfig", "UniSpeechSatModel")


class Data2VecBackbone(ConvolutionalBackbone):
    """data2vec-audio (Baevski et al. 2022, arXiv 2202.03555): base and large models.

    Its convolutions always normalise over the layer, its transformer always after attention, and positions come from a
    stack of narrow convolutions instead of one wide one.
    """

    family: ClassVar[str] = "data2vec"
    model_type: ClassVar[str] = "data2vec-audio"
    class_names: ClassVar[tuple[str, str]] = ("Data2VecAudioConfig", "Data2VecAudioModel")

    @classmethod
    def tiny_architecture(cls) -> dict[str, Any]:
        """Settings of the tiny model; its positional convolutions are two of 9 frames."""
        return {**super().tiny_architecture(), "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 9}

    @classmethod
    def masks_unsaid(cls, config: Any) -> bool:
        """Always: its convolutions normalise over the layer, whatever config.json says."""
        return True

    @property
    def convolution_norm(self) -> str:
        """Always 'layer', whatever config.json says."""
        return "layer"

    @property
    def layer_norm_last(self) -> bool:
        """Never, whatever config.json says."""
        return False

    def position_signal(self, hidden: Tensor, attended: Tensor | None) -> Tensor:
        """What the positional convolutions add to each frame; padding stays 0 from one to the next.

        transformers lets what the first of them puts into the padding flow back into real frames, which makes a clip's
        states depend on how it is padded. Here they are those of the clip alone.
        """
        signal = hidden.transpose(1, 2)
        for layer in self.encoder.pos_conv_embed.layers:
            signal = layer(signal)
            if attended is not None:
                signal = signal.masked_fill(~attended[:, None, :], 0.0)
        return signal.transpose(1, 2)


class HubertBackbone(ConvolutionalBackbone):
    """HuBERT (Hsu et al. 2021, arXiv 2106.07447): base to extra large, and its kin (DistilHuBERT, mHuBERT)."""

    family: ClassVar[str] = "hubert"
    model_type: ClassVar[str] = "hubert"
    class_names: ClassVar[tuple[str, str]] = ("HubertConfig", "HubertModel")

    def train(self, mode: bool = True) -> Self:
        """Train or eval mode; batch normalisation, which mHuBERT has, always uses the statistics it came with.

        Otherwise the states of a clip would depend on its batch.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return self


class Wav2vecBackbone(ConvolutionalBackbone):
    """wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477): with group and with layer normalisation (lv60, XLS-R)."""

    family: ClassVar[str] = "wav2vec"
    model_type: ClassVar[str] = "wav2vec2"
    class_names: ClassVar[tuple[str, str]] = ("Wav2Vec2Config", "Wav2Vec2Model")
