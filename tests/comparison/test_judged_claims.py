from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainlit.comparison.claims import (
    CANNOT_TELL,
    CLAIMS,
    NOT_MEASURED,
    NOT_SUPPORTED,
    PLANTED,
    SHOWN,
    SMALLEST,
    SUPPORTED,
    TOPICS,
    WITHDRAWN,
)
from brainlit.comparison.effects import REGION, WORDS, Evidence, Key, SeedEvidence
from brainlit.comparison.judged_claims import (
    HEADS,
    JudgedClaim,
    claims_json,
    claims_markdown,
    judge_claims,
    replace_between,
)
from brainlit.encoding.statistics import Score


def test_every_claim_has_a_row_with_its_numbers(evidence: Evidence) -> None:
    found = judge_claims(evidence)
    lines = claims_markdown(evidence, found).splitlines()
    table = [line for line in lines if line.startswith("|")]
    measured = [one for one in found if one.verdict != NOT_MEASURED]
    assert len(table) == 2 + len(measured) + len(TOPICS)
    (rest,) = [line for line in lines if line.startswith("- Not measured, ")]
    assert rest.startswith(f"- Not measured, {len(found) - len(measured)} of {len(found)}: ")
    assert all(one.text in rest for one in found if one.verdict == NOT_MEASURED)
    assert rest.count("No voxels of these runs are called 'attention'") == 1
    assert {line.count("|") for line in table} == {len(HEADS) + 1}
    (row,) = [line for line in table if line.startswith("| alignment rises in semantic voxels (")]
    assert "| +0.162 | +0.137 to +0.187 | 3 | 11: +0.172 [+0.172, +0.172]; 12: +0.152 [" in row
    assert row.endswith("| **supported** |")
    verdicts = {one.text: one.verdict for one in found}
    assert verdicts["alignment rises more than with permuted responses"] == "supported"
    assert verdicts["word category is read better, words that the probe never saw"] == "not supported"
    assert verdicts["alignment with auditory voxels stays as it was"] == "not supported"
    assert verdicts["phones are read no worse"] == "supported"


def test_what_did_not_help_is_said_in_a_sentence(evidence: Evidence) -> None:
    text = claims_markdown(evidence, judge_claims(evidence))
    assert "- Not so: word category is read better, words that the probe never saw (+0.000, 95 % interval" in text
    assert "3 seeds: p 0.25" in text
    assert "Student's t, n - 1 degrees of freedom" in text
    assert "Not there:" not in text


def test_models_stand_side_by_side(evidence: Evidence) -> None:
    other = tuple(SeedEvidence("hubert", seed.seed, seed.states, seed.words) for seed in evidence.seeds[:1])
    both = replace(evidence, seeds=(*evidence.seeds, *other), missing=("hubert, brain: no run of seed 12",))
    text = claims_markdown(both, judge_claims(both))
    lead, _, rest = text.partition("\n\n| claim | hubert | wav2vec (tiny) |\n|---|---|---|\n")
    assert rest
    listeners, first, second = lead.split("\n\n")
    assert "listeners are simulated" in listeners
    assert first.startswith(
        "hubert, 1 seed: alignment r with semantic voxels is 0.320 before tuning, 0.492 after brain-"
    )
    assert second.startswith("wav2vec (tiny), 3 seeds: alignment r with")
    assert "| alignment rises in semantic voxels | +0.172 cannot tell with this n | +0.162 supported |" in text
    assert "**hubert**, 1 seed (11); semantic voxels" in text
    assert "1 seed: p 1; 3 seeds: p 0.25" in text
    assert text.endswith("Not there:\n\n- hubert, brain: no run of seed 12\n")


def test_json_has_every_number_of_every_seed(evidence: Evidence) -> None:
    plain = json.loads(json.dumps(claims_json(evidence, judge_claims(evidence)), allow_nan=False))
    first = plain["claims"][0]
    assert (first["claim"], first["verdict"], first["n_seeds"]) == (
        "alignment rises in semantic voxels",
        "supported",
        3,
    )
    assert first["seeds"]["12"]["value"] == pytest.approx(0.152)
    assert first["sign_flip_p"] == plain["smallest_p"]["wav2vec (tiny)"] == 0.25
    assert plain["claims"][1]["seeds"]["12"]["permutations"] == pytest.approx([0.16, 0.158], abs=1e-6)
    assert first["smallest_effect_reason"]
    assert (first["rests_on"], first["seeds_share_data"]) == ({"seeds": 3}, False)
    assert len(plain["claims"]) == len(CLAIMS) + len(PLANTED)
    assert (plain["region"], plain["simulated"]) == ("semantic", True)
    assert plain["claims"][-1]["should_be"] is None
    assert plain["claims"][len(CLAIMS)]["should_be"] == "supported"


def test_text_between_markers_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- claims:begin -->\nold\nlines\n<!-- claims:end -->\n\nEnd.\n")
    for text in ("new table\n", "newer\n\nlines"):
        assert replace_between(page, "claims", text) == page
        assert page.read_text() == (f"# Title\n\n<!-- claims:begin -->\n{text.strip()}\n<!-- claims:end -->\n\nEnd.\n")


@pytest.mark.parametrize(
    "content",
    [
        "no markers",
        "<!-- claims:begin -->",
        "<!-- claims:end -->\n<!-- claims:begin -->",
        "<!-- claims:begin -->\n<!-- claims:end -->\n<!-- claims:begin -->\n<!-- claims:end -->",
        "<!-- other:begin -->\n<!-- other:end -->",
    ],
)
def test_a_page_without_its_markers_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(content)
    with pytest.raises(ValueError, match=r"needs the lines <!-- claims:begin --> and <!-- claims:end --> once each"):
        replace_between(page, "claims", "text")
    assert page.read_text() == content


def test_a_page_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_between(tmp_path / "none.md", "claims", "text")


def test_the_demos_page_has_every_claim_as_the_code_has_it() -> None:
    """It was generated by `brainlit compare --into`; a claim that changed must be judged again."""
    page = (Path(__file__).parents[2] / "docs" / "demo.md").read_text()
    table = page.partition("<!-- claims:begin -->")[2].partition("<!-- claims:end -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| **")]
    assert rows[0] == f"| {' | '.join(HEADS)} |"
    unmeasured = "".join(line for line in table.splitlines() if line.startswith("- Not measured"))
    texts = {claim: claim.text.format(place="semantic voxels") for claim in (*CLAIMS, *PLANTED)}
    left = [claim for claim in PLANTED if texts[claim] in unmeasured]
    for row, claim in zip(rows[1:], [claim for claim in texts if claim not in left], strict=True):
        assert texts[claim] in row
        assert claim.source in row
        assert claim.metric in row
        verdict = row.strip("| ").rpartition("| ")[2].strip("* ")
        assert verdict in ("supported", "not supported", CANNOT_TELL, SHOWN, WITHDRAWN, NOT_MEASURED)
        assert claim in PLANTED or verdict != NOT_MEASURED


# --- Judging
# Verdicts on planted numbers, and what is said beside them.


ALIGNMENT, SHARE = Key("r_backbone", REGION), Key("low_level_share", REGION)
RISES = "alignment rises in semantic voxels"
BEYOND = "alignment rises more than with permuted responses"


def own_data(key: Key, seed: int) -> dict[str, str]:
    """That this seed drew data of its own."""
    return dict.fromkeys(("probe", "words", f"{key.what} {key.where}"), f"{seed}")


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
        seeds.append(SeedEvidence("m", k, states, data=own_data(key, k)))
    return Evidence("semantic", tuple(seeds))


def finding(evidence: Evidence, text: str) -> JudgedClaim:
    (found,) = [one for one in judge_claims(evidence) if one.text == text]
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
    assert found.mean is not None
    assert found.mean.value == pytest.approx(sum(after) / 5 - sum(BEFORE) / 5)


def test_a_fall_is_supported_by_falling() -> None:
    text = "the low-level share falls in semantic voxels"
    falls, rises = [0.5, 0.55, 0.45], [0.9, 0.95, 0.92]
    before = [0.8, 0.82, 0.78]
    assert finding(told(SHARE, brain=falls, pretrained=before), text).verdict == SUPPORTED
    assert finding(told(SHARE, brain=rises, pretrained=before), text).verdict == NOT_SUPPORTED


def test_one_seed_shows_its_number_and_decides_nothing() -> None:
    found = finding(told(brain=[0.9], pretrained=[0.1]), RISES)
    assert found.mean is not None
    assert (found.verdict, found.mean.value, found.interval) == (CANNOT_TELL, pytest.approx(0.8), None)
    assert found.sign_flip_p is None
    assert "One seed: its own interval says nothing about another experiment, so there is no verdict." in found.notes


def test_a_missing_regime_is_not_measured_and_says_what_to_run() -> None:
    found = finding(told(brain=[0.4, 0.5], pretrained=[0.3, 0.3]), BEYOND)
    assert (found.verdict, found.n, found.mean) == (NOT_MEASURED, 0, None)
    assert found.notes == (
        "No run of regime permuted; with the seeds of the others: `brainlit fit -c DATA -c MODEL -c permuted"
        " --seed_everything SEED`.",
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
    notes = {one.text: one.notes[0] for one in judge_claims(told(brain=[0.4, 0.5], pretrained=[0.3, 0.3])) if not one.n}
    assert notes["phones are read no worse"].startswith("`brainlit downstream RUN`")
    assert "--probe.layers all" in notes["the gain grows towards the last layers in semantic voxels"]


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
    other = tuple(SeedEvidence("n", seed.seed, seed.states, data=seed.data) for seed in flat.seeds)
    found = judge_claims(Evidence("semantic", (*one.seeds, *other)))
    assert [(f.model, f.verdict) for f in found if f.text == RISES] == [("m", SUPPORTED), ("n", NOT_SUPPORTED)]


def test_claims_say_what_they_need_to() -> None:
    everything = (*CLAIMS, *PLANTED)
    assert len({claim.text for claim in everything}) == len(everything)
    assert list(dict.fromkeys(claim.topic for claim in everything)) == list(TOPICS)
    for claim in everything:
        assert claim.source
        assert claim.keys
        assert claim.between[0] == "brain"
        assert not set("|\n") & set(claim.metric + claim.text + claim.source)
    for smallest, reason in SMALLEST.values():
        assert smallest > 0
        assert len(reason) > 20


# --- Seeds that share listeners and stories ---


def real(after: Sequence[float], before: float = 0.3, half: float = 0.02, people: Sequence[float] = (0.0,)) -> Evidence:
    """Seeds of one store: r after tuning per seed, with so wide an interval over time; `people` move a subject's r."""
    seeds = []
    for k, value in enumerate(after):
        noise = half / 1.96 * np.random.default_rng(k).standard_normal(4000)
        names = [f"sub-{n}" for n in range(len(people))]
        tuned = {n: Score(value + more, value + more + noise) for n, more in zip(names, people, strict=True)}
        start = {n: Score(before, np.full(4000, before)) for n in names}
        states = {"brain": ({ALIGNMENT: tuned},), "pretrained": ({ALIGNMENT: start},)}
        seeds.append(SeedEvidence("m", k, states))
    return Evidence("semantic", tuple(seeds))


def test_seeds_that_share_stories_are_not_independent_experiments() -> None:
    """Five seeds that agree to .002 on a rise of .015, which the minutes they share know to +- .02."""
    after = [0.315, 0.314, 0.316, 0.315, 0.315]
    found = finding(real(after), RISES)
    assert found.verdict == CANNOT_TELL
    assert found.shared
    assert found.interval == pytest.approx((0.015 - 0.0202, 0.015 + 0.0202), abs=0.001)
    alone = replace(real(after), seeds=tuple(replace(s, data={"probe": f"{s.seed}"}) for s in real(after).seeds))
    assert finding(alone, RISES).verdict == SUPPORTED


def test_what_is_shared_and_by_whom_is_said() -> None:
    one = real([0.4, 0.41])
    said = claims_markdown(one, judge_claims(one))
    assert "Seeds share listeners and stories: intervals join seeds and what they share. There is one subject" in said
    both = real([0.4, 0.41], people=(0.0, 0.05))
    found = finding(both, RISES)
    assert found.json()["rests_on"] == {"seeds": 2, "subjects": 2}
    assert "There is one subject" not in claims_markdown(both, judge_claims(both))
    drawn = told(brain=[0.4, 0.5], pretrained=[0.3, 0.3])
    assert "Each seed draws listeners, stories, clips and words of its own" in claims_markdown(
        drawn, judge_claims(drawn)
    )


def test_people_who_differ_widen_the_interval() -> None:
    after = [0.40, 0.41, 0.39, 0.40, 0.40]
    assert finding(real(after, people=(-0.01, 0.0, 0.01)), RISES).verdict == SUPPORTED
    assert finding(real(after, people=(-0.12, 0.0, 0.12)), RISES).verdict == CANNOT_TELL


def test_shared_seeds_without_an_interval_of_their_own_get_no_verdict() -> None:
    seeds = tuple(replace(seed, data={}) for seed in told(brain=[0.5, 0.51], pretrained=[0.3, 0.3]).seeds)
    found = finding(Evidence("semantic", seeds), RISES)
    assert (found.verdict, found.interval) == (CANNOT_TELL, None)
    assert "not every one has an interval over it" in found.notes[0]


# --- What was planted ---


def simulated(shares: Mapping[str, Sequence[float]], before: float = 0.8) -> Evidence:
    """Low-level shares after tuning by region, one per seed; 'region' is the compared one."""
    n = len(next(iter(shares.values())))
    seeds = []
    for k in range(n):
        after = {Key("low_level_share", region): {"": Score(values[k])} for region, values in shares.items()}
        start = {key: {"": Score(before)} for key in after}
        seeds.append(SeedEvidence("m", k, {"brain": (after,), "pretrained": (start,)}, data={"probe": f"{k}"}))
    return Evidence("semantic", tuple(seeds), simulated=True)


FALLS = "the low-level share falls in semantic voxels"
DEEP, FLAT = [0.5, 0.52, 0.48, 0.5, 0.51], [0.80, 0.81, 0.79, 0.80, 0.80]


def test_planted_rows_are_for_simulated_listeners_only() -> None:
    evidence = simulated({REGION: DEEP})
    assert len(judge_claims(evidence)) == len(CLAIMS) + len(PLANTED)
    assert len(judge_claims(replace(evidence, simulated=False))) == len(CLAIMS)
    assert "listeners are simulated" in claims_markdown(evidence, judge_claims(evidence))
    assert claims_markdown(evidence, []).startswith("**The listeners are simulated: ")
    assert "simulated" not in claims_markdown(replace(evidence, simulated=False), [])
    some = replace(evidence, simulated=False, partly_simulated="The listeners of 1 of 3 runs are simulated.")
    assert claims_markdown(some, []).startswith("**The listeners of 1 of 3 runs are simulated.**\n\n")


def test_a_null_that_stays_leaves_the_claim_as_it_is() -> None:
    evidence = simulated({REGION: DEEP, "modulation": FLAT})
    found = finding(evidence, FALLS)
    assert (found.verdict, found.notes) == (SUPPORTED, ())
    assert finding(evidence, "the low-level share falls in modulation voxels, where it cannot").verdict == NOT_SUPPORTED
    said = claims_markdown(evidence, judge_claims(evidence))
    assert "1 of 1 planted nulls came out as planted, 0 cannot be told, none contradicts what was planted." in said
    assert "; planted, should be: not supported |" in said
    assert "Not so: the low-level share falls in modulation voxels" not in said


def test_a_claim_that_a_planted_null_shows_too_is_withdrawn() -> None:
    evidence = simulated({REGION: DEEP, "attention": [0.6, 0.61, 0.62, 0.6, 0.61]})
    found = finding(evidence, FALLS)
    assert found.verdict == WITHDRAWN
    (note,) = found.notes
    assert note.startswith("The same number falls by 0.192 (-0.202 to -0.182) in attention voxels, where nothing")
    assert note.endswith("what counts is the difference, -0.106 (-0.130 to -0.082).")
    said = claims_markdown(evidence, judge_claims(evidence))
    assert "Withdrawn, for a planted null shows it too: the low-level share falls in semantic voxels" in said
    assert "1 contradicts what was planted: the low-level share falls in attention voxels, where it cannot," in said


def test_a_small_fall_of_a_null_is_noted_and_withdraws_nothing() -> None:
    """-.03 is beyond 0 and below the smallest effect of interest, .05."""
    found = finding(simulated({REGION: DEEP, "arousal": [0.77, 0.771, 0.769, 0.77, 0.77]}), FALLS)
    assert found.verdict == SUPPORTED
    assert "falls by 0.030" in found.notes[0]


def test_a_null_is_not_held_against_itself_nor_against_real_people() -> None:
    evidence = simulated({REGION: DEEP, "auditory": DEEP})
    assert finding(evidence, FALLS).verdict == WITHDRAWN
    assert finding(replace(evidence, simulated=False), FALLS).verdict == SUPPORTED
    own = replace(evidence, region="auditory")
    assert finding(own, "the low-level share falls in auditory voxels").verdict == SUPPORTED


def test_a_region_or_rows_that_are_not_there_say_why() -> None:
    notes = {one.text: one.notes for one in judge_claims(simulated({REGION: DEEP})) if one.verdict == NOT_MEASURED}
    assert (
        "No voxels of these runs are called 'arousal'"
        in notes["the low-level share falls in arousal voxels, where it cannot"][0]
    )
    unheard = notes["alignment rises in semantic voxels on words that tuning never heard"]
    assert "enough scored rows that rest on words that tuning never heard" in unheard[0]


@pytest.mark.parametrize(
    ("key", "between", "text"),
    [
        (
            Key("partition_backbone", "attention"),
            "pretrained",
            "the model's own part stays as it was in attention voxels, where it cannot grow",
        ),
        (Key("r_backbone", "null"), "pretrained", "alignment with null voxels stays as it was"),
        (
            Key("r_backbone", "brain_only"),
            "language_model",
            "alignment rises more by brains than by a text model, where voxels follow a meaning that no text carries",
        ),
        (
            Key("r_backbone_unseen_words", REGION),
            "permuted",
            "alignment on words that tuning never heard rises more than with permuted responses",
        ),
    ],
)
def test_each_planted_number_is_read_where_it_is(key: Key, between: str, text: str) -> None:
    evidence = replace(told(key, brain=[0.10, 0.11, 0.10], **{between: [0.1, 0.11, 0.101]}), simulated=True)
    found = finding(evidence, text)
    assert found.n == 3
    assert found.mean is not None
    assert found.mean.value == pytest.approx(-0.001 / 3)
    assert found.verdict == (SUPPORTED if found.claim.kind == "unchanged" else NOT_SUPPORTED)


def test_what_encoding_models_were_fitted_on_is_said() -> None:
    evidence = replace(told(brain=[0.4, 0.5], pretrained=[0.3, 0.3]), fitted_on_tuned=("Fitted on tuned stories.",))
    assert "- Fitted on tuned stories.\n" in claims_markdown(evidence, judge_claims(evidence))
