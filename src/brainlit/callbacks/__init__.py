"""What runs during training: the banded-ridge probe, and the report at its end."""

from brainlit.callbacks.probe import BandedRidgeProbe
from brainlit.callbacks.report import RunReport

__all__ = ["BandedRidgeProbe", "RunReport"]
