"""Shares and impacts of a group against sums over people and time by hand; in some of them little is explained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from brainlit.comparison.effects import Key, SeedEvidence
from brainlit.encoding.statistics import Score, small_sample_factor
from brainlit.results.group import entering, group_keys, group_score, of_tables, own_parts
from brainlit.results.record import ProbeRecord, find_records
from brainlit.results.region_table import region_table
from brainlit.results.run_directory import RunDirectory
from brainlit.results.scores import ScoreRow, ScoreTable, ratio_of
from brainlit.results.summary import build_summary, find_score

N_BLOCKS, N_DRAWS = 30, 200
STRETCH = small_sample_factor(N_BLOCKS)
Blocks = Mapping[str, np.ndarray]


def people(
    rng: np.random.Generator, explained: list[float], shares: list[float], noise: float, exact: bool = True
) -> dict[str, Blocks]:
    """Per subject and block of time: R2 of the model, what low-level features share of it, r and what is left of it.

    Of `exact` people the noise of all time is 0 together, so that what passes a filter is not left to chance.
    """
    found = {}
    for k, (truth, share) in enumerate(zip(explained, shares, strict=True)):
        common, *own = rng.standard_normal((4, N_BLOCKS)) * noise * np.array([[1], [0.25], [0.25], [0.25]])
        if exact:
            common, own = common - common.mean(), [one - one.mean() for one in own]
        r2, shared = truth + common, share * (truth + common) + own[0]
        r, rest = np.sqrt(truth) + common + own[1], (1 - share) * (np.sqrt(truth) + common) + own[2]
        found[f"s{k}"] = {
            "r2_backbone": r2,
            "r2_shared_low_level": shared,
            "r_backbone": r,
            "r_rest_banded_ridge": rest,
        }
    return found


def tables(blocks: Mapping[str, Blocks], seed: int = 0) -> dict[str, ScoreTable]:
    """What a probe would keep of them: means, and replicates from blocks that are drawn alike for everybody."""
    drawn = np.random.default_rng(seed).multinomial(N_BLOCKS, np.full(N_BLOCKS, 1 / N_BLOCKS), size=N_DRAWS) / N_BLOCKS
    made = {}
    for subject, own in blocks.items():
        terms = {name: Score(float(x.mean()), drawn @ x).stretched(STRETCH) for name, x in own.items()}
        ratios = {name: ratio_of(name, terms) for name in ("low_level_share", "impact_banded_ridge")}
        scores = terms | {name: score for name, score in ratios.items() if score is not None}
        made[subject] = ScoreTable(ScoreRow("semantic", 2, name, 8, score) for name, score in scores.items())
    return made


def by_hand(blocks: Mapping[str, Blocks]) -> dict[str, float]:
    """Sums over everybody and all time before the division."""
    r2, shared, r, rest = (sum(own[name].sum() for own in blocks.values()) for name in next(iter(blocks.values())))
    return {"low_level_share": shared / r2, "impact_banded_ridge": 100 * (r - rest) / r}


@pytest.mark.parametrize("metric", ["low_level_share", "impact_banded_ridge"])
def test_one_who_passes_does_not_stand_for_ten(metric: str) -> None:
    blocks = people(np.random.default_rng(1), [0.09] + [0.01] * 9, [1.0] + [0.4] * 9, 0.05)
    made = tables(blocks)
    passed = [subject for subject, table in made.items() if table.get("semantic", 2, metric) is not None]
    assert passed == ["s0"]
    of = of_tables(made, "semantic", 2)
    found = group_score(metric, of)
    assert found is not None
    assert found.subjects == tuple(blocks)
    assert found.score.value == pytest.approx(by_hand(blocks)[metric])
    assert found.score.value < 0.8 * of(metric)["s0"].value
    parts = own_parts(metric, of, found.subjects)
    assert np.mean(list(parts.values())) == pytest.approx(found.score.value)


def test_the_interval_of_the_group_covers_the_truth() -> None:
    rng, covered, widths = np.random.default_rng(2), [], []
    for seed in range(300):
        made = tables(people(rng, [0.05, 0.02, 0.01, 0.01], [0.5] * 4, 0.04, exact=False), seed)
        found = group_score("low_level_share", of_tables(made, "semantic", 2))
        assert found is not None
        covered.append(found.score.low <= 0.5 <= found.score.high)
        widths.append(found.score.high - found.score.low)
    assert 0.9 <= np.mean(covered) <= 0.99
    assert np.median(widths) < 0.2


def test_a_group_that_explains_nothing_has_no_share_and_one_who_explains_little_none_of_his_own() -> None:
    nothing = tables(people(np.random.default_rng(2), [0.0] * 5, [0.5] * 5, 0.05))
    assert group_score("low_level_share", of_tables(nothing, "semantic", 2)) is None
    weak = tables(people(np.random.default_rng(3), [0.01], [0.5], 0.05))
    assert group_score("low_level_share", of_tables(weak, "semantic", 2)) is None
    all_weak = tables(people(np.random.default_rng(4), [0.012] * 12, [0.5] * 12, 0.05))
    own = {key[2] for table in all_weak.values() for key in table.keys}
    assert "low_level_share" not in own
    assert ("semantic", 2, "low_level_share") in group_keys(all_weak.values())
    found = group_score("low_level_share", of_tables(all_weak, "semantic", 2))
    assert found is not None
    assert found.score.low > 0


def test_a_mean_is_over_those_who_have_it_and_a_single_person_keeps_their_own_number() -> None:
    made = tables(people(np.random.default_rng(5), [0.05, 0.02], [0.5, 0.5], 0.02))
    one = {"s0": made["s0"]}
    share = of_tables(one, "semantic", 2)("low_level_share")["s0"]
    found = group_score("low_level_share", of_tables(one, "semantic", 2))
    assert found is not None
    assert found.score == share
    row = ScoreRow("semantic", 2, "ceiling", 8, Score(0.4))
    with_ceiling = {**made, "s1": ScoreTable([*made["s1"].rows, row])}
    of = of_tables(with_ceiling, "semantic", 2)
    assert (entering("ceiling", of), entering("r_backbone", of)) == (["s1"], ["s0", "s1"])
    ceiling = group_score("ceiling", of)
    assert ceiling is not None
    assert (ceiling.score.value, ceiling.subjects) == (0.4, ("s1",))


def records_with(tables: Mapping[str, ScoreTable], like: ProbeRecord, epoch: int) -> list[ProbeRecord]:
    stage = "after" if epoch else "before"
    return [
        replace(like, subject=subject, table=table, epoch=epoch, stage=stage, fingerprint=subject, facts={**like.facts})
        for subject, table in tables.items()
    ]


def test_the_summary_and_the_printed_table_divide_sums_and_name_who_is_in_them(run: RunDirectory) -> None:
    like = next(record for record in find_records(run.probes) if record.layer == 2)
    like = replace(like, regions={"semantic": like.regions["semantic"]})
    before = people(np.random.default_rng(6), [0.09] + [0.01] * 9, [0.9] * 10, 0.05)
    after = people(np.random.default_rng(7), [0.09] + [0.01] * 9, [0.5] * 10, 0.05)
    made = [tables(before), tables(after)]
    made[1]["s0"] = ScoreTable([*made[1]["s0"].rows, ScoreRow("semantic", 2, "r_over_ceiling", 8, Score(0.5))])
    records = [record for epoch, some in zip((0, 4), made, strict=True) for record in records_with(some, like, epoch)]
    summary = build_summary(run, records)
    row = find_score(summary, "semantic", "low_level_share")
    assert row is not None
    assert (row["n_subjects"], row["n_voxels"]) == (10, 80)
    for stage, blocks in (("before", before), ("after", after)):
        assert row[stage]["value"] == pytest.approx(by_hand(blocks)["low_level_share"])
    assert row["difference"]["value"] == pytest.approx(row["after"]["value"] - row["before"]["value"])
    assert row["difference"]["high"] < 0
    learned = [one for one in summary["learning"] if one["metric"] == "low_level_share"]
    assert [(one["value"], one["n_subjects"]) for one in learned] == [
        (row[s]["value"], 10) for s in ("before", "after")
    ]
    assert summary["headline"][1].endswith(", over 10 subjects.")
    text = region_table(summary)
    assert "| subjects | 10 |" in text
    assert "| r / ceiling | 0.500 (of 1 subject) |" in text


def test_claims_divide_sums_and_the_parts_of_people_scatter_as_the_number_does() -> None:
    rng, key = np.random.default_rng(8), Key("low_level_share", "region")
    explained = [0.04, 0.02, 0.03, 0.05, 0.03] * 2
    blocks = {
        regime: people(rng, explained, [share, share - 0.4] * 5, 0.03)
        for regime, share in (("brain", 0.5), ("pretrained", 0.9))
    }
    states = {}
    for regime, own in blocks.items():
        rows = [(subject, row) for subject, table in tables(own).items() for row in table.rows]
        metrics = dict.fromkeys(row.metric for _, row in rows)
        states[regime] = ({Key(m, "region"): {s: row.score for s, row in rows if row.metric == m} for m in metrics},)
    seed = SeedEvidence("m", 1, states)
    values = {regime: by_hand(own)["low_level_share"] for regime, own in blocks.items()}
    found, change = seed.value("brain", key), seed.difference("brain", "pretrained", key)
    assert found is not None
    assert change is not None
    assert (found.value, change.value) == pytest.approx((values["brain"], values["brain"] - values["pretrained"]))
    parts = seed.people("brain", "pretrained", key)
    assert list(parts) == list(blocks["brain"])
    assert np.mean(list(parts.values())) == pytest.approx(change.value)
    without = [by_hand({s: own for s, own in blocks["brain"].items() if s != left_out}) for left_out in blocks["brain"]]
    jackknife = 9 / 10 * np.square([one["low_level_share"] - values["brain"] for one in without]).sum()
    own_scatter = np.var(list(seed.people("brain", None, key).values()), ddof=1) / 10
    assert own_scatter == pytest.approx(jackknife, rel=0.5)
