"""What was heard and what the brain did, as each data set ships it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brainlit.stories.base import (
    ROLES,
    FeatureKind,
    FeatureSpace,
    Intervals,
    Remote,
    Responses,
    SourceError,
    Story,
    StorySource,
    Subject,
    SubjectLeftOut,
)

if TYPE_CHECKING:
    from brainlit.stories.manifest import ManifestSource

__all__ = [
    "ROLES",
    "FeatureKind",
    "FeatureSpace",
    "Intervals",
    "ManifestSource",
    "Remote",
    "Responses",
    "SourceError",
    "Story",
    "StorySource",
    "Subject",
    "SubjectLeftOut",
]


def __getattr__(name: str) -> Any:
    """ManifestSource is imported on first use: it computes features, and features import this package."""
    if name == "ManifestSource":
        from brainlit.stories.manifest import ManifestSource

        return ManifestSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
