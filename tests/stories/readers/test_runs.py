"""Responses of every kind through a manifest: images with masks, surfaces, grayordinates, fMRIPrep's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import soundfile
import yaml

from brainlit.stories import ManifestSource, ResponseFilter, SourceError
from brainlit.stories.manifest.schema import ManifestError
from brainlit.stories.readers.cleaning import clean_series, read_confounds
from tests.layouts.fmriprep import AFFINE, N_TRS, SHAPE, TR_S, write_fmriprep_run, write_sidecar

MNI = "MNI152NLin2009cAsym"
Array = np.ndarray[Any, Any]


@pytest.fixture
def derivatives(tmp_path: Path) -> Path:
    """Sound and words of two stories; the folder for fMRIPrep's runs."""
    for story in ("frog", "bear"):
        soundfile.write(tmp_path / f"{story}.wav", np.zeros(round(8000 * N_TRS * TR_S)), 8000)
    (tmp_path / "words.csv").write_text("onset,duration,word\n1,1,the\n2,1,frog\n")
    return tmp_path / "derivatives" / "fmriprep"


def _source(folder: Path, responses: dict[str, Any], stories: Any = None, **more: Any) -> ManifestSource:
    manifest = {
        "name": "images",
        "each_story": {"audio": "{story}.wav", "words": "words.csv", "onset_s": 0},
        "stories": {"frog": {}} if stories is None else stories,
        "responses": responses,
        "roles": {"score": ["frog"]},
        **more,
    }
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    return ManifestSource(str(path))


def _fmriprep(root: Path, stories: Any = None, responses: dict[str, Any] | None = None, **more: Any) -> ManifestSource:
    said = {"fmriprep": "derivatives/fmriprep", "space": MNI, **(responses or {})}
    return _source(root.parents[1], said, stories, **more)


def test_subjects_stories_tr_and_voxels_come_from_the_folder(derivatives: Path) -> None:
    values = write_fmriprep_run(derivatives, "sub-01", "frog", outside=(0, 5))
    write_fmriprep_run(derivatives, "sub-01", "bear", outside=(7,), seed=1)
    write_fmriprep_run(derivatives, "sub-02", "bear", seed=2)
    write_fmriprep_run(derivatives, "sub-03", "rest", seed=3)
    source = _fmriprep(derivatives, ["frog", "bear"], {"confounds": ["trans_*", "csf"]})
    assert source.subject_names() == ["sub-01", "sub-02"], "sub-03 heard no story"
    story = source.story("frog")
    assert (story.timebase.tr_s, story.timebase.n_trs) == (TR_S, N_TRS)
    responses = source.responses("sub-01", "frog")
    assert responses is not None
    assert responses.repeats is None
    kept = [k for k in range(18) if k not in (0, 5, 7)]
    confounds = next((derivatives / "sub-01" / "func").glob("*task-frog*.tsv"))
    expected = clean_series(values[:, kept], TR_S, confounds=read_confounds(confounds, ["trans_*", "csf"]))
    assert np.allclose(responses.values, expected, atol=1e-3), "voxels in the masks of all runs of the subject"
    subject = source.subject("sub-01")
    assert subject.n_voxels == 15
    assert subject.coordinates_mm is not None
    assert subject.coordinates_mm[0].tolist() == (AFFINE @ [0, 0, 1, 1])[:3].tolist()
    assert source.subject("sub-02").n_voxels == 18
    assert source.responses("sub-02", "frog") is None
    names = [path.name for path in source.subject_files("sub-02")]
    assert len(names) == 3
    assert {name.rpartition("_")[2] for name in names} == {"bold.nii.gz", "mask.nii.gz", "timeseries.tsv"}


def test_the_moment_of_a_volume_comes_from_the_json_beside_a_run(derivatives: Path) -> None:
    write_fmriprep_run(derivatives, "sub-01", "frog")
    assert _fmriprep(derivatives).slice_reference() == 0.5, "nothing is said"
    (sidecar,) = derivatives.glob("sub-01/func/*_bold.json")
    sidecar.write_text(f'{{"RepetitionTime": {TR_S}, "SliceTimingCorrected": true, "StartTime": 0.0}}')
    assert _fmriprep(derivatives).slice_reference() == 0.0
    assert _fmriprep(derivatives, responses={"slice_reference": 1.0}).slice_reference() == 1.0, "the manifest rules"


def test_runs_whose_moments_differ_are_refused(derivatives: Path) -> None:
    for story, start_s in (("frog", 0.0), ("bear", TR_S / 2)):
        write_fmriprep_run(derivatives, "sub-01", story)
        (sidecar,) = derivatives.glob(f"sub-01/func/*task-{story}*_bold.json")
        sidecar.write_text(f'{{"RepetitionTime": {TR_S}, "StartTime": {start_s}}}')
    with pytest.raises(ManifestError, match=r"bear.*json says that values belong to 0\.50 .*first run has 0\.00"):
        _fmriprep(derivatives, ["frog", "bear"]).responses("sub-01", "bear")
    said = {"slice_reference": 0.25}
    assert _fmriprep(derivatives, ["frog", "bear"], said).responses("sub-01", "bear") is not None


def test_cosines_among_the_confounds_are_a_filter(derivatives: Path) -> None:
    write_fmriprep_run(derivatives, "sub-01", "frog")
    passed = _fmriprep(derivatives, responses={"high_pass_s": None, "confounds": ["trans_*", "cosine*"]})
    assert passed.response_filter() == ResponseFilter(
        0, 128.0, source="cleaned by brainlit; its confounds are each subject's own and stay in features"
    )
    without = _fmriprep(derivatives, responses={"high_pass_s": None, "confounds": ["trans_*"]})
    assert without.response_filter() is None


def test_a_deleted_folder_names_nobody_but_stories_say_so(derivatives: Path) -> None:
    source = _fmriprep(derivatives)
    assert source.subject_names() == []
    assert "derivatives" not in str(source.settings())
    with pytest.raises(FileNotFoundError, match="holds no run of any story in space 'MNI"):
        source.story("frog")
    named = _fmriprep(derivatives, subjects=["sub-01"])
    assert named.subject_names() == ["sub-01"]
    assert named.subject_files("sub-01") == []


def test_several_runs_are_repeats_only_if_the_manifest_says_so(derivatives: Path) -> None:
    runs = [write_fmriprep_run(derivatives, "sub-01", "frog", f"run-{k}", seed=k) for k in (1, 2, 3)]
    with pytest.raises(ManifestError, match=r"sub-01 has 3 runs of 'frog': run-1, run-2, run-3\. If .*repeats: all"):
        _fmriprep(derivatives).responses("sub-01", "frog")
    every = _fmriprep(derivatives, {"frog": {"repeats": "all"}}).responses("sub-01", "frog")
    assert every is not None
    assert np.allclose(every.repeats, [clean_series(run, TR_S) for run in runs], atol=1e-3)
    chosen = _fmriprep(derivatives, {"frog": {"repeats": ["run-3", "1"]}}).responses("sub-01", "frog")
    assert chosen is not None
    assert chosen.repeats is not None
    assert np.allclose(chosen.repeats[0], every.repeats[2])
    assert np.allclose(chosen.repeats[1], every.repeats[0])
    with pytest.raises(ManifestError, match=r"repeats: 'run-4' means 0 of the runs that sub-01 has: run-1, run-2"):
        _fmriprep(derivatives, {"frog": {"repeats": ["run-4"]}}).responses("sub-01", "frog")


def test_fsaverage5_places_vertices(derivatives: Path) -> None:
    values = write_fmriprep_run(derivatives, "sub-01", "frog", "ses-1", space="fsaverage5")
    source = _fmriprep(derivatives, responses={"space": "fsaverage5", "preprocessed": True})
    subject = source.subject("sub-01")
    assert subject.vertices is not None
    assert np.array_equal(subject.vertices, np.arange(20484))
    responses = source.responses("sub-01", "frog")
    assert responses is not None
    assert np.allclose(responses.values[:, ::997], clean_series(values[:, ::997], TR_S, None), atol=1e-4)


def test_a_run_without_its_neighbours_is_refused(derivatives: Path) -> None:
    write_fmriprep_run(derivatives, "sub-01", "frog")
    func = derivatives / "sub-01" / "func"
    write_sidecar(next(func.glob("*.json")), 2.0)
    with pytest.raises(ManifestError, match=r"json says a repetition time of 2\.0 s, but 'frog' has 1\.5 s"):
        _fmriprep(derivatives, {"frog": {"tr_s": 1.5}}).responses("sub-01", "frog")
    next(func.glob("*.tsv")).unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*desc-confounds_timeseries.tsv beside it"):
        _fmriprep(derivatives, responses={"confounds": ["csf"]}).responses("sub-01", "frog")
    next(func.glob("*mask*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*desc-brain_mask.nii.gz beside it"):
        _fmriprep(derivatives).responses("sub-01", "frog")
    with pytest.raises(FileNotFoundError, match="holds no sub-02"):
        _fmriprep(derivatives, subjects=["sub-02"]).subject("sub-02")
    with pytest.raises(SourceError, match=r"no run of task 'listen_frog'\. Known: frog"):
        _fmriprep(derivatives, responses={"task": "listen_{story}"}, subjects=["sub-01"]).subject("sub-01")


def test_named_volumes_have_a_mask_that_also_places_region_files(derivatives: Path) -> None:
    folder = derivatives.parents[1]
    values = np.random.default_rng(0).normal(size=(*SHAPE, N_TRS)).astype(np.float32)
    image = nib.Nifti1Image(values, AFFINE)
    image.header.set_zooms((3.0, 3.0, 4.0, 2.5))
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, folder / "anna_frog.nii")
    inside = np.zeros(SHAPE, dtype=np.uint8)
    inside[1:, 0, 1] = 1
    nib.save(nib.Nifti1Image(inside, AFFINE), folder / "anna.nii.gz")
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[2], labels[0] = 7, 3
    nib.save(nib.Nifti1Image(labels, AFFINE), folder / "labels.nii.gz")
    (folder / "names.tsv").write_text("index\tname\n3\tIFG\n7\tSTG\n")
    regions = {"file": "labels.nii.gz", "names": "names.tsv"}
    said = {"file": "{subject}_{story}.nii", "mask": "{subject}.nii.gz", "region_files": regions}
    stories = {"frog": {"silence_after_s": 40}}
    source = _source(folder, said, stories, subjects=["anna"])
    assert source.story("frog").timebase.tr_s == 2.5, "the header says it"
    subject = source.subject("anna")
    assert {name: mask.tolist() for name, mask in subject.regions.items()} == {"STG": [False, True]}
    assert subject.coordinates_mm is not None
    assert subject.coordinates_mm.tolist() == [(AFFINE @ [x, 0, 1, 1])[:3].tolist() for x in (1, 2)]
    responses = source.responses("anna", "frog")
    assert responses is not None
    assert np.allclose(responses.values, clean_series(values[1:, 0, 1].T, 2.5), atol=1e-4)
    assert [path.name for path in source.subject_files("anna")][:2] == ["anna_frog.nii", "anna.nii.gz"]
    np.save(folder / "anna_frog.npy", values[..., 0])
    np.save(folder / "anna_frog.npy", values.reshape(-1, N_TRS).T)
    table = {"file": "{subject}_{story}.npy", "mask": "{subject}.nii.gz"}
    with pytest.raises(ManifestError, match=r"anna_frog\.npy has 18 columns, but .*anna\.nii\.gz has 2 voxels"):
        _source(folder, table, {"frog": {"tr_s": TR_S}}, subjects=["anna"]).subject("anna")


def test_pairs_of_surfaces_stand_side_by_side(derivatives: Path) -> None:
    folder = derivatives.parents[1]
    rng = np.random.default_rng(0)
    sides = {hemi: rng.normal(size=(N_TRS, n)).astype(np.float32) for hemi, n in (("L", 3), ("R", 2))}
    for hemi, values in sides.items():
        arrays = [nib.gifti.GiftiDataArray(row) for row in values]
        nib.save(nib.gifti.GiftiImage(darrays=arrays), folder / f"anna_frog_{hemi}.func.gii")
    said = {"file": "{subject}_{story}_{hemi}.func.gii", "preprocessed": True}
    source = _source(folder, said, {"frog": {"tr_s": TR_S}}, subjects=["anna"])
    responses = source.responses("anna", "frog")
    assert responses is not None
    expected = clean_series(np.hstack([sides["L"], sides["R"]]), TR_S, None)
    assert np.allclose(responses.values, expected, atol=1e-5)
    assert source.subject("anna").vertices is None
    said["space"] = "fsaverage5"
    with pytest.raises(ManifestError, match="has 5 columns, but space fsaverage5 has 20484 vertices"):
        _source(folder, said, {"frog": {"tr_s": TR_S}}, subjects=["anna"]).subject("anna")
    (folder / "anna_frog_R.func.gii").unlink()
    with pytest.raises(FileNotFoundError, match="anna_frog_R"):
        source.responses("anna", "frog")


def _volumes(folder: Path, tr: float, unit: str = "sec") -> Array:
    """Two runs of anna, and a mask of all voxels; returns the values of frog, (n_trs, n_voxels)."""
    nib.save(nib.Nifti1Image(np.ones(SHAPE, dtype=np.uint8), AFFINE), folder / "mask.nii.gz")
    values = np.random.default_rng(0).normal(size=(*SHAPE, N_TRS)).astype(np.float32)
    image = nib.Nifti1Image(values, AFFINE)
    image.header.set_zooms((3.0, 3.0, 4.0, tr))
    image.header.set_xyzt_units("mm", unit)
    nib.save(image, folder / "anna_frog.nii.gz")
    return values.reshape(-1, N_TRS).T


def test_a_header_that_says_nothing_is_not_believed(derivatives: Path) -> None:
    folder = derivatives.parents[1]
    said = {"file": "{subject}_{story}.nii.gz", "mask": "mask.nii.gz"}
    for tr, unit, words in ((1.0, "sec", "says 1 s, which"), (0.0, "sec", "says 0"), (1.5, "unknown", "no unit"),
                            (1500.0, "sec", r"milliseconds\? Then it is 1\.5 s")):  # fmt: skip
        values = _volumes(folder, tr, unit)
        with pytest.raises(ManifestError, match=rf"stories\.frog: give tr_s.*anna_frog\.nii\.gz .*{words}"):
            _source(folder, said, subjects=["anna"]).story("frog")
    assert _source(folder, said, {"frog": {"tr_s": TR_S}}, subjects=["anna"]).story("frog").timebase.tr_s == TR_S
    sidecar = folder / "anna_frog.json"
    sidecar.write_text('{"RepetitionTime": 1.5, "StartTime": 0.3}')
    source = _source(folder, said, subjects=["anna"])
    assert (source.story("frog").timebase.tr_s, source.slice_reference()) == (1.5, pytest.approx(0.2))
    responses = source.responses("anna", "frog")
    assert responses is not None
    assert np.allclose(responses.values, clean_series(values, 1.5), atol=1e-4)
    with pytest.raises(ManifestError, match=r"anna_frog\.json says a repetition time of 1\.5 s, but 'frog' has 2\.0 s"):
        _source(folder, said, {"frog": {"tr_s": 2.0}}, subjects=["anna"]).responses("anna", "frog")
    with pytest.raises(ManifestError, match=r"tr_s is 1500; need seconds: are these milliseconds\? Then it is 1\.5 s"):
        _source(folder, said, {"frog": {"tr_s": 1500}}, subjects=["anna"]).story_names()


def test_headers_of_one_story_that_differ_are_no_evidence(derivatives: Path) -> None:
    folder = derivatives.parents[1]
    _volumes(folder, 1.5)
    (folder / "anna_frog.nii.gz").rename(folder / "ben_frog.nii.gz")
    _volumes(folder, 1.2)
    said = {"file": "{subject}_{story}.nii.gz", "mask": "mask.nii.gz"}
    with pytest.raises(ManifestError, match=r"ben_frog\.nii\.gz says a .* time of 1\.5 s, but 'frog' has 1\.2 s"):
        _source(folder, said, subjects=["anna", "ben"]).responses("ben", "frog")


def test_a_folder_of_other_descriptions_is_read_when_asked_for(derivatives: Path) -> None:
    values = write_fmriprep_run(derivatives, "sub-01", "frog")
    for path in (derivatives / "sub-01" / "func").glob("*desc-preproc*"):
        path.rename(path.with_name(path.name.replace("desc-preproc", "desc-denoised")))
    with pytest.raises(FileNotFoundError, match=r"with desc 'preproc'\. Say responses\.desc: denoised\..*there: den"):
        _fmriprep(derivatives).story("frog")
    source = _fmriprep(derivatives, responses={"desc": "denoised"})
    responses = source.responses("sub-01", "frog")
    assert responses is not None
    assert np.allclose(responses.values, clean_series(values, TR_S), atol=1e-3)


def test_a_pattern_of_confounds_may_be_empty_where_another_run_has_some(
    derivatives: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [(name, story) for name in ("sub-01", "sub-02") for story in ("frog", "bear")]
    runs = {pair: write_fmriprep_run(derivatives, *pair, seed=k) for k, pair in enumerate(pairs)}
    (table,) = derivatives.glob("sub-02/func/*task-bear*.tsv")
    rows = table.read_text().splitlines()
    table.write_text("\n".join(f"{row}\t{'motion_outlier00' if k == 0 else int(k == 5)}" for k, row in enumerate(rows)))
    source = _fmriprep(derivatives, ["frog", "bear"], {"confounds": ["csf", "motion_outlier*"]})
    for (name, story), values in runs.items():
        responses = source.responses(name, story)
        assert responses is not None
        (own,) = derivatives.glob(f"{name}/func/*task-{story}*.tsv")
        names = ["csf", "motion_outlier00"] if own == table else ["csf"]
        expected = clean_series(values, TR_S, confounds=read_confounds(own, names))
        assert np.allclose(responses.values, expected, atol=1e-3)
    assert caplog.text.count("motion_outlier*") == 1
    for names, missing in ((["motion_outlier00"], "motion_outlier00"), (["csf", "non_steady*"], r"non_steady\*")):
        with pytest.raises(ManifestError, match=f"has no column '{missing}'"):
            _fmriprep(derivatives, ["frog", "bear"], {"confounds": names}).responses("sub-01", "frog")


def _grayordinates(path: Path, axis: Any, values: Array) -> None:
    series = nib.cifti2.SeriesAxis(0, 1.5, len(values))
    nib.save(nib.Cifti2Image(values.astype(np.float32), (series, axis)), path)


def test_labels_meet_grayordinates_where_they_are(derivatives: Path) -> None:
    folder = derivatives.parents[1]
    left = nib.cifti2.BrainModelAxis.from_surface([1, 2, 4, 5], 6, "CortexLeft")
    right = nib.cifti2.BrainModelAxis.from_surface([0, 3], 6, "CortexRight")
    voxels = nib.cifti2.BrainModelAxis.from_mask(np.ones((1, 1, 2)), "thalamus_left", AFFINE)
    values = np.random.default_rng(0).normal(size=(N_TRS, 8))
    for story in ("frog", "bear"):
        _grayordinates(folder / f"anna_{story}.dtseries.nii", left + right + voxels, values)
    names = {0: ("???", (0, 0, 0, 0)), 1: ("L_A1_ROI", (1, 0, 0, 1)), 2: ("R_A1_ROI", (1, 0, 0, 1)),
             3: ("pulvinar", (1, 0, 0, 1))}  # fmt: skip
    table = nib.cifti2.LabelAxis(["areas"], [names])
    said = {"file": "{subject}_{story}.dtseries.nii", "region_files": {"file": "areas.dlabel.nii"}}

    def regions(axis: Any, labels: list[int]) -> dict[str, list[int]]:
        nib.save(nib.Cifti2Image(np.array([labels], np.float32), (table, axis)), folder / "areas.dlabel.nii")
        masks = _source(folder, said, ["frog", "bear"], subjects=["anna"]).subject("anna").regions
        return {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}

    expected = {"A1": [2, 5], "A1 left": [2], "A1 right": [5]}
    assert regions(left + right, [0, 0, 1, 0, 0, 2]) == expected, "cortex alone"
    assert regions(right + left, [0, 2, 0, 0, 1, 0]) == expected
    whole = nib.cifti2.BrainModelAxis.from_surface(np.arange(6), 6, "CortexLeft")
    assert regions(whole + right, [1, 0, 0, 0, 1, 0, 0, 2]) == expected, "as many as there are columns"
    assert regions(voxels + right, [0, 3, 0, 2]) == {"A1": [5], "A1 right": [5], "pulvinar": [7]}
    other = nib.cifti2.BrainModelAxis.from_surface(np.arange(6), 7, "CortexLeft")
    with pytest.raises(SourceError, match=r"areas\.dlabel\.nii: its labels of .*LEFT are on a mesh of 7 .* mesh of 6"):
        regions(other, [1] * 6)
    elsewhere = nib.cifti2.BrainModelAxis.from_mask(np.ones((1, 1, 2)), "thalamus_left", np.eye(4))
    with pytest.raises(SourceError, match="its voxels lie on another grid"):
        regions(elsewhere, [1, 1])
    _grayordinates(folder / "anna_bear.dtseries.nii", right + left + voxels, values)
    source = _source(folder, said, ["frog", "bear"], subjects=["anna"])
    source.responses("anna", "frog")
    with pytest.raises(ManifestError, match=r"bear\.dtseries\.nii has as many columns as .*frog.*in another order"):
        source.responses("anna", "bear")


def test_labels_of_surfaces_meet_grayordinates_where_they_are(derivatives: Path) -> None:
    folder = derivatives.parents[1]
    left = nib.cifti2.BrainModelAxis.from_surface([1, 2, 4], 5, "CortexLeft")
    right = nib.cifti2.BrainModelAxis.from_surface([0, 3], 5, "CortexRight")
    _grayordinates(folder / "anna_frog.dtseries.nii", left + right, np.random.default_rng(0).normal(size=(N_TRS, 5)))
    for hemi, labels in (("lh", [0, 1, 0, 1, 0]), ("rh", [0, 0, 0, 1, 1])):
        colours = np.array([[1, 1, 1, 0, 0], [2, 2, 2, 0, 0]])
        nib.freesurfer.write_annot(folder / f"{hemi}.x.annot", np.array(labels), colours, ["???", "A1"], True)
    said = {"file": "{subject}_{story}.dtseries.nii", "region_files": {"file": "{hemi}.x.annot"}}
    regions = _source(folder, said, subjects=["anna"]).subject("anna").regions
    assert {name: np.flatnonzero(mask).tolist() for name, mask in regions.items()} == {
        "A1": [0, 4], "A1 left": [0], "A1 right": [4],
    }  # fmt: skip


def test_labels_of_volumes_meet_the_voxels_of_the_responses(derivatives: Path) -> None:
    write_fmriprep_run(derivatives, "sub-01", "frog", outside=(0, 5))
    folder = derivatives.parents[1]
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels.flat[[0, 6, 7]] = 4
    nib.save(nib.Nifti1Image(labels, AFFINE), folder / "areas.nii.gz")
    (folder / "areas.tsv").write_text("index\tname\n4\tSTG\n")
    subject = _fmriprep(derivatives, responses={"region_files": {"file": "areas.nii.gz"}}).subject("sub-01")
    assert np.flatnonzero(subject.regions["STG"]).tolist() == [4, 5], "voxels 6 and 7; 0 and 5 are no columns"
    other = np.ones(SHAPE, dtype=np.uint8)
    other.flat[[1, 2]] = 0
    nib.save(nib.Nifti1Image(other, AFFINE), folder / "other.nii.gz")
    regions = {"file": "areas.nii.gz", "mask": "other.nii.gz"}
    with pytest.raises(SourceError, match=r"other\.nii\.gz holds other voxels than .*mask"):
        _fmriprep(derivatives, responses={"region_files": regions}).subject("sub-01")
    nib.save(nib.Nifti1Image(labels, AFFINE + np.eye(4)), folder / "areas.nii.gz")
    with pytest.raises(SourceError, match=r"areas\.nii\.gz both have shape .*lie elsewhere in space"):
        _fmriprep(derivatives, responses={"region_files": {"file": "areas.nii.gz"}}).subject("sub-01")
