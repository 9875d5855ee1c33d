"""LeBel et al. 2023 (OpenNeuro ds003020): see `source`."""

from brainlit.stories.lebel2023.source import LebelSource

__all__ = ["LebelSource"]
