"""Alignment of voxels in a volume: a glass brain where they lie in MNI space, and slices; drawn by nilearn.

Values stay those of their voxels: nothing is smoothed, thresholded or interpolated. Before, after and difference have
one scale, in the colours of the cortical maps (brainmap.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from brainlit.encoding.arrays import Float32Array, FloatArray
from brainlit.results.figure_data import voxels_csv
from brainlit.results.map_places import Grid
from brainlit.results.style import (
    BESIDE_MAPS_IN,
    DIVERGING,
    FAINT,
    INK,
    NO_NUMBER,
    SEQUENTIAL,
    Figure,
    colour_map,
    draw_maps,
)

Kind = Literal["glass", "slices"]
N_SLICES = 7
ROW_IN = {"glass": 2.05, "slices": 1.75}
TOP_QUANTILE = 0.999
"""Of |r|: in a whole brain the highest 1 % are many, and a line of sight meets one of them nearly everywhere."""
LEAST_TOP = 0.001
"""Where the scale ends if all values are next to 0."""
GLASS_VIEWS = "lyrz"
"""nilearn's names of: from the left, from behind, from the right, from above."""
HEAD_MM = ((-96.0, 96.0), (-132.0, 96.0), (-78.0, 114.0))
"""Of MNI space at least this is in the image of a glass brain; without x = 0 nilearn shows one half as the other."""
_NOTHING = 1e-6
"""nilearn draws nothing where a value is not further from 0; a voxel that is 0 gets a little more than this."""
_CLEAR = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Volume:
    """Where a subject's voxels lie.

    Parameters
    ----------
    grid : Grid
    space : str
        The MNI space of its millimetres, such as 'MNI152NLin2009cAsym'; empty where nothing says that it is one.
    """

    grid: Grid
    space: str = ""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The figures that there are: outlines of a standard brain fit a standard space alone."""
        return ("glass", "slices") if self.space else ("slices",)

    @property
    def centres_mm(self) -> FloatArray:
        """Shape (n_voxels, 3)."""
        return np.asarray(self.grid.index @ self.grid.affine[:3, :3].T + self.grid.affine[:3, 3], dtype=np.float64)


@dataclass(frozen=True)
class _Row:
    """One row of maps: values of shape (n_voxels,), the end of the scale, and whether it goes as far below 0."""

    name: str
    values: FloatArray
    top: float
    signed: bool

    @property
    def look(self) -> dict[str, Any]:
        """Colours and their ends, as matplotlib takes them."""
        colours, low = (DIVERGING, -self.top) if self.signed else (SEQUENTIAL, 0.0)
        return {"cmap": colour_map(colours).with_extremes(bad=_CLEAR), "vmin": low, "vmax": self.top}

    @property
    def within_scale(self) -> FloatArray:
        """What is drawn; nilearn would leave out what is below the scale."""
        return np.clip(self.values, -self.top if self.signed else 0.0, self.top)

    def said(self, centres_mm: FloatArray) -> str:
        """Mean and highest value, with its place."""
        if not np.isfinite(self.values).any():
            return f"{self.name}: no number"
        at = int(np.nanargmax(self.values))
        x, y, z = (round(float(mm)) for mm in centres_mm[at])
        mean, highest = float(np.nanmean(self.values)), float(self.values[at])
        return f"{self.name}: mean {mean:.3f}, highest {highest:.3f} at x {x}, y {y}, z {z} mm"


def volume_figure(
    kind: Kind, volume: Volume, before: FloatArray, after: FloatArray | None, subject: str, *, simulated: bool = False
) -> Figure:
    """Maps of r before, after and of their difference for one subject.

    Parameters
    ----------
    kind : 'glass' or 'slices'
        One of `volume.kinds`.
    before, after : arrays of shape (n_voxels,)
        r per voxel, NaN where dropped; one row of maps where `after` is None.
    simulated : bool
        Whether the listener is: then picture, alt and caption say so.
    """
    rows = _rows(before, after)
    centres_mm = volume.centres_mm
    what = "Glass brains from left, back, right and top" if kind == "glass" else "Level slices"
    alt = f"{what}, alignment of subject {subject}. {'; '.join(row.said(centres_mm) for row in rows)}."
    numbers = dict(zip(("x_mm", "y_mm", "z_mm"), centres_mm.T, strict=True)) | {"r_before": before}
    csv = voxels_csv(numbers | ({} if after is None else {"r_after": after}))
    caption = _caption(kind, volume, int(np.isfinite(before).sum()), subject, rows[0].top)
    return draw_maps(
        f"brain-{subject}-{kind}",
        lambda figure: _draw(figure, kind, volume, rows),
        ROW_IN[kind],
        len(rows),
        alt,
        caption,
        simulated=simulated,
        csv=csv,
    )


def _rows(before: FloatArray, after: FloatArray | None) -> list[_Row]:
    """Maps with one scale, whose end is that of |r| and |difference| alike."""
    maps = {"before": before}
    if after is not None:
        maps |= {"after": after, "after - before": after - before}
    known = np.abs(np.concatenate(list(maps.values())))
    known = known[np.isfinite(known)]
    top = max(float(np.quantile(known, TOP_QUANTILE)), LEAST_TOP) if known.size else 1.0
    return [_Row(name, values, top, signed=name == "after - before") for name, values in maps.items()]


def _caption(kind: Kind, volume: Volume, n: int, subject: str, top: float) -> str:
    size = " x ".join(f"{step:.3g}" for step in np.linalg.norm(volume.grid.affine[:3, :3], axis=0))
    whose = f"Alignment r per voxel of subject {subject}, {n} voxels of {size} mm"
    scale = (
        f"All maps have one scale, which ends at the {100 * TOP_QUANTILE:g} % quantile of |r| and |Δr| ({top:.3f}) and"
        " is palest at 0. Nothing is smoothed or thresholded; single voxels carry no interval here."
    )
    if kind == "glass":
        return (
            f"{whose}, as seen through: the highest r along the line of sight, and the Δr furthest from 0, so that"
            f" noise looks larger than in slices. Voxels are in {volume.space}, outlines are those of MNI152. {scale}"
        )
    grey = (
        f"voxels are in {volume.space}; grey: the brain of MNI152 where no voxel has a number"
        if volume.space
        else "grey: voxels without a number. Nothing says that the millimetres are those of a standard space, so there"
        " is no glass brain"
    )
    return (
        f"{whose}. {N_SLICES} level slices, evenly from the lowest voxel to the highest, left on the left;"
        f" {grey}. {scale}"
    )


def slice_heights_mm(grid: Grid) -> FloatArray:
    """Where slices lie: evenly between the lowest voxel and the highest, not where results are; shape (N_SLICES,)."""
    z_mm = grid.index @ grid.affine[2, :3] + grid.affine[2, 3]
    return np.linspace(z_mm.min(), z_mm.max(), N_SLICES + 2)[1:-1]


def _draw(figure: Any, kind: Kind, volume: Volume, rows: Sequence[_Row]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    height, width_in = 0.96 / len(rows), figure.get_size_inches()[0]
    left, right = (inches / width_in for inches in BESIDE_MAPS_IN)
    for k, row in enumerate(rows):
        bottom = 0.98 - (k + 1) * height
        place = (left, bottom + 0.02 * height, 1 - left - right, 0.96 * height)
        draw = _draw_glass if kind == "glass" else _draw_slices
        display = draw(figure, place, volume, row)
        display.annotate(size=8, color=INK, positions=kind == "slices")
        for axes in (view.ax for view in display.axes.values()):
            for text in axes.texts:
                text.set_bbox(None)
        figure.text(0.4 * left, bottom + height / 2, row.name, rotation=90, va="center", ha="center", weight="bold")
        look = row.look
        painter = ScalarMappable(Normalize(look["vmin"], look["vmax"]), look["cmap"])
        bar = figure.colorbar(
            painter, cax=figure.add_axes((1 - 0.9 * right, bottom + 0.14 * height, 0.12 / width_in, 0.7 * height))
        )
        bar.outline.set_visible(False)
        bar.solids.set_rasterized(True)
        bar.set_label("Δr" if row.signed else "r")


def _draw_glass(figure: Any, place: tuple[float, ...], volume: Volume, row: _Row) -> Any:
    from nilearn.plotting import plot_glass_brain

    how: Any = {"figure": figure, "axes": place, "colorbar": False, "annotate": False, "interpolation": "none"}
    image = _within_head(_image(volume.grid, row.within_scale))
    how |= {"display_mode": GLASS_VIEWS, "threshold": _NOTHING, "plot_abs": False, "symmetric_cbar": False}
    display = plot_glass_brain(image, **how, **row.look)
    for view in display.axes.values():
        _join_outlines(view.ax)
    return display


def _draw_slices(figure: Any, place: tuple[float, ...], volume: Volume, row: _Row) -> Any:
    from matplotlib.colors import ListedColormap
    from nilearn.plotting import plot_img

    how: Any = {"figure": figure, "axes": place, "colorbar": False, "annotate": False, "draw_cross": False}
    how |= {"display_mode": "z", "cut_coords": list(slice_heights_mm(volume.grid))}
    drawn: Any = {"threshold": _NOTHING, "interpolation": "none"}
    grey = ListedColormap([NO_NUMBER]).with_extremes(bad=_CLEAR)
    ground = _mni_brain() if volume.space else _image(volume.grid, np.ones(len(volume.grid.index)))
    display = plot_img(ground, cmap=grey, vmin=0, vmax=1, **how, **drawn)
    display.add_overlay(_image(volume.grid, row.within_scale), **drawn, **row.look)
    return display


@lru_cache(maxsize=1)
def _mni_brain() -> Any:
    """1 in the brain of MNI152, from the file that nilearn's package carries."""
    from nilearn.datasets import load_mni152_brain_mask

    return load_mni152_brain_mask(resolution=1)


def _image(grid: Grid, values: FloatArray) -> Any:
    """Values of shape (n_voxels,) in their voxels, on a grid along the axes of space; 0 where there is none."""
    import nibabel
    from nilearn.image import reorder_img

    seen = np.where(np.abs(values) > _NOTHING, values, 2 * _NOTHING)
    volume: Float32Array = np.zeros(grid.shape, dtype=np.float32)
    volume[tuple(grid.index.T)] = np.where(np.isfinite(values), seen, 0.0)
    new_image: Any = nibabel.Nifti1Image
    return reorder_img(new_image(volume, grid.affine), resample="nearest", copy_header=True)


def _within_head(image: Any) -> Any:
    """The image in a box of HEAD_MM at least, its voxels where they were; its axes are those of space."""
    import nibabel

    data, affine = image.get_fdata(dtype=np.float32), np.array(image.affine)
    steps_mm, first_mm, (low_mm, high_mm) = np.diag(affine)[:3], affine[:3, 3], np.array(HEAD_MM).T
    last_mm = first_mm + steps_mm * (np.array(data.shape) - 1)
    below, above = (np.ceil(np.maximum(mm / steps_mm, 0)).astype(int) for mm in (first_mm - low_mm, high_mm - last_mm))
    affine[:3, 3] = first_mm - below * steps_mm
    new_image: Any = nibabel.Nifti1Image
    return new_image(np.pad(data, list(zip(below, above, strict=True))), affine)


def _join_outlines(axes: Any) -> None:
    """One path for all outlines of a kind, in the house's colours; nilearn has a thousand, half a megabyte a figure."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    kinds = defaultdict(list)
    for patch in list(axes.patches):
        path = (patch.get_transform() - axes.transData).transform_path(patch.get_path())
        kinds[patch.get_edgecolor()[:3], patch.get_linewidth()].append(path)
        patch.remove()
    for (colour, width), paths in kinds.items():
        look: Any = {"facecolor": "none", "edgecolor": INK if sum(colour) < 1 else FAINT, "alpha": 0.7}
        axes.add_patch(PathPatch(Path.make_compound_path(*paths), linewidth=width, **look))
