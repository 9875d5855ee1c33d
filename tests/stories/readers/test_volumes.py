"""Runs of volumes: patterns are checked before use, and a mask is made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainlit.stories.alice_bids import AliceSource
from brainlit.stories.base import SourceError
from brainlit.stories.petit_prince import PetitPrinceSource
from brainlit.stories.readers.volumes import VolumeReader
from tests.layouts.volumes import write_run


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mask": "{subjekt}.nii"}, r"mask is '\{subjekt\}\.nii': 'subjekt' is no placeholder; known: \{subject\}"),
        ({"mask": "{}.nii"}, r"mask is .* no placeholder"),
        ({"mask": "/masks/m.nii"}, r"mask is '/masks/m\.nii'; need a path below root"),
        ({"confounds": "{story}.tsv", "confound_names": ["csf"]}, r"'story' is no placeholder; known: .*\{run\}"),
        ({"confounds": "{subject}.tsv", "confound_names": []}, r"give both or none"),
        ({"confound_names": ["csf"]}, r"give both or none"),
    ],
)
def test_wrong_patterns_are_refused_before_a_file_is_read(setting: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        VolumeReader(Path("nowhere"), **setting)  # type: ignore[arg-type]


def test_runs_of_each_subject_need_its_name_in_the_pattern() -> None:
    with pytest.raises(SourceError, match=r"runs is 'all/\*\.nii', one file for all; put \{subject\} into it"):
        PetitPrinceSource("nowhere", runs="all/*.nii")
    with pytest.raises(SourceError, match=r"run is 'one\.nii', one file for all"):
        AliceSource("nowhere", run="one.nii")


def test_the_mask_is_made_once_and_goes_with_its_reader(tmp_path: Path) -> None:
    run = tmp_path / "run.nii.gz"
    write_run(run, 40, 20, seed=0)
    reader = VolumeReader(tmp_path)
    n_voxels = reader.subject("anna", [run]).n_voxels
    mask = reader._mask("anna", [])
    assert mask.is_file()
    assert reader.responses("anna", run, [], 40, 2.0).values.shape == (40, n_voxels)
    del reader
    assert not mask.exists()


def test_trailing_volumes_and_their_confounds_are_left_out_together(tmp_path: Path) -> None:
    run, table = tmp_path / "run.nii.gz", tmp_path / "anna.tsv"
    write_run(run, 40, 20, seed=0)
    slow = np.sin(np.arange(40))
    table.write_text("csf\n" + "\n".join(map(str, slow)))
    reader = VolumeReader(tmp_path, high_pass_s=None, confounds="{subject}.tsv", confound_names=["csf"])
    values = reader.responses("anna", run, [run], 36, 2.0).values
    assert values.shape[0] == 36
    left = slow[:36] - slow[:36].mean()
    np.testing.assert_allclose(left @ values, 0, atol=1e-4)
