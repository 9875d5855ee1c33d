"""Speech families behind one interface."""

from brainlit.backbones.addresses import WeightsError
from brainlit.backbones.base import FrontEnd, SpeechBackbone
from brainlit.backbones.config import BackboneConfig
from brainlit.backbones.registry import BACKBONES, load_backbone

__all__ = ["BACKBONES", "BackboneConfig", "FrontEnd", "SpeechBackbone", "WeightsError", "load_backbone"]
