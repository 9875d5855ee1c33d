"""Narratives (OpenNeuro ds002345): see `source`."""

from brainlit.stories.narratives.source import NarrativesSource

__all__ = ["NarrativesSource"]
