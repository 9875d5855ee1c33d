"""Named regions of a subject, from the files in which laboratories keep them: see `config` and docs/regions.md."""

from brainlit.stories.regions.config import RegionConfig, read_subject_regions, region_files

__all__ = ["RegionConfig", "read_subject_regions", "region_files"]
