"""Columns of every image format are where they belong, and damaged or misfitting images are refused by name."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainlit.stories.base import SourceError
from brainlit.stories.readers import images
from brainlit.stories.readers.images import ImageError, count_volumes, header_tr, layout_of, read_mask, read_series

AFFINE = np.array([[-3.0, 0, 0, 90], [0, 3.0, 0, -126], [0, 0, 4.0, -72], [0, 0, 0, 1]])
SHAPE, N_TRS = (3, 4, 2), 5


def _volume(path: Path, values: Any, affine: Any = AFFINE, tr: tuple[float, str] | None = (2.0, "sec")) -> Path:
    image = nib.Nifti1Image(values, affine)
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr[0]))
        image.header.set_xyzt_units("mm", tr[1])
    nib.save(image, path)
    return path


def _mask(path: Path, shape: tuple[int, ...] = SHAPE, affine: Any = AFFINE) -> Path:
    inside = np.zeros(shape, dtype=np.uint8)
    inside[0, 1, 1] = inside[2, 0, 0] = inside[0, 1, 0] = 1
    return _volume(path, inside, affine, tr=None)


def _surface(path: Path, values: np.ndarray[Any, Any], meta: dict[str, str] | None = None) -> Path:
    arrays = [nib.gifti.GiftiDataArray(row.astype(np.float32), intent="NIFTI_INTENT_TIME_SERIES") for row in values]
    nib.save(nib.gifti.GiftiImage(darrays=arrays, meta=nib.gifti.GiftiMetaData(meta or {})), path)
    return path


def _cifti(path: Path, values: np.ndarray[Any, Any], step: float = 1.5, unit: str = "SECOND") -> Path:
    vertices = [nib.cifti2.BrainModelAxis.from_surface(np.arange(n), 10, f"Cortex{side}")
                for side, n in (("Left", 3), ("Right", 2))]  # fmt: skip
    voxels = nib.cifti2.BrainModelAxis.from_mask(np.ones((1, 1, 2)), name="thalamus_left", affine=AFFINE)
    axes = (nib.cifti2.SeriesAxis(0, step, len(values), unit), vertices[0] + vertices[1] + voxels)
    nib.save(nib.Cifti2Image(values.astype(np.float32), axes), path)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, ">f8"])
def test_a_volume_gives_the_voxels_of_its_mask_in_c_order(tmp_path: Path, ending: str, dtype: Any) -> None:
    values = np.arange(np.prod(SHAPE) * N_TRS).reshape(*SHAPE, N_TRS).astype(dtype)
    bold, mask = _volume(tmp_path / f"bold{ending}", values), _mask(tmp_path / "mask.nii.gz")
    series = read_series([bold], mask)
    expected = np.stack([values[0, 1, 0], values[0, 1, 1], values[2, 0, 0]], axis=1)
    assert series.values.dtype == np.float32
    assert np.array_equal(series.values, expected)
    assert (series.layout, series.tr_s, series.sides) == ("volume", 2.0, None)
    assert count_volumes([bold]) == N_TRS
    assert read_mask(mask).coordinates_mm.tolist() == [[90, -123, -72], [90, -123, -68], [84, -126, -72]]
    assert np.array_equal(series.places.inside, read_mask(mask).inside)


def test_scale_and_offset_of_the_header_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.full((*SHAPE, 2), 7, dtype=np.int16), AFFINE)
    image.header.set_slope_inter(0.5, 3.0)
    nib.save(image, tmp_path / "bold.nii")
    assert np.unique(read_series([tmp_path / "bold.nii"], _mask(tmp_path / "mask.nii")).values).tolist() == [6.5]


@pytest.mark.parametrize(
    ("tr", "tr_s", "says"),
    [
        ((1500.0, "msec"), 1.5, "says 1.5 s"),
        ((1000.0, "msec"), 1.0, "says 1 s"),
        ((1.0, "sec"), None, "says 1 s, which is what a header says when nobody set it"),
        ((0.0, "sec"), None, "says 0"),
        ((2.0, "unknown"), None, "says 2 and no unit of time"),
        ((0.5, "hz"), None, "says 0.5 and no unit of time"),
        ((2000.0, "sec"), None, "says 2000 s: are these milliseconds? Then it is 2 s"),
        ((2.0, "msec"), None, "says 0.002 s: were seconds taken for milliseconds? Then it is 2 s"),
    ],
)
def test_the_tr_of_the_header_is_in_seconds_or_not_believed(
    tmp_path: Path, tr: Any, tr_s: float | None, says: str
) -> None:
    bold = _volume(tmp_path / "bold.nii", np.ones((*SHAPE, 2), dtype=np.float32), tr=tr)
    assert read_series([bold], _mask(tmp_path / "mask.nii")).tr_s == tr_s
    assert header_tr([bold]) == (tr_s, says)


def test_the_tr_of_cifti_and_gifti_is_believed_alike(tmp_path: Path) -> None:
    for step, unit, tr_s in ((1.5, "SECOND", 1.5), (1.0, "SECOND", None), (2.0, "HERTZ", None), (2e3, "SECOND", None)):
        path = _cifti(tmp_path / "a.dtseries.nii", np.zeros((N_TRS, 7)), step, unit)
        assert header_tr([path]).tr_s == read_series([path]).tr_s == tr_s
    for said, tr_s in (("1.5", 1.5), ("1.0", None), ("2000", None), ("", None)):
        path = _surface(tmp_path / "L.func.gii", np.zeros((N_TRS, 4)), {"TimeStep": said} if said else {})
        assert header_tr([path]).tr_s == read_series([path]).tr_s == tr_s
    assert header_tr([path]).says == "has no TimeStep"


def test_hemispheres_that_say_to_be_the_other_are_refused(tmp_path: Path) -> None:
    meta = {"AnatomicalStructurePrimary": "CortexRight"}
    files = [_surface(tmp_path / f"{side}.func.gii", np.zeros((2, 4)), meta) for side in "LR"]
    with pytest.raises(ImageError, match=r"L\.func\.gii says that it is CortexRight, but stands for CortexLeft"):
        read_series(files)
    assert list(read_series(files[:1]).places.nvertices) == ["CIFTI_STRUCTURE_CORTEX_RIGHT"]


def test_an_encoding_that_nobody_knows_is_one_error(tmp_path: Path) -> None:
    path = _surface(tmp_path / "L.func.gii", np.zeros((2, 4)))
    path.write_bytes(path.read_bytes().replace(b"UTF-8", b"UTD-8", 1))
    with pytest.raises(ImageError, match=r"L\.func\.gii cannot be read.*UTD-8"):
        read_series([path])


@pytest.mark.parametrize("name", ["bold.nii", "bold.nii.gz", "a.dtseries.nii"])
def test_reading_takes_the_memory_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(images, "BLOCK_BYTES", 2**16)
    rng, mask = np.random.default_rng(0), None
    if name.startswith("bold"):
        path = _volume(tmp_path / name, rng.integers(0, 9, (20, 20, 20, 100)).astype(np.int16))
        mask = tmp_path / "mask.nii.gz"
        _volume(mask, rng.integers(0, 2, (20, 20, 20)).astype(np.uint8), tr=None)
    else:
        path = _cifti(tmp_path / name, np.ones((200_000, 7)))
    read_series([path], mask)  # imports
    tracemalloc.start()
    values = read_series([path], mask).values
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values.nbytes > 1e6
    assert peak < 1.5 * values.nbytes, "result, a block, and which values are finite"


@pytest.mark.parametrize("name", ["bold.nii.gz", "mask.nii.gz"])
def test_no_damaged_bit_of_a_compressed_image_goes_by(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    bold = _volume(tmp_path / "bold.nii.gz", rng.normal(size=(*SHAPE, N_TRS)).astype(np.float32))
    mask, path = _mask(tmp_path / "mask.nii.gz"), tmp_path / name
    whole = path.read_bytes()
    for place in range(60, len(whole), max(1, len(whole) // 25)):  # name and date of the archive come before
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ImageError, match=f"{path} "):
            read_series([bold], mask)


def test_a_file_that_holds_less_or_more_than_its_header_says_is_refused(tmp_path: Path) -> None:
    mask = _mask(tmp_path / "mask.nii")
    for name in ("bold.nii", "bold.nii.gz"):
        bold = _volume(tmp_path / name, np.ones((*SHAPE, N_TRS), dtype=np.float32))
        raw = bytearray(gzip.decompress(bold.read_bytes()) if name.endswith("gz") else bold.read_bytes())
        for n_trs, said in ((N_TRS - 1, "it goes on after"), (N_TRS + 1, "cannot be read")):
            raw[48:50] = n_trs.to_bytes(2, "little")
            bold.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
            with pytest.raises(ImageError, match=f"{bold} .*{said}|{bold} {said}"):
                read_series([bold], mask)


def test_infinite_values_are_no_data(tmp_path: Path) -> None:
    values = np.ones((*SHAPE, 2), dtype=np.float32)
    values[0, 1, 0, 1], values[0, 1, 1, 0] = np.inf, np.nan
    series = read_series([_volume(tmp_path / "bold.nii", values)], _mask(tmp_path / "mask.nii"))
    assert np.isnan(series.values).tolist() == [[False, True, False], [True, False, False]]


def test_hemispheres_stand_side_by_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(N_TRS, 4)).astype(np.float32), rng.normal(size=(N_TRS, 3)).astype(np.float32)
    files = [_surface(tmp_path / "L.func.gii", left), _surface(tmp_path / "R.func.gii", right)]
    series = read_series(files)
    assert np.array_equal(series.values, np.hstack([left, right]))
    assert (series.layout, series.sides, series.tr_s) == ("surface", (4, 3), None)
    assert series.places.nvertices == {"CIFTI_STRUCTURE_CORTEX_LEFT": 4, "CIFTI_STRUCTURE_CORTEX_RIGHT": 3}
    assert read_series(files[:1]).sides == (4,)
    assert count_volumes(files) == N_TRS
    _surface(tmp_path / "R.func.gii", right[:-1])
    with pytest.raises(ImageError, match=r"L\.func\.gii has 5 volumes, .*R\.func\.gii 4; they must be one run"):
        read_series(files)


def test_one_gifti_array_may_hold_all_volumes(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    nib.save(nib.gifti.GiftiImage(darrays=[nib.gifti.GiftiDataArray(values)]), tmp_path / "a.gii")
    assert np.array_equal(read_series([tmp_path / "a.gii"]).values, values.T)


def test_grayordinates_keep_the_order_of_cifti(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(N_TRS, 7)).astype(np.float32)
    series = read_series([_cifti(tmp_path / "a.dtseries.nii", values)])
    assert np.array_equal(series.values, values)
    assert (series.layout, series.tr_s, series.sides) == ("cifti", 1.5, (3, 2))
    assert count_volumes([tmp_path / "a.dtseries.nii"]) == N_TRS


def test_what_does_not_fit_is_refused_in_words(tmp_path: Path) -> None:
    bold = _volume(tmp_path / "bold.nii.gz", np.ones((*SHAPE, 2), dtype=np.float32))
    mask = _mask(tmp_path / "mask.nii.gz")
    with pytest.raises(ImageError, match=r"bold\.nii\.gz is a volume, and no mask"):
        read_series([bold])
    with pytest.raises(ImageError, match=r"has shape \(3, 4, 3\), .*bold\.nii\.gz \(3, 4, 2\)\. Resample"):
        read_series([bold], _mask(tmp_path / "other.nii", (3, 4, 3)))
    with pytest.raises(ImageError, match=r"their affines differ by up to 2\."):
        read_series([bold], _mask(tmp_path / "moved.nii", affine=AFFINE + 2 * np.eye(4, k=3)))
    with pytest.raises(ImageError, match=r"mask\.nii\.gz has shape \(3, 4, 2\); a series has four axes"):
        read_series([mask], mask)
    with pytest.raises(ImageError, match=r"and 0 voxels"):
        read_mask(_volume(tmp_path / "empty.nii", np.zeros(SHAPE, dtype=np.uint8), tr=None))
    with pytest.raises(ImageError, match="belongs to NIfTI volumes"):
        read_series([_surface(tmp_path / "L.func.gii", np.ones((2, 3)))], mask)
    with pytest.raises(ImageError, match=r"L\.func\.gii, .*bold\.nii\.gz: need one 4-D NIfTI"):
        layout_of([tmp_path / "L.func.gii", bold])
    with pytest.raises(ImageError, match="holds no CIFTI-2 header"):
        read_series([_volume(tmp_path / "fake.dtseries.nii", np.ones((*SHAPE, 2)))])
    with pytest.raises(ImageError, match="values of type complex64"):
        read_series([_volume(tmp_path / "c.nii", np.ones((*SHAPE, 2), dtype=np.complex64))], mask)
    with pytest.raises(FileNotFoundError, match=r"none\.nii does not exist"):
        read_series([tmp_path / "none.nii"], mask)
    with pytest.raises(FileNotFoundError, match=r"none\.nii does not exist"):
        read_series([bold], tmp_path / "none.nii")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.nii", "a.nii.gz", "a.func.gii", "a.dtseries.nii"]),
    cut=st.floats(0, 1),
    damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
)
def test_damaged_bytes_are_read_or_refused_by_name(
    tmp_path: Path, name: str, cut: float, damage: list[tuple[float, int]]
) -> None:
    path, values = tmp_path / name, np.random.default_rng(0).normal(size=(N_TRS, 7))
    if name.endswith(("a.nii", "a.nii.gz")):
        _volume(path, np.random.default_rng(0).normal(size=(*SHAPE, N_TRS)).astype(np.float32))
    else:
        (_surface if name.endswith("gii") else _cifti)(path, values)
    raw = bytearray(path.read_bytes())
    for place, byte in damage:
        raw[int(place * len(raw) * (0.3 if byte % 2 else 1))] = byte
    path.write_bytes(raw[: len(raw) if cut > 0.5 else int(2 * cut * len(raw))])
    mask = _mask(tmp_path / "mask.nii") if layout_of([path]) == "volume" else None
    assert _read_or_refused(path, mask)


def _read_or_refused(path: Path, mask: Path | None) -> bool:
    try:
        return read_series([path], mask).values.ndim == 2
    except SourceError as error:
        return str(path) in str(error)
