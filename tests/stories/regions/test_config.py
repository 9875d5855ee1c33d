"""Every kind of file gives the same regions, in the order of the columns; what does not fit is refused with a cure."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable

from brainlit.stories.base import SourceError
from brainlit.stories.regions.config import RegionConfig, clean_name, read_subject_regions, region_files
from brainlit.stories.regions.hcp_mmp1 import HCP_AREAS, HCP_GROUPS, grouped

LEFT = np.array([0, 1, 1, 2, 0, 2, 1])
RIGHT = np.array([2, 2, 0, 1, 1, 0, 0])
NAMES = ["???", "A1", "44"]
N = len(LEFT) + len(RIGHT)
BOTH = np.concatenate([LEFT, RIGHT])
SHAPE = (3, 4, 5)
DOCS = Path(__file__).parents[3] / "docs" / "regions.md"


def write_annot(path: Path, labels: np.ndarray, names: list[str]) -> None:
    colours = np.array([[9 * k + 1, k, k, 0, 0] for k in range(len(names))])
    nibabel.freesurfer.write_annot(path, labels, colours, names, fill_ctab=True)


def write_gifti(path: Path, labels: np.ndarray, names: list[str]) -> None:
    table = GiftiLabelTable()
    for key, name in enumerate(names):
        label = GiftiLabel(key, 0.1 * key, 0, 0, 1)
        label.label = name
        table.labels.append(label)
    data = GiftiDataArray(labels.astype(np.int32), intent="NIFTI_INTENT_LABEL", datatype="NIFTI_TYPE_INT32")
    nibabel.save(GiftiImage(labeltable=table, darrays=[data]), path)


def sided(side: str) -> list[str]:
    return ["???", *(f"{side}_{name}_ROI" for name in NAMES[1:])]


def annot(root: Path) -> RegionConfig:
    for hemi, side, labels in (("lh", "L", LEFT), ("rh", "R", RIGHT)):
        write_annot(root / f"{hemi}.HCPMMP1.annot", labels, sided(side))
    return RegionConfig(file="{hemi}.HCPMMP1.annot")


def gifti(root: Path) -> RegionConfig:
    (root / "sub-1").mkdir()
    for hemi, labels in (("L", LEFT), ("R", RIGHT)):
        write_gifti(root / "sub-1" / f"sub-1_hemi-{hemi}.label.gii", labels, NAMES)
    return RegionConfig(file="{subject}/{subject}_hemi-{hemi}.label.gii")


def dlabel(root: Path) -> RegionConfig:
    from nibabel.cifti2 import BrainModelAxis, Cifti2Image, LabelAxis

    left = BrainModelAxis.from_surface(np.arange(len(LEFT)), 9, "CortexLeft")
    right = BrainModelAxis.from_surface(np.arange(len(RIGHT)), 9, "CortexRight")
    names = ["???", "L_A1_ROI", "L_44_ROI", "R_A1_ROI", "R_44_ROI"]
    values = np.concatenate([LEFT, np.where(RIGHT > 0, RIGHT + 2, 0)])
    table = LabelAxis(["areas"], [{key: (name, (0, 0, 0, 1)) for key, name in enumerate(names)}])
    nibabel.save(Cifti2Image(values[None].astype(np.float32), (table, left + right)), root / "areas.dlabel.nii")
    return RegionConfig(file="areas.dlabel.nii")


def npz(root: Path) -> RegionConfig:
    left, right = np.r_[LEFT, 0 * RIGHT], np.r_[0 * LEFT, RIGHT]
    as_masks = {"lh_A1": left == 1, "rh_A1": (right == 1).astype(np.int8)}
    as_columns = {"L_44_ROI": np.flatnonzero(left == 2), "44_R": np.flatnonzero(right == 2)}
    np.savez(root / "a.npz", **as_masks, **as_columns)
    return RegionConfig(file="a.npz")


def long_table(root: Path) -> RegionConfig:
    side = np.repeat(["left", "right"], [len(LEFT), len(RIGHT)])
    rows = [f"{side[k]} {NAMES[BOTH[k]]},{k}" for k in np.flatnonzero(BOTH)]
    (root / "a.csv").write_text("\n".join(["region,voxel", *rows]))
    return RegionConfig(file="a.csv")


def wide_table(root: Path) -> RegionConfig:
    is_left = np.arange(N) < len(LEFT)
    header, cells = ["voxel"], [np.arange(N)]
    for key, name in ((1, "A1"), (2, "44")):
        for hemi in ("lh", "rh"):
            header.append(f"{hemi}.{name}")
            cells.append((key == BOTH) & (is_left == (hemi == "lh")))
    rows = ["\t".join(map(str, row)) for row in np.array(cells, dtype=int).T]
    (root / "a.tsv").write_text("\n".join(["\t".join(header), *rows]) + "\n")
    return RegionConfig(file="a.tsv")


def npy(root: Path) -> RegionConfig:
    np.save(root / "a.npy", np.concatenate([LEFT, np.where(RIGHT > 0, RIGHT + 2, 0)]))
    (root / "a.tsv").write_text("index\tname\n0\tnothing\n1\tL_A1_ROI\n2\tL_44_ROI\n3\tR_A1_ROI\n4\tR_44_ROI\n")
    return RegionConfig(file="a.npy")


def write_volume(root: Path, where: str, order: str) -> None:
    """Labels and mask with the voxels that C (x slowest) or F (x fastest) order turns into BOTH; others hold 9."""
    spots = np.random.default_rng(0).permutation(np.prod(SHAPE))[:N]
    inside = np.zeros(SHAPE, dtype=np.uint8)
    inside.flat[spots] = 1
    labels = np.full(SHAPE, 9, dtype=np.int16)
    found = np.argwhere(inside)
    found = found if order == "C" else found[np.lexsort(found.T)]
    labels[tuple(found.T)] = np.concatenate([LEFT, np.where(RIGHT > 0, RIGHT + 2, 0)])
    (root / where).mkdir(parents=True)
    for name, values in (("mask_thick", inside), ("areas", labels)):
        nibabel.save(nibabel.Nifti1Image(values, np.diag([2, 2, 3, 1])), root / where / f"{name}.nii.gz")
    (root / where / "names.csv").write_text("name,index\nL_A1_ROI,1\nL_44_ROI,2\nR_A1_ROI,3\nR_44_ROI,4\nelsewhere,9\n")


def volume(root: Path) -> RegionConfig:
    write_volume(root, "anat", "C")
    return RegionConfig(file="anat/areas.nii.gz", mask="anat/mask_thick.nii.gz", names="anat/names.csv")


def pycortex_volume(root: Path) -> RegionConfig:
    where = "db/sub-1/transforms/sub-1_auto"
    write_volume(root, where, "F")
    return RegionConfig(file=f"{where}/areas.nii.gz", mask=f"{where}/mask_thick.nii.gz", names=f"{where}/names.csv")


def pycortex_masks(root: Path) -> RegionConfig:
    config = pycortex_volume(root)
    labels = np.asarray(nibabel.load(root / str(config.file)).dataobj).T
    np.savez(root / "masks.npz", A1_L=labels == 1, A1_R=labels == 3, **{"44_L": labels == 2, "44_R": labels == 4})
    return RegionConfig(file="masks.npz", mask=config.mask, mask_order="F")


KINDS = [annot, gifti, dlabel, npz, long_table, wide_table, npy, volume, pycortex_volume, pycortex_masks]


@pytest.mark.parametrize("write", KINDS)
def test_every_kind_of_file_gives_the_same_regions(tmp_path: Path, write: Callable[[Path], RegionConfig]) -> None:
    config = write(tmp_path)
    found = read_subject_regions(config, "sub-1", N, tmp_path)
    assert set(found) == {"A1", "44", "A1 left", "44 left", "A1 right", "44 right"}
    is_left = np.arange(N) < len(LEFT)
    for key, name in ((1, "A1"), (2, "44")):
        np.testing.assert_array_equal(found[name], key == BOTH)
        np.testing.assert_array_equal(found[f"{name} left"], (key == BOTH) & is_left)
        np.testing.assert_array_equal(found[f"{name} right"], (key == BOTH) & ~is_left)
        assert found[name].dtype == np.bool_
    for path in region_files(config, "sub-1", tmp_path):
        assert path.is_file()


@pytest.mark.parametrize("write", KINDS)
def test_a_missing_file_is_named(tmp_path: Path, write: Callable[[Path], RegionConfig]) -> None:
    config = write(tmp_path)
    files = region_files(config, "sub-1", tmp_path)
    for path in files:
        kept = path.read_bytes()
        path.unlink()
        assert region_files(config, "sub-1", tmp_path)[0] == files[0], "the list does not need the files"
        with pytest.raises((FileNotFoundError, SourceError), match=path.name.split(".")[0]):
            read_subject_regions(config, "sub-1", N, tmp_path)
        path.write_bytes(kept)


@pytest.mark.parametrize("write", [annot, gifti, dlabel, npz, npy, volume])
@pytest.mark.parametrize("content", [b"", b"no such thing\n"])
def test_damaged_files_are_refused(tmp_path: Path, write: Callable[[Path], RegionConfig], content: bytes) -> None:
    config = write(tmp_path)
    region_files(config, "sub-1", tmp_path)[0].write_bytes(content)
    with pytest.raises(SourceError):
        read_subject_regions(config, "sub-1", N, tmp_path)


@given(kept=st.floats(0, 0.99))
@settings(max_examples=15, deadline=None, derandomize=True)
@pytest.mark.parametrize("write", [annot, gifti, dlabel, npz, npy, volume])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_files_that_were_cut_off_are_refused(
    tmp_path_factory: pytest.TempPathFactory, write: Callable[[Path], RegionConfig], kept: float
) -> None:
    root = tmp_path_factory.mktemp("cut")
    config = write(root)
    file = region_files(config, "sub-1", root)[0]
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(SourceError):
        read_subject_regions(config, "sub-1", N, root)


@pytest.mark.parametrize("missing", [1, 4, 8, 12, 15])
def test_an_annotation_that_ends_inside_its_last_colour_is_refused(tmp_path: Path, missing: int) -> None:
    file = region_files(annot(tmp_path), "sub-1", tmp_path)[0]
    file.write_bytes(file.read_bytes()[:-missing])
    with pytest.raises(SourceError, match="ends too early"):
        read_subject_regions(RegionConfig(file=str(file.name).replace("lh", "{hemi}")), "sub-1", N, tmp_path)


def test_one_region_of_a_bool_array_has_the_name_of_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "language.npy", BOTH == 1)
    found = read_subject_regions(RegionConfig(file="language.npy"), "s", N, tmp_path)
    assert list(found) == ["language"]
    np.testing.assert_array_equal(found["language"], BOTH == 1)


def mesh_labels(root: Path, n_vertices: int) -> np.ndarray:
    labels = np.random.default_rng(1).integers(0, 3, (2, n_vertices))
    for hemi, values in zip(("lh", "rh"), labels, strict=True):
        write_annot(root / f"{hemi}.annot", values, NAMES)
    return labels


def test_labels_of_another_mesh_are_refused_or_thinned_out(tmp_path: Path) -> None:
    labels = mesh_labels(tmp_path, 163842)
    with pytest.raises(
        SourceError,
        match=r"lh.annot: the labels are on fsaverage \(163842 \+ 163842 vertices\), the responses on fsaverage5"
        r" \(20484 columns\): give labels of that mesh, or set regions.downsample: true",
    ):
        read_subject_regions(RegionConfig(file="{hemi}.annot"), "s", 20484, tmp_path)
    found = read_subject_regions(RegionConfig(file="{hemi}.annot", downsample=True), "s", 20484, tmp_path)
    np.testing.assert_array_equal(found["A1"], labels[:, :10242].ravel() == 1)
    with pytest.raises(SourceError, match=r"on fsaverage4 \(5124 columns\): give labels of that mesh\.$"):
        read_subject_regions(RegionConfig(file="{hemi}.annot", downsample=True), "s", 5124, tmp_path)


@pytest.mark.parametrize(
    ("n_voxels", "file", "message"),
    [
        (20484, "{hemi}.annot", "on fsaverage4 .* the responses on fsaverage5 .*: give labels of that mesh"),
        (2562 * 2, "lh.annot", "2562 vertices, but the responses have 5124 columns. Give both hemispheres"),
        (59412, "{hemi}.annot", r"2562 \+ 2562 vertices, .* give a .dlabel.nii"),
        (81126, "{hemi}.annot", "for voxels give a label .nii.gz with a mask"),
    ],
)
def test_vertices_that_do_not_fit(tmp_path: Path, n_voxels: int, file: str, message: str) -> None:
    mesh_labels(tmp_path, 2562)
    with pytest.raises(SourceError, match=message):
        read_subject_regions(RegionConfig(file=file), "s", n_voxels, tmp_path)


def test_volumes_that_do_not_fit(tmp_path: Path) -> None:
    write_volume(tmp_path, "a", "C")
    names, mask = "a/names.csv", "a/mask_thick.nii.gz"
    np.save(tmp_path / "a.npy", np.zeros((54, 84, 84), dtype=int))
    other = nibabel.Nifti1Image(np.ones(SHAPE, dtype=np.uint8), np.eye(4))
    nibabel.save(other, tmp_path / "moved.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), dtype=np.uint8), np.eye(4)), tmp_path / "small.nii.gz")
    for config, n_voxels, message in (
        (RegionConfig(file="a.npy"), 81126, r"volume of shape \(54, 84, 84\), .* 81126 columns.* mask_thick.nii.gz"),
        (RegionConfig(file="a/areas.nii.gz", names=names), N, r"Name the mask .*regions.mask"),
        (RegionConfig(file="a/areas.nii.gz", mask=mask, names=names), N + 1, f"has {N} voxels, .* {N + 1} columns"),
        (RegionConfig(file="a/areas.nii.gz", mask=mask), N, r"areas.nii.gz holds numbers.*areas.tsv"),
        (RegionConfig(file="a/areas.nii.gz", mask="small.nii.gz", names=names), N, "need the same grid"),
        (RegionConfig(file="a/areas.nii.gz", mask="moved.nii.gz", names=names), N, "lie at different places"),
    ):
        with pytest.raises(SourceError, match=message):
            read_subject_regions(config, "s", n_voxels, tmp_path)


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    for name, values, message in (
        ("far", np.array([0, N]), rf"far\] .*values 0..{N}; .* in 0..{N - 1}"),
        ("long", np.zeros(N + 3, dtype=bool), rf"shape \({N + 3},\), but the responses have {N} columns"),
        ("grey", np.full((2, 2, 2), 0.5), "regions.mask"),
        ("objects", np.array([{"a": 1}], dtype=object), "Pickled objects are not read"),
    ):
        np.savez(tmp_path / "a.npz", **{name: values})
        with pytest.raises(SourceError, match=message):
            read_subject_regions(RegionConfig(file="a.npz"), "s", N, tmp_path)
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(SourceError, match="Pickled objects are not read"):
        read_subject_regions(RegionConfig(file="o.npy"), "s", N, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("region,voxel\nA1,3\nA1,99\n", "line 3: voxel 99, but the responses have 14 columns"),
        ("region,voxel\nA1,x\n", "line 2: 'x' is no whole number"),
        ("A1,44\n0,1\n", "has 1 rows, but the responses have 14 columns"),
        ("A1,44\n" + "0,1\n" * 13 + "0,2\n", "line 15: '2'; a region's column holds 0 and 1 only"),
        ("voxel,A1\n" + "3,1\n" * 14, "does not count 0..13"),
        ("region,voxel\nA1\n", "line 2: 1 columns, but 2 in the lines before"),
        ("region,voxel\n", "1 lines; need a heading"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_subject_regions(RegionConfig(file="a.csv"), "s", N, tmp_path)


def test_settings_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(SourceError, match="give one of them"):
        RegionConfig()
    with pytest.raises(SourceError, match="give one of them"):
        RegionConfig(file="a", pycortex="b")
    with pytest.raises(SourceError, match="Did you mean 'paper'"):
        RegionConfig(file="a", groups="papers")
    with pytest.raises(SourceError, match="mask_order"):
        RegionConfig(file="a", mask_order="z")  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="Did you mean 'subject'"):
        region_files(RegionConfig(file="{subjct}.npz"), "s", Path())


@pytest.mark.parametrize(
    ("raw", "clean"),
    [("L_A1_ROI", ("A1", "left")), ("R_7PL_ROI", ("7PL", "right")), ("ctx-lh-insula", ("insula", "left")),
     ("R_OP2-3_ROI", ("OP2-3", "right")), ("lh.V1", ("V1", "left")), ("V1_R", ("V1", "right")), ("FFA", ("FFA", None)),
     ("LBelt", ("LBelt", None)), ("L_R_ROI", ("R", "left")), ("A/B ", ("A-B", None)),
     ("Right-Putamen", ("Putamen", "right"))],
)  # fmt: skip
def test_names_lose_their_side(raw: str, clean: tuple[str, str | None]) -> None:
    assert clean_name(raw) == clean


@given(area=st.sampled_from(HCP_AREAS), side=st.sampled_from(["L", "R"]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_area_keeps_its_own_name(area: str, side: str) -> None:
    assert clean_name(f"{side}_{area}_ROI") == (area, {"L": "left", "R": "right"}[side])
    assert clean_name(area) == (area, None)


# HCP-MMP1


def test_there_are_180_areas_and_the_groups_name_no_other() -> None:
    assert len(set(HCP_AREAS)) == len(HCP_AREAS) == 180
    for groups in HCP_GROUPS.values():
        for areas in groups.values():
            assert set(areas) <= set(HCP_AREAS)
            assert len(set(areas)) == len(areas)


def test_the_variants_differ_where_the_publications_do() -> None:
    paper, code = (set(HCP_GROUPS[variant]["late language"]) for variant in ("paper", "code"))
    assert paper - code == {"PFm", "TE1a", "TE2a", "TGv", "TGd", "PSL", "55b", "STSvp", "STV"}
    assert code - paper == {"PGp", "TA2"}
    assert HCP_GROUPS["paper"]["early auditory"] == HCP_GROUPS["code"]["early auditory"]


def parcellation(root: Path, areas: tuple[str, ...] = HCP_AREAS) -> np.ndarray:
    labels = np.random.default_rng(2).integers(0, len(areas) + 1, (2, 900))
    labels[1][labels[1] == areas.index("STSda") + 1] = 0
    for hemi, side, values in zip(("lh", "rh"), "LR", labels, strict=True):
        write_annot(root / f"{hemi}.annot", values, ["???", *(f"{side}_{area}_ROI" for area in areas)])
    return labels


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_groups_are_the_union_of_their_areas(tmp_path: Path, variant: str) -> None:
    labels = parcellation(tmp_path)
    found = read_subject_regions(RegionConfig(file="{hemi}.annot", groups=variant), "s", 1800, tmp_path)
    assert set(found) == {group + side for group in HCP_GROUPS[variant] for side in ("", " left", " right")}
    for group, areas in HCP_GROUPS[variant].items():
        wanted = np.isin(labels, [HCP_AREAS.index(area) + 1 for area in areas])
        np.testing.assert_array_equal(found[group], wanted.ravel())
        np.testing.assert_array_equal(found[f"{group} right"], np.r_[0 * wanted[0], wanted[1]])
    whole = read_subject_regions(RegionConfig(file="{hemi}.annot", groups=variant, sides=False), "s", 1800, tmp_path)
    assert list(whole) == list(HCP_GROUPS[variant])


def test_missing_areas_are_named_with_the_nearest_ones(tmp_path: Path) -> None:
    parcellation(tmp_path, tuple(area for area in HCP_AREAS if area not in ("STSvp", "PFm")))
    with pytest.raises(
        SourceError, match=r"lack 2 areas .*'paper': PFm \(nearest: PF\w*\), STSvp \(nearest: STS\w+\)\."
    ):
        read_subject_regions(RegionConfig(file="{hemi}.annot", groups="paper"), "s", 1800, tmp_path)
    with pytest.raises(SourceError, match="there are no region groups 'text'"):
        grouped({}, "text")


def test_the_documentation_has_the_groups_of_the_code() -> None:
    rows = [line.strip("| \n").split(" | ") for line in DOCS.read_text(encoding="utf-8").splitlines()]
    table = [(row[0], row[1], tuple(row[2].split(", "))) for row in rows if len(row) == 3 and row[0] in HCP_GROUPS]
    assert table == [
        (variant, group, areas) for variant, groups in HCP_GROUPS.items() for group, areas in groups.items()
    ]


def test_the_documented_settings_are_settings() -> None:
    import yaml

    text = DOCS.read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block.split("```")[0]) for block in text.split("```yaml\n")[1:]]
    configs = [RegionConfig(**block.get("init_args", block)["regions"]) for block in blocks]
    assert [config.groups for config in configs] == ["paper", None]


def test_an_archive_that_unpacks_to_gigabytes_is_refused_by_its_header(tmp_path: Path) -> None:
    n_bytes, path = 64 << 20, tmp_path / "a.npz"
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1) as archive, archive.open("A1.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|b1", "fortran_order": False, "shape": (n_bytes,)})
        for _ in range(n_bytes >> 20):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=rf"a\.npz\[A1\] has shape \({n_bytes},\), but the responses have {N}"):
            read_subject_regions(RegionConfig(file="a.npz"), "s", N, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
