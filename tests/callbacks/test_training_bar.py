from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from brainlit.callbacks import training_bar
from brainlit.callbacks.training_bar import TrainingBar, show_alignment
from tests.results.fake_run import FakeBrain, fake_record


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of 40 steps, at the tenth; a step takes 3 s."""
    made = SimpleNamespace(
        estimated_stepping_batches=40, global_step=10, callback_metrics={}, current_epoch=1, max_epochs=4, callbacks=[]
    )
    monkeypatch.setattr(training_bar.time, "monotonic", lambda: 100.0 + 3.0 * (made.global_step - 10))
    return made


@pytest.fixture
def bar(trainer: Any) -> TrainingBar:
    made = TrainingBar()
    made._trainer = trainer
    made.disable()
    made.on_train_start(trainer, None)  # type: ignore[arg-type]
    trainer.callbacks.append(made)
    return made


def shown(bar: TrainingBar, trainer: Any) -> dict[str, Any]:
    return bar.get_metrics(trainer, None)  # type: ignore[arg-type]


def test_losses_and_the_time_that_all_planned_steps_still_take(bar: TrainingBar, trainer: Any) -> None:
    assert shown(bar, trainer) == {}, "nothing is known before the first step"
    trainer.global_step = 14
    trainer.callback_metrics = {"train/loss_step": 0.83149, "train/loss_epoch": 0.9, "val/loss": 0.3351, "test/r": 1.0}
    assert shown(bar, trainer) == {"loss": "0.831", "validation": "0.335", "left": "1:18 min"}
    trainer.global_step = 40
    assert shown(bar, trainer)["left"] == "0:00 min"


def test_without_an_end_no_time_is_left(bar: TrainingBar, trainer: Any) -> None:
    trainer.estimated_stepping_batches = float("inf")
    bar.on_train_start(trainer, None)  # type: ignore[arg-type]
    trainer.global_step = 20
    assert "left" not in shown(bar, trainer)


def test_the_alignment_that_was_probed_last_is_shown(bar: TrainingBar, trainer: Any) -> None:
    before, _ = fake_record(FakeBrain("sub-1"), "before", 0)
    show_alignment(trainer, [before])
    said = shown(bar, trainer)
    assert list(said) == ["r semantic", "r auditory"]
    rows = {row.region: row.score.value for row in before.table.rows if row.metric == "r_backbone" and row.layer == 2}
    assert said == {f"r {name}": f"{rows[name]:.3f}" for name in ("semantic", "auditory")}


def test_epochs_are_counted_from_one(bar: TrainingBar, trainer: Any) -> None:
    trainer.num_training_batches = 10
    trainer.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace())
    bar.on_train_epoch_start(trainer, None)  # type: ignore[arg-type]
    assert bar.train_progress_bar.desc == "epoch 2 of 4: "
