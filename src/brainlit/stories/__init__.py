"""What was heard and what the brain did, as each data set ships it."""

from brainlit.stories.base import (
    ROLES,
    FeatureKind,
    FeatureSpace,
    Intervals,
    Responses,
    Story,
    StorySource,
    Subject,
)

__all__ = ["ROLES", "FeatureKind", "FeatureSpace", "Intervals", "Responses", "Story", "StorySource", "Subject"]
