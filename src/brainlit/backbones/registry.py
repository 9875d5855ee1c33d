"""Families by name; each is imported when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from brainlit.backbones.base import SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.hints import did_you_mean


class Families(Mapping[str, type[SpeechBackbone]]):
    """Backbone classes by family name.

    Parameters
    ----------
    places : mapping of str to str
        Family name -> "module:Class", the module within brainlit.backbones.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, family: str) -> type[SpeechBackbone]:
        module, name = self._places[family].split(":")
        found: type[SpeechBackbone] = getattr(import_module(f"brainlit.backbones.{module}"), name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, family: object) -> bool:
        return family in self._places


BACKBONES: Mapping[str, type[SpeechBackbone]] = Families(
    {
        "wav2vec": "wav2vec_like:Wav2vecBackbone",
        "hubert": "wav2vec_like:HubertBackbone",
        "wavlm": "wavlm:WavLMBackbone",
        "data2vec": "wav2vec_like:Data2VecBackbone",
        "unispeech-sat": "wav2vec_like:UniSpeechSatBackbone",
        "whisper": "whisper:WhisperBackbone",
        "speecht5": "speecht5:SpeechT5Backbone",
        "w2v-bert": "wav2vec2_bert:Wav2Vec2BertBackbone",
    }
)


def load_backbone(config: BackboneConfig) -> SpeechBackbone:
    """The backbone that the config asks for, in eval mode, every parameter trainable.

    Raises
    ------
    ValueError
        If the family is not known.
    WeightsError
        If its weights cannot be had.
    """
    if config.family not in BACKBONES:
        raise ValueError(f"backbone family {config.family!r} is not known. {did_you_mean(config.family, BACKBONES)}")
    return BACKBONES[config.family].load(config)
