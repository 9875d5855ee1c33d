"""Any data set, described by a YAML manifest: see `source` and docs/your_data.md."""

from brainlit.stories.manifest.source import ManifestSource

__all__ = ["ManifestSource"]
