"""Where a run's numbers come from: versions, source revision, data hashes, seed, machine and command."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from brainlit.results.run_directory import write_json_atomic

PROVENANCE_FILE = "provenance.json"
PACKAGES = ("brainlit", "torch", "lightning", "transformers", "himalaya", "numpy", "scipy", "h5py", "nilearn", "wandb")


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that a number may depend on; 'not installed' where absent."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """Revision of the source tree and whether it holds uncommitted changes; 'unknown' outside a git checkout.

    An installed copy inside somebody else's repository is not tracked there, and is 'unknown' too.
    """
    file = Path(__file__).resolve()
    where = folder or file.parent
    tracked = folder is not None or _git(where, "ls-files", "--error-unmatch", file.name) is not None
    revision = _git(where, "rev-parse", "HEAD") if tracked else None
    if revision is None:
        return {"revision": "unknown", "dirty": None}
    status = _git(where, "status", "--porcelain", "--untracked-files=no")
    return {"revision": revision, "dirty": bool(status)}


def machine() -> dict[str, Any]:
    """Processor, cores, threads and accelerator, without the names of users or hosts."""
    import torch

    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
    }


def store_hashes(store_path: Path | str | None) -> dict[str, Any]:
    """SHA-256 of the store's index (which lists that of every file) and the settings that made it."""
    index = Path(store_path) / "store.json" if store_path is not None else None
    if index is None or not index.is_file():
        return {"sha256": "unknown"}
    content = index.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "settings": json.loads(content).get("settings")}


def collect(seed: int | None = None, store_path: Path | str | None = None, **extra: Any) -> dict[str, Any]:
    """All of the above as one JSON value; `extra` is added at the top level."""
    return {
        "written": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
        "seed": seed,
        "git": git_state(),
        "versions": package_versions(),
        "machine": machine(),
        "store": store_hashes(store_path),
        **extra,
    }


def write_provenance(folder: Path, provenance: Mapping[str, Any]) -> Path:
    """Write provenance.json into a run directory."""
    return write_json_atomic(folder / PROVENANCE_FILE, provenance)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
