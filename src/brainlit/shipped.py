"""Files that travel with brainlit: the experiments, and the manifests and cards of data sets.

In a clone they lie in its own folders experiments/ and data/, where they are edited; a wheel carries copies inside the
package (setup.py asks `shipped_files` which). Both have the same paths below `shipped_root`. Standard library only:
setup.py runs this file by itself.
"""

from __future__ import annotations

from pathlib import Path

EXPERIMENTS = "experiments"
PATTERNS = (f"{EXPERIMENTS}/**/*.yaml", f"{EXPERIMENTS}/README.md", "data/*/manifest.yaml", "data/*.md")
PACKAGED = Path(__file__).parent / "_shipped"
"""Only there where brainlit was installed from a wheel."""
CLONE = Path(__file__).parents[2]


def shipped_files(root: Path) -> list[Path]:
    """Paths below the root of what travels with brainlit, in order.

    Parameters
    ----------
    root : Path
        A clone, or what `shipped_root` says.
    """
    found = (path for pattern in PATTERNS for path in root.glob(pattern) if path.is_file())
    return sorted(path.relative_to(root) for path in found)


def is_installed() -> bool:
    """Whether brainlit was installed from a wheel, so that there is no clone with a Makefile."""
    return PACKAGED.is_dir()


def shipped_root() -> Path:
    """The folder that holds experiments/ and data/ as they came with brainlit: of the package, or the clone's own."""
    return PACKAGED if is_installed() else CLONE


def here_or_shipped(path: Path) -> Path:
    """The path itself if there is such a file, or what came with brainlit under this relative path, if there is that.

    >>> here_or_shipped(Path("data/no/manifest.yaml"))
    PosixPath('data/no/manifest.yaml')
    """
    if path.is_file() or path not in shipped_files(shipped_root()):
        return path
    return shipped_root() / path
