"""Named regions of a subject, from the files in which laboratories keep them: see `config` and docs/regions.md."""

from brainlit.stories.regions.config import region_files

__all__ = ["region_files"]
