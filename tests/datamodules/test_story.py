"""The data module as Lightning, the probe and the command line use it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from brainlit.datamodules import ControlConfig, StoryDataModule, WindowBatch, WindowConfig
from brainlit.splits import LeakError, Span
from brainlit.store import StoreError, StoreSettingsError, UnknownNameError
from tests.toy import ToySource

BLOCKS = ControlConfig(block_trs=5)


def data_module(path: Path, **settings: Any) -> StoryDataModule:
    """A set-up data module on the shared toy store."""
    settings = {"window": WindowConfig(n_trs=8, context_s=4.0), "batch_size": 3, **settings}
    module = StoryDataModule(ToySource(), str(path), **settings)
    module.prepare_data()
    module.setup()
    return module


def epoch(module: StoryDataModule, number: int = 0) -> list[WindowBatch]:
    loader = module.train_dataloader()
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(loader)  # type: ignore[arg-type]


def places(batches: list[WindowBatch]) -> list[tuple[int, int]]:
    return [
        place for batch in batches for place in zip(batch["story"].tolist(), batch["first_tr"].tolist(), strict=True)
    ]


def test_setup_tells_what_heads_and_probes_need(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, subjects=["sub-B"])
    assert module.target_sizes == {"sub-B": 12}
    assert module.target_voxels["sub-B"].tolist() == list(range(12))
    assert (module.n_bins, module.context_trs, module.tr_s) == (10, 2, 2.0)
    assert module.story_names == [f"toy{k}" for k in range(6)]
    assert module.roles.stories("choose") == ("toy4",)


def test_loaders_give_the_rows_of_their_roles(toy_store_path: Path) -> None:
    module = data_module(toy_store_path)
    assert {story for story, _ in places(epoch(module))} == {0, 1}
    assert {story for story, _ in places(list(module.val_dataloader()))} == {4}  # type: ignore[arg-type]
    assert {story for story, _ in places(list(module.test_dataloader()))} == {5}  # type: ignore[arg-type]
    assert {story for story, _ in places(list(module.predict_dataloader()))} == {5}  # type: ignore[arg-type]


def test_batches_mix_stories(toy_store_path: Path) -> None:
    assert any(len(set(batch["story"].tolist())) > 1 for batch in epoch(data_module(toy_store_path)))


def test_same_seed_same_batches_and_other_seed_others(toy_store_path: Path) -> None:
    first, again, other = (data_module(toy_store_path, seed=seed) for seed in (0, 0, 1))
    assert places(epoch(first, 2)) == places(epoch(again, 2))
    assert places(epoch(first, 2)) != places(epoch(first, 3))
    assert places(epoch(first, 2)) != places(epoch(other, 2))
    for ours, theirs in zip(epoch(first, 2), epoch(again, 2), strict=True):
        assert torch.equal(ours["audio"], theirs["audio"])
        assert torch.equal(ours["targets"]["sub-A"], theirs["targets"]["sub-A"])


def test_workers_change_nothing(toy_store_path: Path) -> None:
    """The parent's files are open when the worker starts."""
    alone, helped = data_module(toy_store_path), data_module(toy_store_path, num_workers=1)
    next(helped.evaluation_batches(helped.roles.spans("tune")))
    ours, theirs = epoch(helped, 1), epoch(alone, 1)
    assert places(ours) == places(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a["audio"], b["audio"])
        assert torch.equal(a["targets"]["sub-B"], b["targets"]["sub-B"])


def test_the_data_travel_to_spawned_workers(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, regime="permuted", control=BLOCKS)
    dataset, steps = module.train_dataloader().dataset, list(module.train_dataloader().sampler)
    ours = dataset[steps[0]]
    copy = pickle.loads(pickle.dumps(dataset))
    theirs = copy[steps[0]]
    assert ours["text"] == theirs["text"]
    assert torch.equal(ours["audio"], theirs["audio"])
    assert torch.equal(ours["targets"]["sub-A"], theirs["targets"]["sub-A"])


@pytest.mark.parametrize("window", [None, WindowConfig(n_trs=1, context_s=8.0), WindowConfig(n_trs=64)])
def test_evaluation_gives_every_row_once_and_in_order(toy_store_path: Path, window: WindowConfig | None) -> None:
    module = data_module(toy_store_path)
    spans = [*module.roles.spans("fit"), Span("toy5", 5, 29)]
    rows, values = [], []
    for batch in module.evaluation_batches(spans, batch_size=2, window=window):
        for k, mask in enumerate(batch["row_mask"].numpy()):
            first = int(batch["first_tr"][k])
            rows += [(int(batch["story"][k]), first + row) for row in np.flatnonzero(mask)]
        values.append(batch["targets"]["sub-A"][batch["row_mask"]])
    assert rows == [(2, k) for k in range(40)] + [(3, k) for k in range(40)] + [(5, k) for k in range(5, 29)]
    expected = [module.store.responses("sub-A", span.story, span.start_tr, span.stop_tr) for span in spans]
    np.testing.assert_array_equal(torch.cat(values).numpy(), np.concatenate([e for e in expected if e is not None]))


def test_the_permuted_regime_changes_tuning_targets_only(toy_store_path: Path) -> None:
    brain, permuted = data_module(toy_store_path), data_module(toy_store_path, regime="permuted", control=BLOCKS)
    assert permuted.target_sizes == brain.target_sizes
    for ours, theirs in zip(epoch(brain), epoch(permuted), strict=True):
        assert torch.equal(ours["audio"], theirs["audio"])
        assert torch.equal(ours["target_mask"]["sub-B"], theirs["target_mask"]["sub-B"])
        changed = (ours["targets"]["sub-A"] != theirs["targets"]["sub-A"]).any(dim=2)
        assert torch.equal(changed, ours["target_mask"]["sub-A"]), "every row that counts, and no other"
    for ours, theirs in zip(brain.val_dataloader(), permuted.val_dataloader(), strict=True):
        assert torch.equal(ours["targets"]["sub-A"], theirs["targets"]["sub-A"])  # type: ignore[call-overload]
    spans = brain.roles.spans("tune")
    for ours, theirs in zip(brain.evaluation_batches(spans), permuted.evaluation_batches(spans), strict=True):
        assert torch.equal(ours["targets"]["sub-A"], theirs["targets"]["sub-A"])


def test_roles_may_be_spans_and_are_guarded(toy_store_path: Path) -> None:
    roles = {"tune": ["toy0[0:15]"], "fit": ["toy2"], "score": ["toy0[25:40]"]}
    module = data_module(toy_store_path, roles=roles)
    assert module.roles.purge_trs == 6  # two TRs of context and four of delay
    assert {story for story, _ in places(epoch(module))} == {0}
    assert max(first for _, first in places(epoch(module))) <= 15 - 8
    assert module.val_dataloader() == []
    with pytest.raises(LeakError, match="10 TRs apart"):
        data_module(toy_store_path, roles=roles, purge_trs=11)
    with pytest.raises(LeakError, match="share 40 TRs"):
        data_module(toy_store_path, roles={"tune": ["toy0"], "score": ["toy0"]})
    allowed = data_module(toy_store_path, roles={"tune": ["toy0"], "score": ["toy0"]}, allow=["tune and score"])
    assert allowed.roles.allow == ("tune and score",)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"subjects": ["sub_A"]}, UnknownNameError, "Did you mean 'sub-A'"),
        ({"subjects": []}, ValueError, "at least one"),
        ({"subjects": ["sub-A", "sub-A"]}, ValueError, "each subject once"),
        ({"roles": {"tune": ["toyO"]}}, ValueError, "unknown story 'toyO'"),
        ({"roles": {"tune": ["toy1"]}}, ValueError, r"'sub-B' heard none of the stories to tune on \(toy1\)"),
        ({"regime": "brian"}, ValueError, "regime is 'brian'. Did you mean 'brain'"),
        ({"subject_steps": "sequentially"}, ValueError, "Did you mean 'sequential'"),
        ({"tune_fraction": 0.0}, ValueError, "tune_fraction is 0.0"),
        ({"held_out_subjects": ["sub-C"]}, UnknownNameError, "sub-C"),
        ({"held_out_subjects": ["sub-A"], "subjects": ["sub-A"]}, ValueError, "sub-A cannot be tuned on and held out"),
        ({"held_out_subjects": ["sub-A", "sub-A"]}, ValueError, "name each subject once"),
        ({"held_out_subjects": ["sub-A", "sub-B"]}, ValueError, "at least one"),
        ({"regime": "permuted", "control": ControlConfig("shift")}, ValueError, "cannot be shifted by at least 30"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        (
            {"min_ceiling": 0.4, "roles": {"tune": ["toy0"], "choose": ["toy2"]}},
            ValueError,
            "a noise ceiling needs repeats",
        ),
        ({"regime": "permuted", "control": ControlConfig(block_trs=60)}, ValueError, "permuted in blocks of 60"),
    ],
)
def test_wrong_settings_are_refused(
    toy_store_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        data_module(toy_store_path, **settings)


def test_held_out_subjects_are_probed_and_not_tuned_on(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, held_out_subjects=["sub-B"])
    assert (module.subjects, module.probed_subjects) == (["sub-A"], ["sub-A", "sub-B"])
    assert set(module.target_sizes) == {"sub-A"}
    assert data_module(toy_store_path).probed_subjects == ["sub-A", "sub-B"]


def test_sequential_steps_are_counted_and_never_empty(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, subject_steps="sequential")
    loader = module.train_dataloader()
    batches = epoch(module)
    assert len(batches) == len(loader) == 6  # 6 windows that both heard and 6 that one heard, 3 at a time
    for batch in batches:
        tuned = [name for name, mask in batch["target_mask"].items() if mask.any()]
        assert len(tuned) == 1
        assert torch.equal(batch["target_mask"][tuned[0]], batch["row_mask"])
        assert all(not batch["targets"][name].any() for name in batch["targets"] if name != tuned[0])


def test_fractions_are_exact_and_nested(toy_store_path: Path) -> None:
    stories = [f"toy{k}" for k in range(4)]
    rows: set[tuple[str, int]] = set()
    for fraction in (0.1, 0.25, 0.3, 0.61, 1.0):
        module = data_module(toy_store_path, roles={"tune": stories}, tune_fraction=fraction, subjects=["sub-A"])
        spans = module.roles.spans("tune")
        now = {(span.story, row) for span in spans for row in range(span.start_tr, span.stop_tr)}
        assert len(now) == module.describe()["rows"]["tune"] == round(fraction * 160)
        assert rows < now
        rows = now
    drawn = set()
    for seed in range(8):
        roles = {"tune": stories}
        module = data_module(toy_store_path, roles=roles, tune_fraction=0.25, seed=seed, subjects=["sub-A"])
        drawn.add(module.roles.stories("tune"))
    assert len(drawn) > 1


def test_a_fraction_that_a_subject_did_not_hear_is_refused(toy_store_path: Path) -> None:
    seeds = [seed for seed in range(8) if _first_story(toy_store_path, seed) == "toy1"]
    with pytest.raises(ValueError, match=r"'sub-B' heard none of the stories to tune on \(toy1\)"):
        data_module(toy_store_path, tune_fraction=0.5, seed=seeds[0])


def _first_story(path: Path, seed: int) -> str:
    return data_module(path, tune_fraction=0.5, seed=seed, subjects=["sub-A"]).roles.stories("tune")[0]


def test_ceilings_of_the_targets(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, min_ceiling=0.3)
    for subject, ceilings in module.target_ceilings.items():
        assert ceilings.shape == (module.target_sizes[subject],)
        assert (ceilings > 0.3).all()
    bare = data_module(toy_store_path, roles={"tune": ["toy0"], "choose": ["toy2"]})
    with pytest.raises(ValueError, match="loss without ceilings"):
        _ = bare.target_ceilings


@pytest.mark.parametrize("regime", ["stimulus", "pretrained"])
def test_regimes_without_targets_of_their_own_see_the_responses(toy_store_path: Path, regime: str) -> None:
    brain, other = data_module(toy_store_path), data_module(toy_store_path, regime=regime)
    assert other.target_sizes == brain.target_sizes
    for ours, theirs in zip(epoch(brain), epoch(other), strict=True):
        assert torch.equal(ours["targets"]["sub-A"], theirs["targets"]["sub-A"])
    assert other.describe()["targets"] == {}


def test_min_ceiling_chooses_voxels(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, min_ceiling=0.3)
    for subject, columns in module.target_voxels.items():
        assert 0 < len(columns) == module.target_sizes[subject] < 12
        assert columns.max() < 8  # the others are noise
    batch = next(module.evaluation_batches([Span("toy5", 0, 8)]))
    responses = module.store.responses("sub-A", "toy5", 0, 8, module.target_voxels["sub-A"])
    np.testing.assert_array_equal(batch["targets"]["sub-A"][0].numpy(), responses)


def test_another_store_is_refused_before_anything_is_read(toy_store_path: Path) -> None:
    with pytest.raises(StoreSettingsError, match="seed=0, but seed=8"):
        StoryDataModule(ToySource(seed=8), str(toy_store_path)).prepare_data()


def test_use_before_setup_says_so(tmp_path: Path) -> None:
    module = StoryDataModule(ToySource(), str(tmp_path / "none"))
    with pytest.raises(RuntimeError, match=r"call prepare_data\(\) and setup\(\) first"):
        module.train_dataloader()
    with pytest.raises(StoreError, match="no finished store"):
        module.setup()


def test_without_tuning_spans_scoring_still_works(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, roles={"fit": ["toy2"], "score": ["toy5"]})
    assert len(list(module.test_dataloader())) == 2
    assert module.describe()["n_train_windows"] == 0
    with pytest.raises(ValueError, match="no spans to tune on"):
        module.train_dataloader()


def test_description_is_plain_and_right(toy_store_path: Path) -> None:
    module = data_module(toy_store_path, subjects=["sub-A"])
    description = module.describe()
    assert json.loads(json.dumps(description)) == description
    assert description["n_train_windows"] == 12
    assert description["n_train_rows"] == 80
    assert description["hours"]["tune"] == pytest.approx(160 / 3600, abs=1e-4)
    assert description["n_targets"] == {"sub-A": 12}
    assert description["n_masked_voxels"] == {"sub-A": 0}


def test_the_command_line_can_set_everything(toy_store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(allow_abbrev=False)
    parser.add_class_arguments(StoryDataModule, "data")
    arguments = [
        "--data.source=tests.toy.ToySource",
        "--data.source.n_trs=40",
        f"--data.store_dir={toy_store_path}",
        "--data.window.n_trs=1",
        "--data.window.context_s=6",
        '--data.roles={"tune": ["toy0"], "score": ["toy5"]}',
        "--data.min_ceiling=null",
        "--data.regime=permuted",
        "--data.control.kind=shift",
        "--data.control.min_shift_trs=9",
        "--data.representation.dimension=12",
        "--data.language_model.weights=gpt2-medium",
        "--data.language_model.layers=[6,-1]",
        "--data.speech_model.family=whisper",
        "--data.speech_model.weights=medium",
        "--data.speech_model.layers=all",
    ]
    module = parser.instantiate(parser.parse_args(arguments)).data
    module.prepare_data()
    module.setup()
    assert module.window == WindowConfig(n_trs=1, context_s=6.0)
    assert len(module.train_dataloader()) == 40 / 8
    control = {"kind": "shift", "block_trs": 10, "min_shift_trs": 9, "draw": 1}
    assert module.describe()["targets"]["control"] == control
    shown = " ".join(parser.format_help().split())
    assert "Seconds of sound before the first of them" in shown
    assert "Decides windows and order of every epoch" in shown
    with pytest.raises(SystemExit):
        parser.parse_args([*arguments, "--data.window.n_rows=3"])
    assert "n_rows" in capsys.readouterr().err
