"""Stimulus feature spaces per TR: functions from a story to a `FeatureSpace`."""

from __future__ import annotations

from brainlit.features.config import FeatureConfig
from brainlit.features.extractor import FeatureExtractor
from brainlit.features.low_level import envelope, log_mel, phone_classes, phone_rate, word_length, word_rate
from brainlit.features.resample import lanczos_matrix, lanczos_resample
from brainlit.features.semantic import read_word_vectors, word_vectors
from brainlit.stories import FeatureSpace, Story

__all__ = [
    "FeatureConfig",
    "FeatureExtractor",
    "envelope",
    "lanczos_matrix",
    "lanczos_resample",
    "log_mel",
    "low_level_spaces",
    "phone_classes",
    "phone_rate",
    "read_word_vectors",
    "word_length",
    "word_rate",
    "word_vectors",
]


def low_level_spaces(story: Story) -> list[FeatureSpace]:
    """All low-level spaces that the story allows, in a fixed order; the last two only where it has phones."""
    spaces = [log_mel(story), envelope(story), word_rate(story), word_length(story)]
    if story.phones is not None:
        spaces += [phone_rate(story), phone_classes(story)]
    return spaces
