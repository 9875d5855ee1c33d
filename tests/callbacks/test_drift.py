from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from brainlit.callbacks.drift import COLUMNS, FeatureDrift, first_windows, read_rows
from brainlit.datamodules.windows import evaluation_windows
from brainlit.encoding.similarity import linear_cka
from brainlit.files import write_csv
from brainlit.probing.hidden_states import layer_features
from brainlit.splits import Span
from tests.callbacks.toy_module import ToyModule, toy_data, toy_trainer


class Fading(ToyModule):
    """Layers above the first forget one of three features; quiet rows count as rows without sound. No chance in it."""

    def pooled_states(self, batch: dict[str, Any], layers: Any) -> Tensor:
        self.modes_seen.append(self.head.training)
        torch.rand(3)
        loudness = self._loudness(batch).log1p()
        states = torch.stack([loudness, (50 * loudness).sin(), torch.ones_like(loudness)], dim=-1)
        states = states * (loudness > 6.5)[:, :, None]
        return torch.stack([states * self.backbone.gain if layer else states for layer in layers])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.drawn.append(float(torch.rand(())))
        return self.backbone.gain[1:].square().sum() * 10


class Stop(pl.Callback):
    """Ends the process's work, as a kill would, at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise ConnectionAbortedError


def table(path: Path) -> list[dict[str, str]]:
    with (path / "drift.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def fitted(toy_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fading]:
    """A run of three epochs of two steps, compared after each."""
    path = tmp_path_factory.mktemp("runs") / "one"
    torch.manual_seed(3)
    module = Fading()
    toy_trainer(path, FeatureDrift(), epochs=3).fit(module, toy_data(toy_store_path))
    return path, module


def test_one_row_per_epoch_and_layer_and_scalars_in_the_loggers(fitted: tuple[Path, Fading]) -> None:
    path, _ = fitted
    rows = table(path)
    assert [(row["epoch"], row["step"], row["layer"]) for row in rows] == [
        (str(epoch), str(2 * epoch), str(layer)) for epoch in (1, 2, 3) for layer in (0, 1, 2)
    ]
    with (path / "metrics.csv").open(newline="") as file:
        logged = [row for row in csv.DictReader(file) if row.get("drift/cka/layer-1")]
    assert [row["step"] for row in logged] == ["2", "4", "6"]
    assert logged[2]["drift/change/layer-1"] == rows[7]["change"]
    assert logged[2]["drift/cka/layer-2"] == rows[8]["cka"]


def test_values_are_those_of_the_states_before_and_after(fitted: tuple[Path, Fading], toy_store_path: Path) -> None:
    path, module = fitted
    data = toy_data(toy_store_path)
    data.prepare_data()
    data.setup()
    spans = data.roles.spans("choose")
    before, after = (layer_features(m, data, spans, [1], progress=False)[1] for m in (Fading(), module))
    heard = before.any(axis=1)
    row = table(path)[-2]
    middle, sd = before[heard].mean(axis=0), before[heard].std(axis=0)
    sd[2] = np.median(sd[:2]) / 10  # it does not vary
    x, y = ((states[heard] - middle) / sd for states in (before, after))
    cka = linear_cka(x, y, debiased=True)
    change = np.linalg.norm(y - x) / np.linalg.norm(x)
    assert float(row["cka"]) == pytest.approx(cka)
    assert float(row["change"]) == pytest.approx(change)
    assert row["massive"] == str(int((sd[:2] ** 2 >= 3 * np.median(before[heard].var(axis=0))).sum()))
    assert cka < 0.95
    assert 0.2 < heard.mean() < 0.8
    in_silence_too = ((states - middle) / sd for states in (before, after))
    assert linear_cka(*in_silence_too, debiased=True) > cka + 0.01
    assert change > 0.1


def test_a_layer_that_stays_does_not_drift(fitted: tuple[Path, Fading]) -> None:
    rows = [row for row in table(fitted[0]) if row["layer"] == "0"]
    assert [float(row["cka"]) for row in rows] == pytest.approx([1.0] * 3)
    assert [float(row["change"]) for row in rows] == [0.0] * 3
    moving = [float(row["change"]) for row in table(fitted[0]) if row["layer"] == "1"]
    assert moving == sorted(moving)


def test_training_draws_what_it_would_draw_without(
    fitted: tuple[Path, Fading], toy_store_path: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    alone = Fading()
    toy_trainer(tmp_path, epochs=3).fit(alone, toy_data(toy_store_path))
    assert alone.drawn == fitted[1].drawn
    assert torch.equal(alone.backbone.gain, fitted[1].backbone.gain)
    assert not any(fitted[1].modes_seen)


def stopped_run(store: Path, path: Path) -> None:
    """A run that was compared after two epochs, and killed before the checkpoint of the second was written."""
    saving = ModelCheckpoint(path / "checkpoints", filename="first", every_n_epochs=1, save_top_k=-1)
    trainer = toy_trainer(path, FeatureDrift(), Stop(1), saving, epochs=3, enable_checkpointing=True)
    with pytest.raises(ConnectionAbortedError):
        trainer.fit(Fading(), toy_data(store))
    later = {"epoch": 2, "step": 4, "layer": 0, "cka": 0.5, "change": 0.5, "massive": 0}
    write_csv(path / "drift.csv", COLUMNS, [*read_rows(path / "drift.csv"), later])


def resume(store: Path, path: Path, **changes: Any) -> None:
    trainer = toy_trainer(path, FeatureDrift(**changes), epochs=3)
    checkpoint = path / "checkpoints" / "first.ckpt"
    trainer.fit(Fading(), toy_data(store), ckpt_path=checkpoint, weights_only=False)


def test_a_resumed_run_compares_with_the_pretrained_states_and_ends_with_the_same_table(
    fitted: tuple[Path, Fading], toy_store_path: Path, tmp_path: Path
) -> None:
    stopped_run(toy_store_path, tmp_path)
    resume(toy_store_path, tmp_path)
    assert (tmp_path / "drift.csv").read_bytes() == (fitted[0] / "drift.csv").read_bytes()


def test_a_resumed_run_without_its_reference_or_with_another_is_refused(toy_store_path: Path, tmp_path: Path) -> None:
    stopped_run(toy_store_path, tmp_path)
    with pytest.raises(RuntimeError, match=r"holds layers \[0, 1, 2\] of toy4.*layers \[1\] of toy4"):
        resume(toy_store_path, tmp_path, layers=[1])
    (tmp_path / "drift_reference.npz").unlink()
    with pytest.raises(RuntimeError, match="states from before training, is missing"):
        resume(toy_store_path, tmp_path)


def test_a_new_run_in_the_same_folder_starts_anew(toy_store_path: Path, tmp_path: Path) -> None:
    stopped_run(toy_store_path, tmp_path)
    toy_trainer(tmp_path, FeatureDrift(layers=[-1]), epochs=1).fit(Fading(), toy_data(toy_store_path))
    assert [(row["epoch"], row["layer"]) for row in table(tmp_path)] == [("1", "2")]


def test_the_end_is_compared_in_any_case_and_tune_serves_where_nothing_chooses(
    toy_store_path: Path, tmp_path: Path
) -> None:
    data = toy_data(toy_store_path, roles={"tune": ["toy0"], "fit": ["toy2"], "score": ["toy5"]})
    drift = FeatureDrift(every_n_epochs=2, layers=[1], max_batches=1)
    toy_trainer(tmp_path, drift, epochs=3).fit(Fading(), data)
    assert [row["epoch"] for row in table(tmp_path)] == ["2", "3"]
    with np.load(tmp_path / "drift_reference.npz", allow_pickle=False) as arrays:
        assert "toy0[0:40]" in str(arrays["what"])
        assert arrays["layer-1"].shape == (40, 3)


def test_what_is_compared_are_the_first_windows_of_an_evaluation() -> None:
    spans = [Span("a", 0, 10), Span("b", 5, 50), Span("c", 0, 3)]
    everything = evaluation_windows(spans, 4)
    for n in (1, 3, 4, 14, 15, 16, 99):
        assert evaluation_windows(first_windows(spans, 4, n), 4) == everything[:n]


def test_settings_and_rows_are_checked(toy_store_path: Path, tmp_path: Path) -> None:
    for settings, message in (
        ({"every_n_epochs": 0}, "every_n_epochs is 0"),
        ({"max_batches": 0}, "max_batches is 0"),
        ({"layers": []}, "layers are empty"),
    ):
        with pytest.raises(ValueError, match=message):
            FeatureDrift(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer 7 does not exist"):
        toy_trainer(tmp_path, FeatureDrift(layers=[7])).fit(Fading(), toy_data(toy_store_path))
    few = toy_data(
        toy_store_path, roles={"tune": ["toy0"], "fit": ["toy2"], "choose": ["toy4[0:3]"], "score": ["toy5"]}
    )
    with pytest.raises(ValueError, match="3 rows with sound to compare and needs at least 4"):
        toy_trainer(tmp_path, FeatureDrift()).fit(Fading(), few)
