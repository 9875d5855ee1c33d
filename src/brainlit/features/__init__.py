"""Stimulus feature spaces per TR: functions from a story to a `FeatureSpace`, chosen by a `FeatureConfig`."""

from __future__ import annotations

from brainlit.features.config import FeatureConfig, LanguageModelConfig
from brainlit.features.extractor import SEMANTIC, FeatureExtractor
from brainlit.features.language_model import LanguageModel
from brainlit.features.linguistic import phone_classes, phone_rate, word_length, word_rate
from brainlit.features.low_level import LOW_LEVEL, STANDARD, SUB_BANDS, low_level_spaces, sub_band_columns
from brainlit.features.per_tr import lanczos_matrix, lanczos_resample
from brainlit.features.spectral import envelope, log_mel
from brainlit.features.vectors import read_word_vectors, word_vectors

__all__ = [
    "LOW_LEVEL",
    "SEMANTIC",
    "STANDARD",
    "SUB_BANDS",
    "FeatureConfig",
    "FeatureExtractor",
    "LanguageModel",
    "LanguageModelConfig",
    "envelope",
    "lanczos_matrix",
    "lanczos_resample",
    "log_mel",
    "low_level_spaces",
    "phone_classes",
    "phone_rate",
    "read_word_vectors",
    "sub_band_columns",
    "word_length",
    "word_rate",
    "word_vectors",
]
