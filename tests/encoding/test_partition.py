from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import himalaya_backend, model_name, part_name, partition_variance, split_r2, subsets
from brainlit.encoding.statistics import r2_within


def test_names_keep_the_fixed_order() -> None:
    assert model_name({"semantic", "backbone"}) == "backbone+semantic"
    assert part_name(["low_level", "backbone"]) == "backbone&low_level"
    assert len(subsets(["semantic", "low_level", "backbone"])) == 7
    with pytest.raises(ValueError, match="at least one of backbone, low_level, semantic"):
        model_name(["syntax"])
    with pytest.raises(ValueError, match="at least one"):
        model_name([])


def test_parts_are_the_areas_of_three_circles() -> None:
    """R2 of a union is the sum of the areas that it covers; the partition finds the areas again."""
    bands = ("backbone", "low_level", "semantic")
    rng = np.random.default_rng(0)
    areas = {members: rng.uniform(0, 0.2, 5) for members in subsets(bands)}
    r2 = {
        model_name(union): sum(area for members, area in areas.items() if set(members) & set(union))
        for union in subsets(bands)
    }
    parts = partition_variance(r2, bands)
    assert set(parts) == {part_name(members) for members in areas}
    for members, area in areas.items():
        np.testing.assert_allclose(parts[part_name(members)], area, atol=1e-12)


@pytest.mark.parametrize("bands", [("backbone",), ("backbone", "low_level"), ("low_level", "semantic")])
def test_fewer_bands_have_fewer_parts_that_still_add_up(bands: tuple[str, ...]) -> None:
    rng = np.random.default_rng(1)
    r2 = {model_name(members): rng.uniform(-0.1, 0.5, 4) for members in subsets(bands)}
    parts = partition_variance(r2, bands)
    assert len(parts) == 2 ** len(bands) - 1
    np.testing.assert_allclose(sum(parts.values()), r2[model_name(bands)], atol=1e-12)


def test_product_measure_adds_up_and_is_himalayas() -> None:
    from himalaya.scoring import r2_score_split

    rng = np.random.default_rng(2)
    y = rng.standard_normal((50, 7))
    y -= y.mean(axis=0)
    parts = {band: 0.4 * y + rng.standard_normal(y.shape) for band in ("backbone", "semantic")}
    parts = {band: p - p.mean(axis=0) for band, p in parts.items()}
    split = split_r2(y, parts)
    np.testing.assert_allclose(sum(split.values()), r2_within(y, sum(parts.values()), np.zeros(50)), atol=1e-12)
    with himalaya_backend("numpy"):
        reference = r2_score_split(y, np.stack(list(parts.values())))
    np.testing.assert_allclose(np.stack(list(split.values())), reference, atol=1e-12)
