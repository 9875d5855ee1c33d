"""What was heard and what the brain did, as each data set ships it."""

from __future__ import annotations

from brainlit.stories.base import (
    ROLES,
    FeatureKind,
    FeatureSpace,
    Intervals,
    Remote,
    Responses,
    SoundNote,
    SourceError,
    Story,
    StorySource,
    Subject,
    SubjectLeftOut,
    TimedValues,
)
from brainlit.stories.group import GroupMean, RegionMeans
from brainlit.stories.manifest.source import ManifestSource
from brainlit.stories.response_filter import ResponseFilter

__all__ = [
    "ROLES",
    "FeatureKind",
    "FeatureSpace",
    "GroupMean",
    "Intervals",
    "ManifestSource",
    "RegionMeans",
    "Remote",
    "ResponseFilter",
    "Responses",
    "SoundNote",
    "SourceError",
    "Story",
    "StorySource",
    "Subject",
    "SubjectLeftOut",
    "TimedValues",
]
