"""The tests keep their level under a true null, and naive ones do not: a small form of tests.benchmarks.null_tests."""

from __future__ import annotations

import numpy as np
import pytest

from brainlit.encoding import paired_sign_flip, paired_wilcoxon
from tests.benchmarks.null_tests import (
    ONE_STORY,
    STORIES,
    STRONG,
    THREE_STORIES,
    Simulation,
    block_difference,
    equivalence_at_bound,
    family,
    hierarchical,
    in_chunks,
    independent_sample_p,
    interval_of_r,
    keeps_level,
    over_subjects,
    replicates_at_bound,
    rows_exchanged,
    shifted,
    sign_flip_level,
    wilcoxon_level,
)

KEPT: dict[str, tuple[Simulation, int, float]] = {
    "shifts": (shifted(ONE_STORY, m=199), 1000, 0.05),
    "shifts, three stories": (shifted(THREE_STORIES, m=199), 1000, 0.05),
    "difference": (block_difference(ONE_STORY, m=199), 1000, 0.05),
    "difference of R2": (block_difference(ONE_STORY, "r2", m=199), 1000, 0.05),
    "max statistic": (family("r", n_voxels=10, m=99), 200, 0.05),
    "max statistic of differences": (family("difference", n_voxels=10, m=99), 200, 0.05),
    "Wilcoxon": (over_subjects(paired_wilcoxon, 10), 2000, wilcoxon_level(10)),
    "sign flips": (over_subjects(paired_sign_flip, 8), 2000, sign_flip_level(8)),
    "equivalence over subjects": (equivalence_at_bound, 2000, 0.05),
    "equivalence by replicates": (replicates_at_bound(), 300, 0.05),
    "hierarchical": (hierarchical((6, 5, 3)), 200, 0.05),
    "hierarchical, nested": (hierarchical((6, 5, 3), nested=True), 200, 0.05),
}
NAIVE: dict[str, tuple[Simulation, int]] = {
    "rows as independent": (independent_sample_p, 1000),
    "rows exchanged": (in_chunks(rows_exchanged), 1000),
    "voxels uncorrected": (family("uncorrected", n_voxels=10, m=99), 200),
    "cells as independent": (hierarchical((6, 5, 3), naive=True), 200),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_true_null_is_rejected_as_often_as_it_should(name: str) -> None:
    rejects, n, level = KEPT[name]
    assert keeps_level(rejects(n, np.random.default_rng(0)), level)


@pytest.mark.parametrize("name", ["3 x 60 rows", "3 x 100 rows", "200, 45 and 45 rows"])
def test_short_and_unequal_stories_of_strong_memory_keep_the_level(name: str) -> None:
    """Blocks in random order, blocks that leave means out, and replicates with fixed means missed by 7 to 10 %."""
    lengths, rng = STORIES[name], np.random.default_rng(1)
    assert keeps_level(shifted(lengths, STRONG, m=199)(800, rng), tolerance=0.005)
    assert keeps_level(block_difference(lengths, phi=STRONG, m=199)(800, rng), tolerance=0.005)
    assert keeps_level(replicates_at_bound(lengths, STRONG)(200, rng))
    assert keeps_level(interval_of_r("time", lengths, STRONG)(200, rng))


@pytest.mark.parametrize("name", NAIVE)
def test_naive_tests_fail_the_same_assertion(name: str) -> None:
    rejects, n = NAIVE[name]
    assert not keeps_level(rejects(n, np.random.default_rng(0)))


def test_intervals_over_stories_cover() -> None:
    assert keeps_level(interval_of_r("stories", (40,) * 5)(200, np.random.default_rng(0)))


def test_five_subjects_cannot_reach_five_percent() -> None:
    assert wilcoxon_level(5) == sign_flip_level(5) == 0
    assert not over_subjects(paired_wilcoxon, 5)(500, np.random.default_rng(0)).any()
    assert wilcoxon_level(10) == pytest.approx(0.0488, abs=1e-4)
