"""What is read from runs is what was planted in them, paired within a seed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainlit.comparison.effects import AUDITORY, REGION, WORDS, Evidence, Key, share_data
from brainlit.comparison.evidence import WORD_BOOTSTRAP, late_minus_early, read_evidence
from brainlit.comparison.runs import read_finished
from brainlit.downstream.evaluate import compare
from brainlit.downstream.preference import preference_change
from brainlit.downstream.result import load_result, model_folder, task_path
from brainlit.downstream.words import find_words
from brainlit.encoding.statistics import Score
from tests.comparison.planted_runs import CONTROLS, SEEDS, planted_answers, planted_run, planted_words

ALIGNMENT = Key("r_backbone", REGION)


def runs_of(reproduction: list[Path], *ends: str) -> list[Path]:
    return [run for run in reproduction if run.name.removeprefix("wav2vec-") in ends]


def test_all_seeds_and_regimes_are_there(evidence: Evidence) -> None:
    assert [seed.seed for seed in evidence.seeds] == list(SEEDS)
    assert evidence.models == ["wav2vec (tiny)"]
    assert evidence.regimes == ["pretrained", "brain", "permuted", "stimulus", "language_model"]
    assert [len(evidence.seeds[0].states[regime]) for regime in evidence.regimes] == [1, 1, 2, 1, 1]
    assert (evidence.region, evidence.missing, len(evidence.runs)) == ("semantic", (), 18)


def test_numbers_of_the_probe_are_those_that_were_planted(evidence: Evidence) -> None:
    seed = evidence.seeds[1]  # 12: nothing is peculiar to it
    gain = seed.difference("brain", "pretrained", ALIGNMENT)
    assert gain is not None
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.152, 0.152, 0.152), abs=1e-6)
    beyond = seed.difference("brain", "permuted", ALIGNMENT)
    assert beyond is not None
    draws = seed.differences("brain", "permuted", ALIGNMENT)
    assert [one.value for one in draws] == pytest.approx([0.16, 0.158], abs=1e-6)
    auditory = seed.difference("brain", "pretrained", Key("r_backbone", AUDITORY))
    assert auditory is not None
    assert auditory.value == pytest.approx(0.076)
    share = seed.difference("brain", "pretrained", Key("low_level_share", REGION))
    assert share is not None
    assert share.value == pytest.approx(-0.3)
    slope = seed.difference("brain", "pretrained", Key("late_minus_early", REGION))
    assert slope is not None
    assert slope.value == pytest.approx(0.152 * 0.9)
    assert seed.layers("r_backbone", REGION) == [1, 2, 3, 4]


def test_a_difference_of_scores_is_that_of_the_pair(evidence: Evidence, reproduction: list[Path]) -> None:
    one, other = (
        load_result(task_path(model_folder(path, model), "demo/word_category"))
        for (path,), model in (
            (runs_of(reproduction, "pretrained-13"), "untuned"),
            (runs_of(reproduction, "brain-13"), "tuned"),
        )
    )
    for part in ("test", "test_unseen_words"):
        expected = compare(one, other, part).difference
        found = evidence.seeds[2].difference("brain", "pretrained", Key("demo/word_category", part))
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_controls_and_warnings_of_tasks_are_kept(evidence: Evidence) -> None:
    assert evidence.controls["demo/phones", "test"] == CONTROLS
    assert evidence.controls["demo/phones", "test_unseen_words"] == {}
    assert "demo/phones: test: words by themselves reach this score." in evidence.notes


def test_changes_of_preference_are_paired_over_words(evidence: Evidence, reproduction: list[Path]) -> None:
    (before,), (after,) = (runs_of(reproduction, f"{regime}-11") for regime in ("pretrained", "brain"))
    words = find_words(model_folder(before, "untuned")), find_words(model_folder(after, "tuned"))
    assert words[0] is not None
    assert words[1] is not None
    last = preference_change(words[0].layers, words[1].layers, words[0].token_pairs(), bootstrap=WORD_BOOTSTRAP)[-1]
    for what in ("difference", "ratio"):
        found = evidence.seeds[0].difference("brain", "pretrained", Key(what, WORDS))
        expected = getattr(last, what)
        assert found is not None
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    values = [evidence.seeds[0].value(regime, Key("difference", WORDS)) for regime in ("brain", "pretrained")]
    assert values[0].value - values[1].value == pytest.approx(last.difference.value)  # type: ignore[union-attr]


def test_layers_drift_from_the_start_and_categories_come_apart(evidence: Evidence) -> None:
    seed = evidence.seeds[0]
    likeness = {r: seed.value(r, Key("cka", WORDS, 1)) for r in ("pretrained", "brain")}
    assert likeness["pretrained"].value == pytest.approx(1.0, abs=1e-6)  # type: ignore[union-attr]
    assert likeness["brain"].value < 0.8  # type: ignore[union-attr]
    apart = seed.difference("brain", "pretrained", Key("separation", WORDS))
    assert apart is not None
    assert apart.value > 0.5
    words = evidence.maps["wav2vec (tiny)"]
    assert len(words.words) == 32
    assert words.separation[1].accuracy > words.separation[0].accuracy


def test_the_gain_of_late_layers_is_over_the_first_third() -> None:
    curve = {layer: Score(float(layer**2)) for layer in range(13)}
    found = late_minus_early(curve)
    assert found is not None
    assert found.value == 144 - np.mean([1, 4, 9, 16])
    assert late_minus_early({0: Score(0.1), 1: Score(0.2)}) is None


def test_what_is_missing_is_absent_and_named(reproduction: list[Path]) -> None:
    found = read_evidence(read_finished(runs_of(reproduction, "brain-11", "permuted-11", "brain-12")))
    one, two = found.seeds
    assert one.difference("brain", "pretrained", ALIGNMENT) is not None, "the run's own first probe"
    assert one.difference("brain", "pretrained", Key("demo/phones", "test")) is None
    assert one.difference("brain", "permuted", Key("demo/phones", "test")) is not None
    assert two.difference("brain", "permuted", ALIGNMENT) is None
    assert "wav2vec (tiny), permuted: no run of seed 12" in found.missing
    assert "wav2vec (tiny), stimulus: no run of any seed" in found.missing
    assert "wav2vec (tiny), pretrained: no downstream tasks of any seed" in found.missing
    assert "wav2vec (tiny), pretrained: no words of any seed" in found.missing
    assert not [text for text in found.missing if text.startswith("wav2vec (tiny), brain")]


def test_a_permutation_without_tasks_is_named(tmp_path: Path) -> None:
    runs = [planted_run(tmp_path, 11, "permuted", draw=draw).path for draw in (1, 2)]
    shutil.rmtree(model_folder(runs[1], "tuned"))
    found = read_evidence(read_finished(runs))
    assert "wav2vec (tiny), permuted: no downstream tasks of any seed" in found.missing
    assert len(found.seeds[0].states["permuted"]) == 2
    assert len(found.seeds[0].values("permuted", Key("demo/phones", "test"))) == 1


def test_a_single_run_may_have_both_of_its_models(tmp_path: Path, reproduction: list[Path]) -> None:
    (brain,), (pretrained,) = (runs_of(reproduction, f"{regime}-11") for regime in ("brain", "pretrained"))
    copy = tmp_path / "runs" / "reproduce" / brain.name
    shutil.copytree(brain, copy)
    shutil.copytree(model_folder(pretrained, "untuned"), model_folder(copy, "untuned"))
    (seed,) = read_evidence(read_finished([copy])).seeds
    change = seed.difference("brain", "pretrained", Key("demo/word_category", "test"))
    assert change is not None
    assert change.value == pytest.approx(0.3)
    assert seed.difference("brain", "pretrained", Key("difference", WORDS)) is not None


def test_words_without_enough_pairs_leave_only_the_preference_out(tmp_path: Path) -> None:
    run = planted_run(tmp_path, 11, "brain")
    folder = model_folder(run.path, "tuned")
    words = planted_words(1.0, 11)
    replace(words, phones={word: (word,) for word in words.words}).save(folder / "words.npz")
    found = read_evidence(read_finished([run.path]))
    assert found.seeds[0].value("brain", Key("difference", WORDS)) is None
    assert found.seeds[0].value("brain", Key("separation", WORDS)) is not None
    assert any("seed 11: no semantic-phonetic preference: pairs that can be compared" in text for text in found.missing)


def test_probes_of_other_settings_give_no_interval(reproduction: list[Path]) -> None:
    runs = read_finished(runs_of(reproduction, "brain-11", "stimulus-11"))
    other = {name: replace(record, fingerprint="other") for name, record in runs[1].after.items()}
    (seed,) = read_evidence([runs[0], replace(runs[1], after=other)]).seeds
    change = seed.difference("brain", "stimulus", ALIGNMENT)
    assert change is not None
    assert change.value == pytest.approx(0.12)
    assert change.interval is None


def test_another_region_can_be_compared(reproduction: list[Path]) -> None:
    runs = runs_of(reproduction, "brain-12")
    found = read_evidence(read_finished(runs, "all voxels"), "all voxels")
    gain = found.seeds[0].difference("brain", "pretrained", ALIGNMENT)
    assert gain is not None
    assert gain.value == pytest.approx(0.076)
    with pytest.raises(ValueError, match=r"no run has a region 'semntic'. Did you mean 'semantic'\?"):
        read_evidence(read_finished(runs, "semntic"), "semntic")


def test_runs_that_are_no_pair_are_refused(tmp_path: Path) -> None:
    runs = [planted_run(tmp_path, 11, regime).path for regime in ("brain", "permuted", "pretrained")]
    finished = read_finished(runs)
    with pytest.raises(ValueError, match="no run is given"):
        read_evidence([])
    for twice in (0, 1):
        with pytest.raises(ValueError, match=r"two runs of wav2vec \(tiny\), seed 11 have the regime"):
            read_evidence([*finished, finished[twice]])
    unknown = replace(finished[0], summary={**finished[0].summary, "run": {**finished[0].summary["run"], "seed": None}})
    with pytest.raises(ValueError, match="wav2vec-brain-11 does not say its seed"):
        read_evidence([unknown])
    record = next(iter(finished[1].before.values()))
    moved = [replace(row, score=Score(row.score.value + 0.01)) for row in record.table.rows]
    other = replace(finished[1], before={"sub-1": replace(record, table=type(record.table)(moved))})
    with pytest.raises(ValueError, match=r"before tuning r is 0\.33.. and 0\.32.. for sub-1 in semantic"):
        read_evidence([finished[0], other])


def test_other_clips_and_other_words_are_refused(tmp_path: Path) -> None:
    runs = [planted_run(tmp_path, 11, regime).path for regime in ("brain", "permuted")]
    folder = model_folder(runs[1], "tuned")
    answers = planted_answers("demo/phones", 0.6, 11)
    renamed = {part: tuple(f"x{name}" for name in names) for part, names in answers.clips.items()}
    replace(answers, clips=renamed).save(task_path(folder, "demo/phones"))
    with pytest.raises(ValueError, match=r"permuted-11 \(tuned\) was not asked about the same clips of 'demo/phones'"):
        read_evidence(read_finished(runs))
    answers.save(task_path(folder, "demo/phones"))
    words = planted_words(1.0, 11)
    replace(words, speakers=words.speakers[::-1]).save(folder / "words.npz")
    with pytest.raises(ValueError, match=r"the runs of wav2vec \(tiny\), seed 11 heard other words"):
        read_evidence(read_finished(runs))


# --- What seeds share, and what is simulated ---


def test_each_simulated_seed_has_listeners_of_its_own(evidence: Evidence) -> None:
    assert evidence.simulated
    assert evidence.listeners.startswith("The listeners are simulated: ")
    assert [seed.data["probe"] for seed in evidence.seeds] == ["store-11", "store-12", "store-13"]
    assert not share_data(evidence.seeds, ALIGNMENT)
    assert share_data(evidence.seeds, Key("demo/word_category", "test")), "the clips are the same ones"
    assert not share_data(evidence.seeds, Key("difference", WORDS))


def test_real_people_are_shared_whatever_a_store_takes_of_them(tmp_path: Path) -> None:
    runs = read_finished([planted_run(tmp_path, seed, "brain").path for seed in (11, 12)])
    real = [replace(run, summary={**run.summary, "run": {**run.summary["run"], "simulated": False}}) for run in runs]
    found = read_evidence(real)
    assert not found.simulated
    assert found.listeners == ""
    mixed = read_evidence([runs[0], *real[1:]])
    assert not mixed.simulated
    assert mixed.listeners.startswith(f"The listeners of 1 of {len(runs)} runs are simulated: ")
    assert share_data(found.seeds, ALIGNMENT)
    assert share_data(found.seeds, Key("difference", WORDS))


def test_clips_of_a_published_corpus_are_shared_whichever_were_drawn(tmp_path: Path) -> None:
    runs = [planted_run(tmp_path, seed, "brain").path for seed in (11, 12)]
    for seed, run in zip((11, 12), runs, strict=True):
        planted_answers("timit/phones", 0.5, seed).save(task_path(model_folder(run, "tuned"), "timit/phones"))
    assert share_data(read_evidence(read_finished(runs)).seeds, Key("timit/phones", "test"))


def test_a_key_names_any_region(evidence: Evidence) -> None:
    seed = evidence.seeds[1]
    assert seed.value("brain", Key("partition_backbone", "auditory")) is not None
    assert seed.value("brain", Key("r_backbone", "semantic")).value == seed.value("brain", ALIGNMENT).value  # type: ignore[union-attr]
    assert seed.value("brain", Key("r_backbone", "modulation")) is None


def test_what_encoding_models_were_fitted_on_is_read_from_the_records(tmp_path: Path) -> None:
    runs = read_finished([planted_run(tmp_path, 11, "brain").path])
    after = {
        name: replace(record, facts={**record.facts, "fitted_on_tuned": ["a", "b"], "n_fit_stories": 3})
        for name, record in runs[0].after.items()
    }
    (said,) = read_evidence([replace(runs[0], after=after)]).fitted_on_tuned
    assert "fitted on stories that the model was tuned on (2 of 3)" in said
