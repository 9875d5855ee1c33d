"""What runs during training: probes, the choice of a checkpoint, drift from the pretrained model, the report."""

from brainlit.callbacks.choose import ChooseCheckpoint
from brainlit.callbacks.drift import FeatureDrift
from brainlit.callbacks.layer_curve import LayerCurve
from brainlit.callbacks.probe import BandedRidgeProbe
from brainlit.callbacks.report import RunReport

__all__ = ["BandedRidgeProbe", "ChooseCheckpoint", "FeatureDrift", "LayerCurve", "RunReport"]
