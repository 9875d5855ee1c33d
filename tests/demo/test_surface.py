import numpy as np
import pytest

from brainlit.demo.listeners import KINDS
from brainlit.demo.surface import (
    LANDMARKS,
    N_LEFT,
    N_VERTICES,
    REGIONS_OF_KIND,
    place_voxels,
    region_vertices,
    vertex_coordinates_mm,
)


def test_left_vertices_come_first():
    x_mm = vertex_coordinates_mm()[:, 0]
    assert x_mm.shape == (N_VERTICES,)
    assert x_mm[:N_LEFT].mean() < -20
    assert x_mm[N_LEFT:].mean() > 20


@pytest.mark.parametrize("region", LANDMARKS)
def test_each_region_is_a_ball_in_both_hemispheres(region):
    vertices, landmark = region_vertices()[region], LANDMARKS[region]
    for side, inside in ((-1, vertices < N_LEFT), (1, vertices >= N_LEFT)):
        assert inside.sum() > 60
        centre_mm = np.array([side * landmark.x_mm, landmark.y_mm, landmark.z_mm])
        distance_mm = np.linalg.norm(vertex_coordinates_mm()[vertices[inside]] - centre_mm, axis=1)
        assert distance_mm.max() <= landmark.radius_mm


def test_regions_do_not_overlap_and_each_has_one_kind():
    everything = np.concatenate(list(region_vertices().values()))
    assert len(np.unique(everything)) == len(everything)
    assert sorted(region for regions in REGIONS_OF_KIND.values() for region in regions) == sorted(LANDMARKS)


@pytest.mark.parametrize("n_voxels", [9, 500, 95_556])
def test_voxels_are_dealt_evenly_to_the_regions_of_their_kind(n_voxels):
    kinds = np.arange(n_voxels) % len(KINDS)
    vertices = place_voxels(kinds, KINDS, np.random.default_rng(0))
    for kind, name in enumerate(KINDS):
        counts = [np.isin(vertices[kinds == kind], region_vertices()[region]).sum() for region in REGIONS_OF_KIND[name]]
        assert sum(counts) == (kinds == kind).sum()
        assert max(counts) - min(counts) <= 1


def test_vertices_are_shared_only_when_there_are_more_voxels_than_vertices():
    few = place_voxels(np.full(800, 1), KINDS, np.random.default_rng(0))
    assert np.unique(few, return_counts=True)[1].max() == 2
    few = place_voxels(np.full(300, 1), KINDS, np.random.default_rng(0))
    assert len(np.unique(few)) == 300


def test_places_follow_their_random_stream():
    places = [place_voxels(np.full(50, 2), KINDS, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(places[0], places[1])
    assert not np.array_equal(places[0], places[2])
