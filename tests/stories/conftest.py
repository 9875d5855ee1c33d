"""A small data set on disk, as a laboratory would hand it over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

N_TRS, TR_S, ONSET_S = 40, 1.5, 2.0


@pytest.fixture
def manifest() -> dict[str, object]:
    """The manifest of `folder`, to be changed by a test and written with `write`."""
    return {
        "name": "small",
        "each_story": {"audio": "{story}.wav", "words": "{story}.tsv", "tr_s": TR_S, "onset_s": ONSET_S},
        "stories": {"frog": {}, "bear": {}},
        "subjects": {"anna": "all", "ben": ["frog"], "carl": ["frog"]},
        "responses": {"file": "{subject}_{story}.txt", "columns": ["A1", "IFG", "V1"]},
        "roles": {"tune": ["frog"], "score": ["bear"]},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two stories of 40 TRs; anna hears both, ben and carl one. ben's V1 and all of carl's columns hold no data."""
    rng = np.random.default_rng(0)
    for story in ("frog", "bear"):
        sound = rng.normal(0, 0.05, size=(round(22_050 * (ONSET_S + N_TRS * TR_S)), 1)).repeat(2, axis=1)
        soundfile.write(tmp_path / f"{story}.wav", sound, 22_050)
        rows = [f"{ONSET_S + 0.5 * k:.3f}\t0.4\t{'sp' if k % 5 == 0 else 'word'}" for k in range(100)]
        (tmp_path / f"{story}.tsv").write_text("\n".join(["onset\tduration\ttext", *rows]))
        for subject in ("anna", "ben", "carl"):
            values = 100 + rng.normal(size=(N_TRS, 3)) + np.linspace(0, 30, N_TRS)[:, None]
            values[:, 2] = np.nan if subject == "ben" else values[:, 2]
            values = np.zeros_like(values) if subject == "carl" else values
            np.savetxt(tmp_path / f"{subject}_{story}.txt", values)
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[..., str]:
    """Writes a manifest into the folder (or the one given); returns its path."""

    def write_manifest(manifest: object, into: Path = folder) -> str:
        path = into / "manifest.yaml"
        path.write_text(yaml.safe_dump(manifest, sort_keys=False))
        return str(path)

    return write_manifest
