"""The probe over folds, from the data module to the record, and against plain numpy on real listeners."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainlit.callbacks.choose import check_choosing
from brainlit.datamodules import StoryDataModule, WindowConfig
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.folds import run_folds
from brainlit.encoding.result import ProbeResult
from brainlit.encoding.temporal import Temporal
from brainlit.features import FeatureConfig
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.folds import FoldPlan, purge_trs
from brainlit.probing.layer_scores import score_layers
from brainlit.results.record import find_records, folds_said, load_record, record_path
from brainlit.results.scores import FOLD_MEAN
from brainlit.splits import LeakError, Span
from brainlit.stories import ManifestSource
from brainlit.stories.response_filter import ResponseFilter
from tests.callbacks.toy_module import TOY_PROBE, ToyModule, toy_data, toy_probe, toy_trainer
from tests.encoding import fold_reference as reference

MANIFEST = Path(__file__).parents[2] / "data" / "alice" / "manifest.yaml"


def ready(path: Path, roles: dict[str, Any], **settings: Any) -> StoryDataModule:
    data = toy_data(path, roles=roles, **settings)
    data.only_probe()
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="module")
def stories(toy_store_path: Path) -> StoryDataModule:
    return ready(toy_store_path, {"folds": 3})


@pytest.fixture(scope="module")
def measured(stories: StoryDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of both subjects over three folds of the six toy stories."""
    folder = tmp_path_factory.mktemp("folds")
    toy_probe(layers=[1]).engine.measure(ToyModule(), stories, ["sub-A", "sub-B"], folder)
    return folder


def test_every_row_of_every_story_is_scored_once(measured: Path) -> None:
    records = {record.subject: record for record in find_records(measured)}
    assert {name: record.facts["n_score_trs"] for name, record in records.items()} == {"sub-A": 210, "sub-B": 175}
    facts = records["sub-A"].facts
    assert facts["folds"]["n"] == 3
    assert facts["folds"]["score"][0] == ["toy0[5:40]", "toy3[5:40]"]
    assert facts["n_fit_trs_by_fold"] == [140, 140, 140]
    assert folds_said(facts).startswith("3 folds, every row scored once, 210 TRs; each fitted on the others (140 TRs)")
    result = ProbeResult.load(record_path(measured, "sub-A", 0))
    assert np.bincount(result.score_groups).tolist() == [35] * 6
    assert result.meta["fold_of_group"] == [0, 0, 1, 1, 2, 2]


def test_planted_voxels_are_found_and_the_mean_of_folds_stands_beside(measured: Path) -> None:
    record = load_record(record_path(measured, "sub-A", 0))
    planted, null = (record.table.get(name, record.layer, "r_backbone") for name in ("low_level", "semantic"))
    assert planted is not None
    assert null is not None
    assert planted.score.value > 0.5
    assert abs(null.score.value) < 0.2
    assert planted.score.interval is not None
    result = ProbeResult.load(record_path(measured, "sub-A", 0))
    by_fold = []
    for rows in (slice(0, 70), slice(70, 140), slice(140, 210)):
        o, p = (
            np.concatenate([part - part.mean(axis=0) for part in np.split(values[rows, :4].astype(float), 2)])
            for values in (result.observed, result.predictions["backbone"])
        )
        by_fold.append(((o * p).sum(axis=0) / np.sqrt((o**2).sum(axis=0) * (p**2).sum(axis=0))).mean())
    mean = record.table.get("low_level", record.layer, FOLD_MEAN)
    assert mean is not None
    assert mean.score.value == pytest.approx(np.mean(by_fold), abs=1e-5)
    assert mean.score.interval is not None


def test_ceilings_are_those_of_the_stories_that_were_heard_repeatedly(measured: Path) -> None:
    record = load_record(record_path(measured, "sub-A", 0))
    assert record.facts["ceiling_stories"] == ["toy4", "toy5"]
    row = record.table.get("low_level", record.layer, "r_over_ceiling")
    assert row is not None
    assert 0.4 < row.score.value < 1.2


def test_a_story_in_stretches_feeds_delays_from_before_each_stretch(toy_store_path: Path) -> None:
    data = ready(toy_store_path, {"folds": 2, "over": ["toy5[0:38]"], "purge": 0})
    plan = FoldPlan.of(ready(toy_store_path, {"folds": 2}), TOY_PROBE)
    with pytest.raises(ValueError, match=r"fold 1 of 2 scores toy5\[0:19\], and purging 0 TRs on both sides leaves 19"):
        ProbeEngine(TOY_PROBE).spans(data)
    plan = replace(
        plan,
        fit=((Span("toy5", 19, 38),), (Span("toy5", 0, 19),)),
        score=((Span("toy5", 0, 19),), (Span("toy5", 19, 38),)),
    )
    assert plan.spans == [Span("toy5", 0, 40)]  # two more rows, which lags of the impact look ahead to
    first, second = plan.rows(plan.spans)
    assert first.rows[first.score].tolist() == list(range(19))
    assert first.rows[first.fit].tolist() == list(range(19, 38))
    assert second.rows[second.score].tolist() == list(range(19, 38))
    assert plan.facts()["folds"]["within_stories"]
    lead = second.rows[(second.groups == 1) & ~second.score]
    assert lead.tolist() == [14, 15, 16, 17, 18, 38, 39]


@pytest.mark.parametrize(
    ("config", "passed", "expected"),
    [
        (TOY_PROBE, None, 2 + 6),  # 4 s of context and twice the longest delay
        (replace(TOY_PROBE, delays_trs=(1, 2)), None, 2 + 4),
        (ProbeConfig(), None, 2 + 10),  # 20 s of response
        (replace(TOY_PROBE, temporal={"low_level": "hrf", "backbone": "fir", "semantic": "fir"}), None, 2 + 10),
        (TOY_PROBE, ResponseFilter(savgol=(60.0, 2)), 2 + 15),
        (TOY_PROBE, ResponseFilter(high_pass_s=128.0), 2 + 6),  # reaches over the whole story: nothing could be purged
    ],
)
def test_the_purge_is_as_long_as_the_settings_reach(
    config: ProbeConfig, passed: ResponseFilter | None, expected: int, stories: StoryDataModule
) -> None:
    windows = stories.window.purge_trs
    assert purge_trs(stories.roles, config, 2.0, passed, windows) == expected
    assert stories.roles.folds is not None
    seconds = replace(stories.roles, folds=replace(stories.roles.folds, purge_s=7.0))
    assert purge_trs(seconds, config, 2.0, passed, windows) == 4


def test_the_curve_over_layers_and_other_settings_go_through_the_same_folds(
    stories: StoryDataModule, measured: Path, tmp_path: Path
) -> None:
    engine = toy_probe(layers=[1]).engine
    features, _ = engine.features(ToyModule(), stories)  # type: ignore[arg-type]
    by_region = {row.region: row.score.value for row in score_layers(engine, features, stories, ["sub-A"])}
    row = load_record(record_path(measured, "sub-A", 0)).table.get("low_level", 1, "r_backbone")
    assert row is not None
    assert by_region["low_level"] == pytest.approx(row.score.value, abs=1e-4)
    auto = toy_probe(layers=[1], probe=replace(TOY_PROBE, temporal="auto")).engine
    (record,) = auto.measure(ToyModule(), stories, ["sub-A"], tmp_path)
    assert all(sum(parts.values()) == pytest.approx(1.0) for parts in record.facts["temporal"].values())
    prints = {one.fingerprint(stories, "sub-A") for one in (engine, auto)}
    other = ready(Path(stories.store_dir), {"folds": 2})
    assert len(prints | {engine.fingerprint(other, "sub-A")}) == 3


def test_a_run_is_probed_over_folds_before_and_after(toy_store_path: Path, tmp_path: Path) -> None:
    roles = {"folds": 2, "tune": ["toy0", "toy1"], "choose": ["toy4"]}
    trainer = toy_trainer(tmp_path, toy_probe(layers=[1]), epochs=1)
    trainer.fit(ToyModule(), toy_data(toy_store_path, roles=roles))
    records = find_records(tmp_path / "probes")
    assert [(record.stage, record.subject) for record in records] == [
        (stage, name) for stage in ("before", "after") for name in ("sub-A", "sub-B")
    ]
    assert all(record.facts["folds"]["n"] == 2 for record in records)
    assert {record.facts["n_score_trs"] for record in records} == {105}
    assert len({record.fingerprint for record in records if record.subject == "sub-A"}) == 1


def test_what_would_look_at_scored_rows_is_refused(toy_store_path: Path) -> None:
    data = ready(toy_store_path, {"folds": 2, "choose": ["toy4"]})
    with pytest.raises(LeakError, match=r"fitted on rows that the folds score\. Leave ChooseCheckpoint out"):
        check_choosing(data.roles)
    with pytest.raises(ValueError, match=r"probe\.tuned_sound is not there for roles with folds\. Set it to false"):
        ProbeEngine(replace(TOY_PROBE, tuned_sound=True)).spans(data)


def test_a_subject_who_heard_one_fold_only_is_refused(toy_store_path: Path) -> None:
    data = ready(toy_store_path, {"folds": 2, "over": ["toy1", "toy2"]})
    with pytest.raises(ValueError, match=r"subject sub-B heard toy2, which lie in 1 of 2 folds.*data.subjects"):
        toy_probe().engine.subject_data(data, "sub-B")


# --- Ten real listeners, five purged folds ---


def words_per_tr(middles_s: np.ndarray) -> np.ndarray:
    starts_s = 20.0 + 2.0 * np.arange(362)[:, None]
    return ((middles_s >= starts_s) & (middles_s < starts_s + 2.0)).sum(axis=1).astype(float)[:, None]


def word_middles_s(folder: Path) -> np.ndarray:
    text = (folder / "alice.TextGrid").read_text()
    found = re.findall(r'xmin = ([\d.]+)\s+xmax = ([\d.]+)\s+text = "([^"]*)"', text)
    return np.array([(float(a) + float(b)) / 2 for a, b, label in found if label.strip() and label.strip() != "sp"])


def listeners(folder: Path) -> list[np.ndarray]:
    """Responses of the ten intact listeners without drift, in units of their sd."""
    raw = [np.loadtxt(file) for file in sorted(folder.glob("responses/*.txt")) if file.stem != "s33"]
    clean = [reference.without_drift(rows, 2.0, 128.0) for rows in raw]
    return [rows / rows.std(axis=0) for rows in clean]


@pytest.fixture(scope="module")
def alice_data(tmp_path_factory: pytest.TempPathFactory) -> Sequence[StoryDataModule]:
    """Made when it is first asked for, once the environment says where the recordings are."""
    return []


@pytest.mark.parametrize("temporal", ["fir", "hrf", "hrf_derivatives"])
def test_word_rate_on_real_listeners_agrees_with_plain_numpy(
    temporal: Temporal, alice: Path, alice_data: list[StoryDataModule], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not alice_data:
        data = StoryDataModule(
            ManifestSource(str(MANIFEST)),
            store_dir=str(tmp_path_factory.mktemp("alice") / "store"),
            features=FeatureConfig(low_level=["word_rate"]),
            window=WindowConfig(n_trs=10),
            roles={"folds": 5, "purge": "auto"},
        )
        data.only_probe()
        data.prepare_data()
        data.setup()
        alice_data.append(data)
    engine = ProbeEngine(ProbeConfig(temporal=temporal))
    own = [engine.subject_data(alice_data[0], name) for name in alice_data[0].probed_subjects]
    Ys = {"mean": np.mean([data.responses for data in own], axis=0), "s18": own[0].responses}
    found = run_folds({"low_level": own[0].stimulus["low_level"]}, Ys, own[0].folds, engine.config)
    middles_s, plan = word_middles_s(alice), engine.folds(alice_data[0])
    rate = words_per_tr(middles_s)
    X = {
        "fir": reference.fir(rate - rate.mean()),
        "hrf": reference.convolved(middles_s, 21.0 + 2.0 * np.arange(362))[:, :1],
        "hrf_derivatives": reference.convolved(middles_s, 21.0 + 2.0 * np.arange(362)),
    }[temporal]
    shares = [0.75, 0.125, 0.125] if temporal == "hrf_derivatives" else None
    responses = listeners(alice)
    for name, Y in (("mean", np.mean(responses, axis=0)), ("s18", responses[0])):
        filtered = reference.without_drift(X, 2.0, 128.0)
        expected = reference.fold_r(filtered, Y, 5, plan.purge_trs, skip_trs=5, shares=shares)
        assert abs(found[name].r.mean() - expected.mean()) < 0.02, name
    assert found["mean"].r.mean() > 0.28
    assert found["mean"].meta["n_score_trs"] == 357
