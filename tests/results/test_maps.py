"""Maps of whole runs: which there are, what their sidecars say, whose folder it is, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from brainlit.encoding.result import ProbeResult
from brainlit.files import write_json
from brainlit.results.map_numbers import MapsError, ProbeFile, formula_of
from brainlit.results.maps import MapRequest, write_maps
from brainlit.results.record import load_record, record_path, save_record
from brainlit.results.run_directory import RunDirectory, read_json_if_there, write_json_atomic
from brainlit.results.summary import RUN_FILE
from brainlit.store import StoryStore, build_store
from brainlit.stories import Subject
from tests.results.fake_run import FakeBrain, fake_record
from tests.results.test_map_places import voxels
from tests.toy import ToySource

N_LEFT = 10_242


def wanted(**settings: Any) -> MapRequest:
    return MapRequest(**settings)


def read_back(folder: Path, name: str) -> np.ndarray:
    """Maps of a CIFTI file over all vertices, (n_maps, 20484)."""
    return np.asarray(nib.load(folder / "sub-1" / "func" / name).dataobj)


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Hundreds of small files; that they reach the disk is tested with `brainlit.files`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brainlit.files.to_disk", lambda _: None)
        yield


@pytest.fixture(scope="module")
def written(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The maps of a subject of a run, as they come without options."""
    folder = tmp_path_factory.mktemp("maps") / "maps"
    files = write_maps(run, folder, wanted(subjects=["sub-1"]))
    assert {name: len(own) for name, own in files.items()} == {"sub-1": 30}
    return folder


def test_each_stage_has_the_numbers_of_its_record(run: RunDirectory, written: Path) -> None:
    before, after = (load_record(record_path(run.probes, "sub-1", epoch)) for epoch in (0, 4))
    assert before.vertices is not None
    for stage, expected in (("before", before.r), ("after", after.r), ("difference", after.r - before.r)):
        name = f"sub-1_space-fsaverage5_stat-rBackbone_desc-{stage}Layer2_statmap.dscalar.nii"
        maps = read_back(written, name)
        np.testing.assert_allclose(maps[0, before.vertices], expected, atol=1e-6)
        assert np.isfinite(maps).sum() == np.isfinite(expected).sum()
        for hemi, at in (("L", slice(0, N_LEFT)), ("R", slice(N_LEFT, None))):
            gifti = nib.load(written / "sub-1" / "func" / f"sub-1_hemi-{hemi}_{name[6:-12]}.func.gii")
            np.testing.assert_array_equal(gifti.darrays[0].data, maps[0, at])
    ceiling = read_back(written, "sub-1_space-fsaverage5_stat-ceiling_statmap.dscalar.nii")
    np.testing.assert_allclose(ceiling[0, before.vertices], before.ceiling, atol=1e-6)


def test_a_share_has_no_number_where_nothing_is_explained(run: RunDirectory, written: Path) -> None:
    result = ProbeResult.load(record_path(run.probes, "sub-1", 4))
    vertices = load_record(record_path(run.probes, "sub-1", 4)).vertices
    r2 = result.r2_by_model
    expected = [
        (b + low - both) / b if b > 0 else np.nan
        for b, low, both in zip(r2["backbone"], r2["low_level"], r2["backbone+low_level"], strict=True)
    ]
    assert np.isnan(expected).any()
    maps = read_back(written, "sub-1_space-fsaverage5_stat-lowLevelShare_desc-afterLayer2_statmap.dscalar.nii")
    np.testing.assert_allclose(maps[0, vertices], expected, rtol=1e-5)


def test_every_file_has_a_sidecar_that_says_what_it_is(written: Path) -> None:
    files = [path for path in (written / "sub-1").rglob("*_statmap.*") if path.suffix != ".json"]
    entities = r"sub-1(_hemi-[LR])?_space-fsaverage5_stat-[A-Za-z0-9]+(_desc-[A-Za-z0-9]+)?_statmap"
    for path in files:
        stem = path.name.partition(".")[0]
        assert re.fullmatch(entities, stem)
        said = json.loads(path.with_name(f"{stem}.json").read_text())
        assert said["Simulated"] is True
        assert "The listeners are simulated" in said["Description"]
        assert (said["NumberOfTRs"], said["ScoredStories"]) == (110, ["story4", "story5"])
        assert said["NoNumber"].startswith("NaN: ")
        assert (said["NumberOfVoxels"], said["Run"], said["Units"]) == (24, "fake/one", "1")
        assert said.get("AnatomicalStructurePrimary") == {"hemi-L": "CortexLeft", "hemi-R": "CortexRight"}.get(
            stem[6:12]
        )
    name = "sub-1_space-fsaverage5_stat-partitionBackbone_desc-differenceLayer2_statmap.json"
    said = json.loads((written / "sub-1" / "func" / name).read_text())
    assert said["Description"].startswith("part: only speech model of the voxels of sub-1, difference, layer 2. ")
    assert said["Formula"].startswith("after - before of: unique and shared R2 from the seven nested models; the parts")
    assert (said["Stage"], said["Epoch"], said["Layer"]) == ("difference", [0, 4], 2)
    assert said["Maps"] == ["partition_backbone difference layer 2"]
    said = json.loads((written / "sub-1" / "func" / "sub-1_space-fsaverage5_stat-ceiling_statmap.json").read_text())
    assert (said["Stage"], said["Layer"], said["NumberOfVoxelsWithNumber"]) == ("the responses alone", None, [16])


def test_the_folder_is_a_derivative_that_says_whose_it_is(written: Path) -> None:
    said = json.loads((written / "dataset_description.json").read_text())
    assert (said["DatasetType"], said["BIDSVersion"]) == ("derivative", "1.10.0")
    assert said["GeneratedBy"][0]["Name"] == "brainlit"
    assert "The listeners are simulated" in said["Name"]
    assert "SourceDatasets" not in said, "they are nobody's data"
    assert (written / ".bidsignore").read_text() == "*_statmap.*\n"
    assert "The listeners are simulated" in (written / "README.md").read_text()


def test_layers_are_maps_of_one_file(run: RunDirectory, tmp_path: Path) -> None:
    request = wanted(layers="all", stages=["after"], formats=["cifti"], subjects=["sub-1"])
    (file,) = write_maps(run, tmp_path / "maps", request)["sub-1"]
    assert file.name == "sub-1_space-fsaverage5_stat-rBackbone_desc-afterLayers1to2_statmap.dscalar.nii"
    record = load_record(record_path(run.probes, "sub-1", 4))
    assert list(nib.load(file).header.get_axis(0).name) == ["r_backbone after layer 1", "r_backbone after layer 2"]
    maps = read_back(tmp_path / "maps", file.name)
    for row, layer in zip(maps, (1, 2), strict=True):
        np.testing.assert_allclose(row[record.vertices], record.r_by_layer[layer], atol=1e-6)
    assert not np.allclose(record.r_by_layer[1], record.r_by_layer[2])
    (last,) = write_maps(run, tmp_path / "maps", wanted(layers=[-2], **vars_of(request)))["sub-1"]
    np.testing.assert_array_equal(read_back(tmp_path / "maps", last.name)[0], maps[0])


def vars_of(request: MapRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("stages", "formats", "subjects")}


def test_measures_come_by_name_or_by_what_they_begin_with(run: RunDirectory, tmp_path: Path) -> None:
    request = {"stages": ["after"], "formats": ["cifti"], "subjects": ["sub-1"]}
    files = write_maps(
        run, tmp_path / "maps", wanted(measures=["partition", "r2_backbone+low_level+semantic"], **request)
    )["sub-1"]
    stats = [re.search(r"stat-(\w+?)_", file.name)[1] for file in files]  # type: ignore[index]
    assert len([name for name in stats if name.startswith("partition")]) == 7
    assert "partitionBackboneAndLowLevel" in stats
    parts = [read_back(tmp_path / "maps", file.name) for file in files if "stat-partition" in file.name]
    (joint,) = [file for file in files if "stat-r2BackbonePlusLowLevelPlusSemantic" in file.name]
    np.testing.assert_allclose(sum(parts), read_back(tmp_path / "maps", joint.name), atol=1e-6)
    said = json.loads((tmp_path / "maps" / "sub-1" / "func" / f"{joint.name.partition('.')[0]}.json").read_text())
    assert said["Formula"].endswith("predicted from backbone + low_level + semantic")
    assert formula_of("impact_residual_lag0").endswith(
        "low-level features were regressed out of the backbone's features at lag 0"
    )


def test_a_second_call_changes_nothing(run: RunDirectory, tmp_path: Path) -> None:
    request = wanted(stages=["before"], subjects=["sub-1"], measures=["ceiling", "r_backbone"])

    def content() -> dict[str, bytes]:
        write_maps(run, tmp_path / "maps", request)
        return {str(path): path.read_bytes() for path in (tmp_path / "maps").rglob("*") if path.is_file()}

    first = content()
    assert first == content()
    assert [path.name for path in tmp_path.iterdir()] == ["maps"], "neither locks nor halves are left"


def test_the_maps_of_another_run_are_replaced_only_when_that_is_said(run: RunDirectory, tmp_path: Path) -> None:
    folder, request = tmp_path / "maps", {"stages": ["before"], "formats": ["cifti"], "measures": ["r_backbone"]}
    write_maps(run, folder, wanted(**request))
    other = RunDirectory.create(tmp_path, "fake", "two")
    save_record(*fake_record(FakeBrain("sub-1"), "before", 0), other.probes)
    with pytest.raises(MapsError, match=r"holds the maps of another run \(fake/one, started .*--overwrite"):
        write_maps(other, folder, wanted(**request))
    assert (folder / "sub-2").is_dir()
    write_maps(other, folder, wanted(**request, overwrite=True))
    names = [path.name for path in sorted(folder.rglob("*_statmap.*"))]
    assert names == [
        f"sub-1_space-fsaverage5_stat-rBackbone_desc-beforeLayer2_statmap.{end}" for end in ("dscalar.nii", "json")
    ]
    assert json.loads((folder / "dataset_description.json").read_text())["brainlit"]["Run"] == "fake/two"


@pytest.mark.parametrize("mine", ["notes.txt", "dataset_description.json"])
def test_a_folder_of_something_else_is_left_alone(mine: str, run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / mine).write_text('{"Name": "my data"}')
    with pytest.raises(MapsError, match="holds something else than maps"):
        write_maps(run, tmp_path, wanted(overwrite=True))
    assert [path.name for path in tmp_path.iterdir()] == [mine]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measures": ["r_bakbone"]}, r"no 'r_bakbone' of the voxels of sub-1. Did you mean 'r_backbone'\?"),
        ({"stages": ["befre"]}, r"no stage 'befre'. Did you mean 'before'\?"),
        ({"formats": ["gii"]}, r"no format 'gii'. .*Known: cifti, gifti, nifti, pycortex"),
        ({"subjects": ["sub-3"]}, r"no subject 'sub-3'"),
        ({"space": "MNI-2009"}, r"the space is 'MNI-2009'; BIDS has letters and digits"),
        ({"layers": [7]}, r"epoch-004.h5 keeps the voxels of layer 1, 2 alone, not of 7: .*brainlit probe RUN"),
        ({"layers": "all", "measures": ["ceiling"]}, r"other than the compared one \(2\) only r_backbone is kept"),
        ({"formats": ["nifti"]}, r"fake/one do not say where all voxels lie; .* nothing says where it is.*--store"),
        ({"formats": ["nifti"], "store": Path("gone")}, r"its story store does, but gone is not there. Put it"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_written(
    settings: dict[str, Any], message: str, run: RunDirectory, tmp_path: Path
) -> None:
    with pytest.raises(MapsError, match=message):
        write_maps(run, tmp_path / "maps", wanted(**settings))
    assert not (tmp_path / "maps").exists()


def test_a_run_that_was_not_probed_says_so(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "fake", "none")
    with pytest.raises(FileNotFoundError, match="holds no probe from before or after training"):
        write_maps(run, tmp_path / "maps", wanted())


def test_probes_that_were_not_made_alike_have_no_difference(small_run: RunDirectory, tmp_path: Path) -> None:
    path = record_path(small_run.probes, "sub-1", 4)
    with h5py.File(path, "a") as file:
        del file["record"].attrs["fingerprint.crc32"]
        file["record"].attrs["fingerprint"] = "another"
        del file["record"]["r_by_layer"]
        file["record"]["vertices"] = np.arange(24)
        file.attrs["version"] = 1
    with pytest.raises(MapsError, match="no 'difference' of sub-1; there is before, after"):
        write_maps(small_run, tmp_path / "maps", wanted(stages=["difference"]))
    with pytest.raises(MapsError, match="keeps the voxels of layer 2 alone: others were not probed, or it was written"):
        write_maps(small_run, tmp_path / "maps", wanted(layers="all"))
    assert not any(name.startswith(("impact", "r_rest")) for name in ProbeFile(path).measures), "of other formulas"
    with pytest.raises(MapsError, match="no 'impact' of the voxels of sub-1"):
        write_maps(small_run, tmp_path / "maps", wanted(measures=["impact"]))


def test_names_that_are_one_label_in_bids_are_refused(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "fake", "twins")
    record, result = fake_record(FakeBrain("s_1"), "before", 0)
    for name in ("s_1", "s1"):
        save_record(record.__class__(**{**vars(record), "subject": name}), result, run.probes)
    with pytest.raises(MapsError, match=r"s1 and s_1 would be called sub-s1"):
        write_maps(run, tmp_path / "maps", wanted())


# --- volumes, from the store ---


class Scanned(ToySource):
    """sub-A has voxels on a tilted grid; nothing says where those of sub-B lie."""

    name = "petit_prince"

    def subject(self, name: str) -> Subject:
        there = voxels("tilted")[2][:12] if name == "sub-A" else None
        return Subject(name, 12, coordinates_mm=there)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Path]:
    """A run of two subjects of `Scanned`, and its store."""
    root = tmp_path_factory.mktemp("scanned")
    build_store(Scanned(), root / "store", progress=False).close()
    run = RunDirectory.create(root, "fake", "scanned")
    for name in ("sub-A", "sub-B"):
        save_record(*fake_record(FakeBrain(name, 12), "before", 0, places=False), run.probes)
    data = {"store": "petit_prince", "store_fingerprint": StoryStore.open(root / "store").fingerprint}
    write_json_atomic(run.path / RUN_FILE, {"simulated": False, "data_module": data})
    return run, root / "store"


def test_volumes_have_their_numbers_where_the_store_says(scanned: tuple[RunDirectory, Path], tmp_path: Path) -> None:
    run, store = scanned
    _, affine, centres_mm = voxels("tilted")
    request = {"subjects": ["sub-A"], "store": store, "measures": ["r_backbone"]}
    (file,) = write_maps(run, tmp_path / "maps", wanted(**request))["sub-A"]
    assert file.name == "sub-A_space-orig_stat-rBackbone_desc-beforeLayer2_statmap.nii.gz"
    read, r = nib.load(file), load_record(record_path(run.probes, "sub-A", 0)).r
    at = np.rint(nib.affines.apply_affine(np.linalg.inv(read.affine), centres_mm[:12])).astype(int)
    np.testing.assert_allclose(read.get_fdata()[tuple(at.T)], r, atol=1e-6)
    said = json.loads((tmp_path / "maps" / "sub-A" / "func" / f"{file.name[:-7]}.json").read_text())
    assert (said["Simulated"], said["OutsideOfVoxels"]) == (False, "NaN")
    about = json.loads((tmp_path / "maps" / "dataset_description.json").read_text())
    assert about["SourceDatasets"] == [{"URL": "https://openneuro.org/datasets/ds003643"}]
    assert "simulated" not in (tmp_path / "maps" / "README.md").read_text()
    like = tmp_path / "like.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((9, 8, 7), np.uint8), affine), like)
    (file,) = write_maps(run, tmp_path / "maps", wanted(**request, like=like, space="MNI152NLin2009cAsym"))["sub-A"]
    assert "_space-MNI152NLin2009cAsym_" in file.name
    assert nib.load(file).shape == (9, 8, 7)


def test_volumes_are_in_the_standard_space_that_a_record_names(
    scanned: tuple[RunDirectory, Path], tmp_path: Path
) -> None:
    _, store = scanned
    run = RunDirectory.create(tmp_path, "fake", "standard")
    write_json_atomic(run.path / RUN_FILE, read_json_if_there(scanned[0].path / RUN_FILE))
    record, result = fake_record(FakeBrain("sub-A", 12), "before", 0, places=False)
    save_record(replace(record, facts={**record.facts, "space": "MNI152NLin6Asym"}), result, run.probes)
    request = {"subjects": ["sub-A"], "store": store, "measures": ["r_backbone"]}
    (file,) = write_maps(run, tmp_path / "maps", wanted(**request))["sub-A"]
    assert "_space-MNI152NLin6Asym_" in file.name
    assert int(nib.load(file).header["sform_code"]) == 4, "NIfTI's code of MNI space"
    (file,) = write_maps(run, tmp_path / "own", wanted(**request, space="T1w"))["sub-A"]
    assert "_space-T1w_" in file.name


def test_one_error_says_who_has_no_places_and_what_the_store_would_need(
    scanned: tuple[RunDirectory, Path], tmp_path: Path
) -> None:
    run, store = scanned
    message = (
        r"nothing says where the voxels of sub-B lie, as gifti/cifti/nifti/pycortex must know. The store needs one"
        r" of these - gifti and cifti: vertices on fsaverage5 .*; nifti: voxel centres in mm .*; pycortex: columns .*"
        r"--subjects"
    )
    with pytest.raises(MapsError, match=message):
        write_maps(run, tmp_path / "maps", wanted(store=store))
    with pytest.raises(
        MapsError, match=r"voxels of sub-A lie, as pycortex must know. The store needs - pycortex: columns"
    ):
        write_maps(run, tmp_path / "maps", wanted(store=store, subjects=["sub-A"], formats=["pycortex"]))
    assert not (tmp_path / "maps").exists()


def test_another_store_is_refused(scanned: tuple[RunDirectory, Path], toy_store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(MapsError, match=r"is not the store that .*scanned was made with. Name that one: --store"):
        write_maps(scanned[0], tmp_path / "maps", wanted(store=toy_store_path))


def test_a_pycortex_subject_gets_a_data_set(scanned: tuple[RunDirectory, Path], tmp_path: Path) -> None:
    run, store = scanned
    copy = tmp_path / "store"
    copy.mkdir()
    for path in store.rglob("*.*"):
        if path.is_file() and path.suffix in (".json", ".h5"):
            (copy / path.relative_to(store)).parent.mkdir(exist_ok=True)
            (copy / path.relative_to(store)).write_bytes(path.read_bytes())
    index = json.loads((copy / "store.json").read_text())
    index["settings"]["source"] = "lebel2023"
    index.pop("brainlit_checksum", None)
    write_json(copy / "store.json", index)
    request = {"subjects": ["sub-B"], "store": copy, "measures": ["r_backbone"]}
    (file,) = write_maps(run, tmp_path / "maps", wanted(**request))["sub-B"]
    assert file.name == "sub-B_space-subBAuto_stat-rBackbone_desc-beforeLayer2_statmap.hdf"
    with h5py.File(file) as h5:
        view = json.loads(h5["views"]["r_backbone_before_layer_2"][0])
        np.testing.assert_allclose(
            h5["data"][view[0]][:], load_record(record_path(run.probes, "sub-B", 0)).r, atol=1e-6
        )
        assert dict(h5["data"][view[0]].attrs) == {"subject": "sub-B", "mask": "thick"}
    said = json.loads(file.with_suffix(".json").read_text())
    assert said["SpatialReference"] == "pycortex subject sub-B, transform sub-B_auto, mask thick"
