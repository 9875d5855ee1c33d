"""Where the simulated voxels are: named regions of fsaverage5, both hemispheres.

A region is the part of the pial surface within some millimetres of an anatomical landmark (MNI305 coordinates, which
differ from MNI152 by a few millimetres); a vertex within reach of several belongs to the one it is closest to,
relative to their radii. These are places to draw on, not an atlas.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from brainlit.stories.base import FloatArray, IntArray

N_VERTICES = 20_484
N_LEFT = 10_242


class Landmark(NamedTuple):
    """Centre of a region in the right hemisphere (x is mirrored for the left), and how far it reaches."""

    x_mm: float
    y_mm: float
    z_mm: float
    radius_mm: float


LANDMARKS: MappingProxyType[str, Landmark] = MappingProxyType(
    {
        "auditory_cortex": Landmark(46, -21, 8, 14),
        "planum_polare": Landmark(46, 0, -8, 12),
        "superior_temporal": Landmark(62, -28, 4, 16),
        "lateral_temporal": Landmark(60, -38, -10, 18),
        "angular_gyrus": Landmark(48, -62, 32, 16),
        "inferior_frontal": Landmark(50, 24, 10, 16),
        "middle_frontal": Landmark(40, 22, 42, 16),
        "precuneus": Landmark(7, -60, 38, 16),
        "visual_cortex": Landmark(9, -90, 4, 22),
        "sensorimotor": Landmark(40, -24, 58, 16),
        "insula": Landmark(36, 10, -2, 14),
        "superior_parietal": Landmark(24, -56, 60, 14),
        "frontal_eye_field": Landmark(28, -2, 52, 14),
        "anterior_cingulate": Landmark(6, 34, 20, 16),
        "orbitofrontal": Landmark(24, 36, -14, 14),
        "temporal_pole": Landmark(40, 14, -30, 16),
        "fusiform": Landmark(36, -46, -18, 14),
    }
)

REGIONS_OF_KIND: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "null": ("visual_cortex", "sensorimotor"),
        "auditory": ("auditory_cortex", "superior_temporal"),
        "semantic": ("lateral_temporal", "angular_gyrus", "inferior_frontal", "middle_frontal", "precuneus"),
        "modulation": ("planum_polare", "insula"),
        "attention": ("superior_parietal", "frontal_eye_field"),
        "arousal": ("anterior_cingulate", "orbitofrontal"),
        "brain_only": ("temporal_pole", "fusiform"),
    }
)
"""What simulated voxels in each region follow; null regions hear nothing."""


@lru_cache(maxsize=1)
def vertex_coordinates_mm() -> FloatArray:
    """Pial coordinates of all vertices, shape (20484, 3): left hemisphere first. nilearn carries the surface."""
    from nilearn.datasets import fetch_surf_fsaverage
    from nilearn.surface import load_surf_mesh

    files = fetch_surf_fsaverage("fsaverage5")
    meshes = [np.asarray(load_surf_mesh(files[f"pial_{side}"]).coordinates) for side in ("left", "right")]
    coordinates_mm = np.concatenate(meshes).astype(np.float64)
    coordinates_mm.setflags(write=False)
    return coordinates_mm


@lru_cache(maxsize=1)
def region_vertices() -> MappingProxyType[str, IntArray]:
    """Vertices of each region, both hemispheres, sorted; regions do not overlap."""
    coordinates_mm = vertex_coordinates_mm()
    side = np.where(np.arange(N_VERTICES) < N_LEFT, -1.0, 1.0)
    reach = np.empty((len(LANDMARKS), N_VERTICES))
    for row, landmark in enumerate(LANDMARKS.values()):
        mirrored_mm = coordinates_mm * np.stack([side, np.ones(N_VERTICES), np.ones(N_VERTICES)], axis=1)
        reach[row] = np.linalg.norm(mirrored_mm - landmark[:3], axis=1) / landmark.radius_mm
    nearest, inside = reach.argmin(axis=0), reach.min(axis=0) <= 1
    return MappingProxyType(
        {name: np.flatnonzero(inside & (nearest == row)).astype(np.int64) for row, name in enumerate(LANDMARKS)}
    )


def place_voxels(kinds: IntArray, kind_names: tuple[str, ...], rng: np.random.Generator) -> IntArray:
    """A vertex for each voxel, in a region of its kind: shape (n_voxels,).

    The voxels of a kind are dealt to its regions in turn, so that each region gets its share. Within a region no
    vertex is used twice before all were used once; with more voxels than vertices several share one.

    Parameters
    ----------
    kinds : int array of shape (n_voxels,)
        Index into `kind_names`.
    """
    vertices = np.empty(len(kinds), dtype=np.int64)
    for kind, kind_name in enumerate(kind_names):
        of_kind = np.flatnonzero(kinds == kind)
        regions = REGIONS_OF_KIND[kind_name]
        for turn, region in enumerate(regions):
            voxels = of_kind[turn :: len(regions)]
            pool = region_vertices()[region]
            rounds = [rng.permutation(pool) for _ in range(-(-len(voxels) // len(pool)))]
            if rounds:
                vertices[voxels] = np.concatenate(rounds)[: len(voxels)]
    return vertices
