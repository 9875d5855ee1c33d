"""Speech families behind one interface."""

from brainlit.backbones.base import Encoded, SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.registry import BACKBONES, load_backbone
from brainlit.backbones.weights import WeightsError

__all__ = ["BACKBONES", "BackboneConfig", "Encoded", "SpeechBackbone", "WeightsError", "load_backbone"]
