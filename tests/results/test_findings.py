"""Verdicts on planted numbers, and what is said beside them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from brainlit.results.claims import CLAIMS, SMALLEST, TOPICS
from brainlit.results.effects import REGION, WORDS, Evidence, Key, SeedEvidence
from brainlit.results.findings import Finding, findings
from brainlit.results.region_scores import Score
from brainlit.results.verdicts import CANNOT_TELL, NOT_MEASURED, NOT_SUPPORTED, SUPPORTED

ALIGNMENT, SHARE = Key("r_backbone", REGION), Key("low_level_share", REGION)
RISES = "alignment rises in semantic voxels"
BEYOND = "alignment rises more than with permuted responses"


def told(key: Key = ALIGNMENT, **regimes: Sequence[float | Sequence[float]]) -> Evidence:
    """Evidence of one model: of each regime a number per seed, or several of one seed: permutations."""
    n_seeds = max(map(len, regimes.values()))
    seeds = []
    for k in range(n_seeds):
        states = {}
        for regime, values in regimes.items():
            if k < len(values):
                value = values[k]
                draws = [value] if isinstance(value, float) else list(value)
                states[regime] = tuple({key: {"": Score(draw)}} for draw in draws)
        seeds.append(SeedEvidence("m", k, states))
    return Evidence("semantic", tuple(seeds))


def finding(evidence: Evidence, text: str) -> Finding:
    (found,) = [one for one in findings(evidence) if one.text == text]
    return found


BEFORE = [0.30, 0.31, 0.29, 0.30, 0.32]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([0.45, 0.47, 0.44, 0.43, 0.48], SUPPORTED),
        ([0.40, 0.25, 0.35, 0.20, 0.45], CANNOT_TELL),
        ([0.30, 0.312, 0.288, 0.301, 0.32], NOT_SUPPORTED),
        ([0.20, 0.22, 0.18, 0.21, 0.22], NOT_SUPPORTED),
        ([0.30, 0.31, 0.29, 0.30, 0.33], NOT_SUPPORTED),
    ],
)
def test_alignment_gets_the_verdict_of_its_seeds(after: list[float], expected: str) -> None:
    found = finding(told(brain=after, pretrained=BEFORE), RISES)
    assert found.verdict == expected
    assert found.n == 5
    assert found.mean == pytest.approx(sum(after) / 5 - sum(BEFORE) / 5)


def test_a_fall_is_supported_by_falling() -> None:
    text = "the low-level share falls in semantic voxels"
    falls, rises = [0.5, 0.55, 0.45], [0.9, 0.95, 0.92]
    before = [0.8, 0.82, 0.78]
    assert finding(told(SHARE, brain=falls, pretrained=before), text).verdict == SUPPORTED
    assert finding(told(SHARE, brain=rises, pretrained=before), text).verdict == NOT_SUPPORTED


def test_one_seed_shows_its_number_and_decides_nothing() -> None:
    found = finding(told(brain=[0.9], pretrained=[0.1]), RISES)
    assert (found.verdict, found.mean, found.low, found.sign_flip_p) == (CANNOT_TELL, pytest.approx(0.8), None, None)
    assert "One seed: its own interval says nothing about another experiment, so there is no verdict." in found.notes


def test_a_missing_regime_is_not_measured_and_says_what_to_run() -> None:
    found = finding(told(brain=[0.4, 0.5], pretrained=[0.3, 0.3]), BEYOND)
    assert (found.verdict, found.n, found.mean) == (NOT_MEASURED, 0, None)
    assert found.notes == (
        "No run of regime permuted; with the seeds of the others: `make train REGIME=permuted SEED=...`.",
    )


def test_regimes_of_different_seeds_are_no_pair() -> None:
    seeds = [
        SeedEvidence("m", 1, {"brain": ({ALIGNMENT: {"": Score(0.4)}},)}),
        SeedEvidence("m", 2, {"permuted": ({ALIGNMENT: {"": Score(0.3)}},)}),
    ]
    found = finding(Evidence("semantic", tuple(seeds)), BEYOND)
    assert found.verdict == NOT_MEASURED
    assert "No seed has both brain and permuted" in found.notes[0]


def test_numbers_that_probes_or_tasks_lack_are_named_with_their_command() -> None:
    notes = {one.text: one.notes[0] for one in findings(told(brain=[0.4, 0.5], pretrained=[0.3, 0.3])) if not one.n}
    assert notes["phones are read no worse"].startswith("`brainlit downstream RUN`")
    assert "probe.layers: all" in notes["the gain grows towards the last layers in semantic voxels"]


def test_seeds_that_lack_a_regime_do_not_count() -> None:
    found = finding(told(brain=[0.4, 0.5, 0.45], permuted=[0.3, 0.3]), BEYOND)
    assert found.n == 2
    assert "Measured in 2 of 3 seeds." in found.notes


def test_permutations_are_averaged_within_a_seed_and_their_spread_is_said() -> None:
    permuted = [[0.30, 0.34], [0.31, 0.29], [0.30, 0.30]]
    found = finding(told(brain=[0.5, 0.5, 0.5], permuted=permuted), BEYOND)
    assert [one.value for one in found.seeds.values()] == pytest.approx([0.18, 0.2, 0.2])
    assert "Permutations of one seed (2) are averaged; they differ by 0.040 at most." in found.notes


def test_a_control_that_rises_too_is_said() -> None:
    after, control = [0.45, 0.47, 0.44, 0.43, 0.48], [0.35, 0.37, 0.33, 0.36, 0.38]
    found = finding(told(brain=after, pretrained=BEFORE, permuted=control), RISES)
    assert found.verdict == SUPPORTED
    (note,) = [note for note in found.notes if "permuted control" in note]
    assert note.startswith("The permuted control rises too: +0.054 (")
    flat = finding(told(brain=after, pretrained=BEFORE, permuted=[0.30, 0.30, 0.30, 0.29, 0.33]), RISES)
    assert not flat.notes
    fallen = finding(told(brain=after, pretrained=BEFORE, stimulus=[0.2, 0.21, 0.19, 0.2, 0.22]), RISES)
    assert not fallen.notes


def test_an_effect_too_small_to_matter_is_not_supported_and_said() -> None:
    found = finding(told(brain=[value + 0.005 for value in BEFORE], pretrained=BEFORE), RISES)
    assert found.verdict == NOT_SUPPORTED
    assert "There is an effect, smaller than the smallest that matters (0.01)." in found.notes


def test_the_published_task_stands_in_for_the_demos() -> None:
    key = Key("timit/phones", "test")
    found = finding(told(key, brain=[0.6, 0.61], pretrained=[0.6, 0.61]), "phones are read no worse")
    assert (found.n, found.verdict) == (2, SUPPORTED)


def test_a_ratio_counts_where_it_is_defined() -> None:
    evidence = told(Key("ratio", WORDS), brain=[0.9, 1.0, 1.1], pretrained=[0.2, 0.3])
    found = finding(evidence, "the ratio of meaning to sound rises, where it is defined")
    assert found.n == 2
    assert "Measured in 2 of 3 seeds." in found.notes


def test_models_are_judged_each_by_itself() -> None:
    one = told(brain=[0.5, 0.52, 0.48], pretrained=[0.3, 0.3, 0.3])
    flat = told(brain=[0.3, 0.301, 0.299], pretrained=[0.3, 0.3, 0.3])
    other = tuple(SeedEvidence("n", seed.seed, seed.states) for seed in flat.seeds)
    found = findings(Evidence("semantic", (*one.seeds, *other)))
    assert [(f.model, f.verdict) for f in found if f.text == RISES] == [("m", SUPPORTED), ("n", NOT_SUPPORTED)]


def test_claims_say_what_they_need_to() -> None:
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)
    assert list(dict.fromkeys(claim.topic for claim in CLAIMS)) == list(TOPICS)
    for claim in CLAIMS:
        assert claim.source
        assert claim.keys
        assert claim.between[0] == "brain"
        assert not set("|\n") & set(claim.metric + claim.text + claim.source)
    for smallest, reason in SMALLEST.values():
        assert smallest > 0
        assert len(reason) > 20
