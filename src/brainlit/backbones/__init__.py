"""Speech families behind one interface."""

from brainlit.backbones.base import FrontEnd, SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.registry import BACKBONES, load_backbone
from brainlit.backbones.weights import WeightsError

__all__ = ["BACKBONES", "BackboneConfig", "FrontEnd", "SpeechBackbone", "WeightsError", "load_backbone"]
