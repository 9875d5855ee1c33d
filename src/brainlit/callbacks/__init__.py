"""What runs during training: the banded-ridge probe, drift from the pretrained model, and the report at the end."""

from brainlit.callbacks.drift import FeatureDrift
from brainlit.callbacks.probe import BandedRidgeProbe
from brainlit.callbacks.report import RunReport

__all__ = ["BandedRidgeProbe", "FeatureDrift", "RunReport"]
