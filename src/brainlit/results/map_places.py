"""Where the voxels of a subject lie, by its record or the run's store, and which formats of maps that makes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainlit.encoding.arrays import FloatArray, IntArray
from brainlit.results.map_numbers import MapsError
from brainlit.results.record import ProbeRecord
from brainlit.results.run_directory import RunDirectory, read_json_if_there
from brainlit.results.summary import RUN_FILE

if TYPE_CHECKING:
    from brainlit.store import StoryStore


FORMATS = ("gifti", "cifti", "nifti", "pycortex")
VOLUME_SPACE = "orig"
"""BIDS's word for the space of the images that numbers come from, whatever that is."""
_ON_FSAVERAGE5 = "gifti and cifti: vertices on fsaverage5 (`vertices`)"
_NEEDS = {
    "gifti": _ON_FSAVERAGE5,
    "cifti": _ON_FSAVERAGE5,
    "nifti": "nifti: voxel centres in mm that lie on a regular grid (`coordinates_mm`, of responses that are read"
    " within a mask)",
    "pycortex": "pycortex: columns that are the voxels of a mask of its filestore, in its order (lebel2023, or tables"
    " of voxels whose regions come from `pycortex:`)",
}
MOST_OFF = 0.01
"""Of a voxel: how far a centre may lie from the grid that it is said to be on."""
_SEEN_FROM, _NEIGHBOURS = 64, 400


@dataclass(frozen=True)
class Grid:
    """Where voxels lie in a volume.

    Parameters
    ----------
    index : int array of shape (n_voxels, 3)
    shape : tuple of three int
    affine : array of shape (4, 4)
        From indices to mm.
    """

    index: IntArray
    shape: tuple[int, int, int]
    affine: FloatArray

    @classmethod
    def of(cls, coordinates_mm: FloatArray) -> Grid | None:
        """The smallest box of the regular grid that the centres lie on; None where they lie on none.

        Axes run as near as can be to left-right, back-front and down-up. The grid is turned or stretched as the one
        that the voxels come from; only its border is the voxels' own, for nobody has kept the other.

        Parameters
        ----------
        coordinates_mm : array of shape (n_voxels, 3)
        """
        places = np.asarray(coordinates_mm, dtype=np.float64)
        steps = _steps(places) if np.isfinite(places).all() else None
        if steps is None:
            return None
        index = np.rint(np.linalg.solve(steps, (places - places[0]).T).T).astype(np.int64)
        index -= index.min(axis=0)
        design = np.column_stack([index, np.ones(len(index))])
        affine = np.eye(4)
        affine[:3] = np.linalg.lstsq(design, places, rcond=None)[0].T
        off = np.abs(design @ affine[:3].T - places).max()
        if off > MOST_OFF * np.linalg.norm(steps, axis=0).min() or len(np.unique(index, axis=0)) < len(index):
            return None
        n_x, n_y, n_z = (int(n) for n in index.max(axis=0) + 1)
        return cls(index, (n_x, n_y, n_z), affine)

    @classmethod
    def like(cls, coordinates_mm: FloatArray, image: Path) -> Grid:
        """The grid of an image in whose voxels all centres lie.

        Raises
        ------
        MapsError
            If a centre is not that of one of the image's voxels.
        """
        from brainlit.stories.readers.images import read_image

        found = read_image(image)
        shape, affine = tuple(int(n) for n in found.shape[:3]), np.asarray(found.affine, dtype=np.float64)
        exact = (np.asarray(coordinates_mm, dtype=np.float64) - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        index = np.rint(exact).astype(np.int64)
        off = np.abs(exact - index).max()
        if off > MOST_OFF or (index < 0).any() or (index >= shape).any():
            why = f"up to {off:.2f} of a voxel beside its centres" if off > MOST_OFF else f"outside its {shape} voxels"
            raise MapsError(f"{image}: the voxels of the responses lie {why}. Give an image of their own grid.")
        return cls(index, (shape[0], shape[1], shape[2]), affine)


def _steps(places: FloatArray) -> FloatArray | None:
    """The three shortest ways from voxel to voxel that do not lie in a plane, as columns, nearest to x, y and z.

    In three dimensions such vectors span the whole grid (a basis of Minkowski's), if neighbours are among the voxels.
    """
    from scipy.spatial import cKDTree

    seen = places[np.unique(np.linspace(0, len(places) - 1, _SEEN_FROM).astype(np.int64))]
    _, near = cKDTree(places).query(seen, k=min(len(places), _NEIGHBOURS))
    ways = (places[near.reshape(len(seen), -1)] - seen[:, None]).reshape(-1, 3)
    length = np.linalg.norm(ways, axis=1)
    order = np.argsort(length, kind="stable")
    order = order[length[order] > 1e-6]
    ways, length = ways[order], length[order, None]
    unit = ways / length
    chosen: list[int] = []
    for apart in (
        lambda: np.ones(len(unit)),
        lambda: np.linalg.norm(np.cross(unit, unit[chosen[0]]), axis=1),
        lambda: np.abs(unit @ np.cross(unit[chosen[0]], unit[chosen[1]])),
    ):
        there = np.flatnonzero(apart() > 0.05)
        if not len(there):
            return None
        chosen.append(int(there[0]))
    turned = np.abs(unit[chosen])
    best = max(permutations(range(3)), key=lambda of_axis: sum(turned[of_axis[axis], axis] for axis in range(3)))
    steps = ways[chosen][list(best)].T
    return np.asarray(steps * np.where(np.diag(steps) < 0, -1.0, 1.0))


@dataclass(frozen=True)
class PycortexPlaces:
    """Voxels of a mask of a pycortex filestore, in pycortex's order (z slowest, x fastest)."""

    subject: str
    transform: str
    mask: str = "thick"


@dataclass(frozen=True)
class Places:
    """What is known of where a subject's voxels lie."""

    vertices: IntArray | None = None
    grid: Grid | None = None
    pycortex: PycortexPlaces | None = None

    @property
    def formats(self) -> list[str]:
        """The formats that these places make."""
        there = {"gifti": self.vertices, "cifti": self.vertices, "nifti": self.grid, "pycortex": self.pycortex}
        return [name for name in FORMATS if there[name] is not None]


def all_places(
    run: RunDirectory,
    records: Mapping[str, ProbeRecord],
    formats: Sequence[str] = (),
    store: Path | None = None,
    like: Path | None = None,
) -> dict[str, Places]:
    """The places of all subjects.

    Parameters
    ----------
    records : mapping of subject to ProbeRecord
    formats : sequence of str
        What every subject must have places for; any of FORMATS where it is empty.
    store : Path, optional
        The run's story store; read where the records do not say enough.
    like : Path, optional
        Image whose grid volumes get.

    Raises
    ------
    MapsError
        If a subject has none of the places, the store is needed and gone or another one, or `like` does not fit.
    """
    beyond_records = like is not None or bool({*formats} - {"gifti", "cifti"})
    needs_store = beyond_records or any(record.vertices is None for record in records.values())
    opened = _open_store(store, run) if needs_store else None
    places = {name: places_of(record, opened, like) for name, record in records.items()}
    lacking = {name: [what for what in formats or FORMATS if what not in own.formats] for name, own in places.items()}
    bad = [name for name, lacks in lacking.items() if lacks and (formats or len(lacks) == len(FORMATS))]
    if bad:
        needs = "; ".join(dict.fromkeys(_NEEDS[what] for what in lacking[bad[0]]))
        raise MapsError(
            f"nothing says where the voxels of {', '.join(bad)} lie, as {'/'.join(lacking[bad[0]])} must know. The"
            f" store needs{'' if formats else ' one of these'} - {needs}. Prepare the data with their mask, or leave"
            " out these subjects (--subjects) or formats (--format)."
        )
    return places


def places_of(record: ProbeRecord, store: StoryStore | None, like: Path | None = None) -> Places:
    """Where a subject's voxels lie, from its record and, where it is given, from the store.

    Raises
    ------
    MapsError
        If the store's subject has other voxels, or `like` does not fit them.
    """
    if store is None:
        return Places(record.vertices)
    person = store.subject(record.subject)
    if person.n_voxels != len(record.r):
        raise MapsError(
            f"{record.subject} has {person.n_voxels} voxels in the store {store.path}, {len(record.r)} in the probe. Is"
            " it the store of another run? Name the right one: --store FOLDER."
        )
    vertices, centres_mm = record.vertices, person.coordinates_mm
    grid = None
    if centres_mm is not None and (like is not None or vertices is None):
        grid = Grid.of(centres_mm) if like is None else Grid.like(centres_mm, like)
    return Places(vertices, grid, _pycortex(store, record.subject, has_centres=centres_mm is not None))


def mni_space(settings: Mapping[str, Any]) -> str | None:
    """The MNI space that a store's responses lie in, as its source's settings name it; None where they name none.

    fMRIPrep's output space, or `space-` in the names of runs, in its words; 'MNI' alone for the published runs of
    alice_bids, whose authors say no more.

    >>> mni_space({"responses": {"space": "MNI152NLin6Asym:res-2"}}), mni_space({"responses": {"space": "func"}})
    ('MNI152NLin6Asym', None)
    """
    from brainlit.stories.alice_bids import RUN, AliceSource

    own = settings.get("of") or settings
    if own.get("source") == AliceSource.__name__ and own.get("run") == RUN:
        return "MNI"
    responses = own.get("responses") or {}
    space = str(responses.get("space") or "").partition(":")[0]
    names = [str(own.get(key) or "") for key in ("run", "runs")] + [str(responses.get("file") or "")]
    named = re.search(r"(?:^|_)space-(MNI[A-Za-z0-9]*)", " ".join(names))
    return space if space.startswith("MNI") else named and named[1]


def _pycortex(store: StoryStore, subject: str, *, has_centres: bool) -> PycortexPlaces | None:
    """What a subject is called in pycortex, where its columns run in pycortex's order.

    Those of lebel2023 do. So do others where regions were drawn in pycortex, unless the responses were read within a
    NIfTI mask (which gives centres): then their order is that of NIfTI.
    """
    settings = store.settings
    if settings.get("source") == "lebel2023":
        return PycortexPlaces(subject, f"{subject}_auto")
    regions = settings.get("regions") or (settings.get("responses") or {}).get("region_files") or {}
    mask = re.search(r"mask_(.+)\.nii", str(regions.get("mask") or "mask_thick.nii.gz"))
    if has_centres or mask is None or not regions.get("pycortex"):
        return None
    transform = str(regions.get("transform") or "{subject}_auto").replace("{subject}", subject)
    return PycortexPlaces(subject, transform, mask[1])


def _open_store(path: Path | None, run: RunDirectory) -> StoryStore:
    from brainlit.store import StoryStore

    if path is None or not path.is_dir():
        where = f"{path} is not there" if path is not None else "nothing says where it is"
        raise MapsError(
            f"the probes of {run.path} do not say where all voxels lie; its story store does, but {where}. Put it there"
            " again, or name it: --store FOLDER."
        )
    store = StoryStore.open(path)
    wanted = read_json_if_there(run.path / RUN_FILE).get("data_module", {}).get("store_fingerprint")
    if wanted not in (None, store.fingerprint):
        raise MapsError(f"{path} is not the store that {run.path} was made with. Name that one: --store FOLDER.")
    return store
