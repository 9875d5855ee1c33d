"""Runs of fMRIPrep are found by their names, with what lies beside them; what is missing is said with what is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainlit.stories.readers.bids import (
    BidsError,
    descriptions,
    entities_of,
    find_runs,
    repetition_time_s,
    require_runs,
    sidecars_of,
    slice_reference,
    subject_folders,
)

MNI = "MNI152NLin2009cAsym"


def _touch(root: Path, *names: str) -> None:
    for name in names:
        entities = entities_of(name)
        session = [f"ses-{entities['ses']}"] if "ses" in entities else []
        path = root.joinpath(f"sub-{entities['sub']}", *session, "func", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_run_comes_with_mask_confounds_and_sidecar(tmp_path: Path) -> None:
    stem = "sub-01_ses-2_task-frog_acq-mb_run-1"
    names = [f"{stem}_space-{MNI}_desc-preproc_bold.nii.gz", f"{stem}_space-{MNI}_desc-brain_mask.nii.gz",
             f"{stem}_desc-confounds_timeseries.tsv", f"{stem}_space-{MNI}_desc-preproc_bold.json"]  # fmt: skip
    other = [f"{stem}_space-{MNI}_boldref.nii.gz", f"{stem}_space-T1w_desc-preproc_bold.nii.gz",
             f"{stem}_echo-1_space-{MNI}_desc-preproc_bold.nii.gz", f"{stem}_space-{MNI}_desc-aseg_dseg.nii.gz",
             f"sub-01_ses-2_task-bear_space-{MNI}_desc-preproc_bold.nii.gz"]  # fmt: skip
    _touch(tmp_path, *names, *other)
    (run,) = find_runs(tmp_path, "01", "frog", MNI)
    func = tmp_path / "sub-01" / "ses-2" / "func"
    assert [*run.files, run.mask, run.confounds, *run.sidecars] == [func / name for name in names]
    assert run.label == "ses-2_acq-mb_run-1"
    assert find_runs(tmp_path, "sub-01", "frog", MNI) == [run]
    assert find_runs(tmp_path, "sub-02", "frog", MNI) == []


def test_surfaces_grayordinates_and_native_runs(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "sub-01_task-frog_hemi-R_space-fsaverage5_bold.func.gii",
        "sub-01_task-frog_hemi-L_space-fsaverage5_bold.func.gii",
        "sub-01_task-frog_hemi-L_space-fsaverage5_bold.json",
        "sub-01_task-frog_space-fsLR_den-91k_bold.dtseries.nii",
        "sub-01_task-frog_desc-preproc_bold.nii.gz",
        "sub-01_task-frog_desc-confounds_regressors.tsv",
        "sub-01_task-bear_hemi-L_space-fsaverage5_bold.func.gii",
    )
    (surface,) = find_runs(tmp_path, "01", "frog", "fsaverage5")
    assert [path.name[17:23] for path in surface.files] == ["hemi-L", "hemi-R"]
    assert surface.mask is None
    assert [path.name[17:23] for path in surface.sidecars] == ["hemi-L"]
    assert surface.confounds is not None
    assert surface.label == "the only run"
    assert len(find_runs(tmp_path, "01", "frog", "fsLR:den-91k")) == 1
    assert find_runs(tmp_path, "01", "frog", "fsLR:den-170k") == []
    (native,) = find_runs(tmp_path, "01", "frog", "func")
    assert native.files[0].name == "sub-01_task-frog_desc-preproc_bold.nii.gz"
    with pytest.raises(BidsError, match=r"need one file hemi-L and one hemi-R, found .*hemi-L"):
        find_runs(tmp_path, "01", "bear", "fsaverage5")


def test_several_resolutions_are_not_guessed(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"sub-01_task-frog_space-{MNI}_res-{k}_desc-preproc_bold.nii.gz" for k in (1, 2)))
    with pytest.raises(BidsError, match=r"could be any of .*res-1.*res-2.* Add the resolution"):
        find_runs(tmp_path, "01", "frog", MNI)
    (run,) = find_runs(tmp_path, "01", "frog", f"{MNI}:res-2")
    assert "_res-2_" in run.files[0].name


def test_users_name_runs_in_short(tmp_path: Path) -> None:
    runs = [f"sub-01_ses-{s}_task-frog_run-0{r}_space-{MNI}_desc-preproc_bold.nii.gz" for s in (1, 2) for r in (1, 2)]
    _touch(tmp_path, *runs)
    found = find_runs(tmp_path, "01", "frog", MNI)
    assert [run.label for run in found] == ["ses-1_run-01", "ses-1_run-02", "ses-2_run-01", "ses-2_run-02"]
    assert [run.is_meant_by("ses-2_run-1") for run in found] == [False, False, True, False]
    assert [run.is_meant_by("2") for run in found] == [False, True, False, True]
    assert not any(run.is_meant_by("acq-x") for run in found)


def test_what_is_missing_is_said_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no folders sub-\*"):
        require_runs(tmp_path / "none", "01", "frog", MNI)
    _touch(tmp_path, f"sub-01_task-frog_space-{MNI}_desc-preproc_bold.nii.gz")
    (tmp_path / "sub-01.html").touch()
    assert subject_folders(tmp_path) == ["sub-01"]
    with pytest.raises(FileNotFoundError, match=r"holds no sub-1\. Did you mean 'sub-01'"):
        require_runs(tmp_path, "1", "frog", MNI)
    with pytest.raises(BidsError, match=r"sub-01 has no run of task 'frogg'\. Did you mean 'frog'"):
        require_runs(tmp_path, "01", "frogg", MNI)
    with pytest.raises(BidsError, match=rf"no run of task 'frog' in space 'MNI'\. Known: {MNI}"):
        require_runs(tmp_path, "01", "frog", "MNI")


def test_a_run_inherits_what_json_files_above_say_of_it(tmp_path: Path) -> None:
    stem = f"sub-01_ses-2_task-frog_run-1_space-{MNI}_desc-preproc_bold"
    _touch(tmp_path, f"{stem}.nii.gz")
    func = tmp_path / "sub-01" / "ses-2" / "func"
    said = {
        tmp_path / "task-frog_bold.json": {"RepetitionTime": 3.0, "StartTime": 0.6},
        tmp_path / "task-bear_bold.json": {"RepetitionTime": 9.0},
        tmp_path / "task-frog_events.json": {"RepetitionTime": 9.0},
        tmp_path.parent / "task-frog_bold.json": {"RepetitionTime": 9.0},
        tmp_path / "sub-01" / "sub-01_task-frog_bold.json": {"RepetitionTime": 1.2},
        func / "sub-01_ses-2_task-frog_run-2_bold.json": {"RepetitionTime": 9.0},
    }
    for path, content in said.items():
        path.write_text(json.dumps(content))
    (run,) = find_runs(tmp_path, "01", "frog", MNI)
    assert run.sidecars == (tmp_path / "sub-01" / "sub-01_task-frog_bold.json", tmp_path / "task-frog_bold.json")
    assert (repetition_time_s(run.sidecars), slice_reference(run.sidecars, 1.2)) == (1.2, 0.5)
    (func / f"{stem}.json").write_text('{"TaskName": "frog"}')
    assert repetition_time_s(sidecars_of(run.files[0], tmp_path)) == 1.2, "the nearest that has it"
    (tmp_path / "x.v2.nii.gz").touch()
    (tmp_path / "x.json").touch()
    assert sidecars_of(tmp_path / "x.v2.nii.gz", tmp_path) == ()


def test_runs_of_another_description_are_found_when_asked_for(tmp_path: Path) -> None:
    stem = f"sub-01_task-frog_space-{MNI}"
    _touch(tmp_path, f"{stem}_desc-denoised_bold.nii.gz", f"{stem}_desc-brain_mask.nii.gz",
           f"{stem}_desc-denoisedSmoothed_bold.nii.gz")  # fmt: skip
    assert find_runs(tmp_path, "01", "frog", MNI) == []
    (run,) = find_runs(tmp_path, "01", "frog", MNI, "denoised")
    assert run.files[0].name == f"{stem}_desc-denoised_bold.nii.gz"
    assert run.mask is not None
    assert descriptions(tmp_path) == ["denoised", "denoisedSmoothed"]
    with pytest.raises(BidsError, match=r"no run of task 'frog' with desc 'preproc'\. .*denoised, denoisedSmoothed"):
        require_runs(tmp_path, "01", "frog", MNI)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "no readable JSON"), ('{"RepetitionTime": "2"}', "is '2'; need seconds"),
     ('{"RepetitionTime": NaN}', "is nan"), ('{"RepetitionTime": 2000}', r"are these milliseconds\? Then it is 2 s"),
     ("\udcff", "no readable JSON")],
)  # fmt: skip
def test_a_sidecar_with_a_wrong_tr_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"RepetitionTime": 1.5}')
    assert repetition_time_s([path]) == 1.5
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(BidsError, match=message):
        repetition_time_s([path])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"SliceTimingCorrected": true, "StartTime": 0.735', 0.49),
        ('"StartTime": 0.0', 0.0),
        ('"StartTime": 1.5', 1.0),
        ('"SliceTimingCorrected": false, "StartTime": 0.0', None),
        ('"SliceTimingCorrected": false, "SliceTiming": [0.0, 0.3, 0.6, 0.3]', 0.2),
        ('"SliceTimingCorrected": true', None),
        ('"TaskName": "frog"', None),
    ],
)
def test_the_moment_of_a_volume_is_where_its_slices_were_taken(
    tmp_path: Path, text: str, expected: float | None
) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"RepetitionTime": 1.5, {text}}}')
    assert slice_reference([path], 1.5) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    "text",
    ['"StartTime": 735', '"StartTime": -0.1', '"StartTime": "late"', '"SliceTiming": []', '"SliceTiming": [0, "x"]',
     '"SliceTiming": [0.0, NaN]', '"StartTime": {}'],
)  # fmt: skip
def test_moments_outside_the_volume_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'{{"RepetitionTime": 1.5, {text}}}')
    with pytest.raises(BidsError, match=r"is no time within a volume of 1\.5 s.*or give slice_reference"):
        slice_reference([path], 1.5)
