"""Random states come back, and what cannot come back is said."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from brainlit.callbacks import resume as random_state
from brainlit.callbacks.resume import (
    RANDOM_STATES,
    REQUEUED_CHECKPOINT,
    RandomState,
    Requeue,
    random_states,
    requeue,
    set_random_states,
)
from brainlit.probing.inputs import borrowed_state
from tests.tuning.conftest import FakeData


@pytest.fixture(autouse=True)
def borrowed() -> Any:
    """The tests' own random states are given back."""
    with borrowed_state(torch.nn.Identity()):
        yield


def draw() -> tuple[float, ...]:
    """One number of each source; an odd number of normals leaves one in numpy's pocket."""
    return random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))  # noqa: NPY002


def reseed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def process(rank: int = 0, world_size: int = 1) -> Any:
    return SimpleNamespace(global_rank=rank, world_size=world_size)


def test_states_survive_a_file_that_holds_plain_values_only(tmp_path: Path) -> None:
    reseed(1)
    draw()
    torch.save(random_states(), tmp_path / "states.pt")
    expected = draw(), draw()
    reseed(2)
    draw()
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert (draw(), draw()) == expected


@pytest.mark.parametrize("within_epoch", [False, True])
def test_states_come_back_in_their_moment(within_epoch: bool) -> None:
    saving, checkpoint = RandomState(), {}
    reseed(3)
    if within_epoch:
        saving.on_train_epoch_start(process(), None)  # type: ignore[arg-type]
    saving.on_save_checkpoint(process(), None, checkpoint)  # type: ignore[arg-type]
    expected = draw()
    reseed(4)
    loading = RandomState()
    loading.on_load_checkpoint(process(), None, checkpoint)  # type: ignore[arg-type]
    if within_epoch:
        assert draw() != expected, "the loader has not made its iterator yet"
    else:
        assert draw() == expected
    loading.on_train_start(process(), None)  # type: ignore[arg-type]
    assert (draw() == expected) == within_epoch
    loading.on_train_start(process(), None)  # type: ignore[arg-type]
    assert draw() != expected, "once"


def test_each_process_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(everyones: list[Any], own: dict[str, Any]) -> None:
        reseed(6)
        everyones[:] = [own, random_states()]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    reseed(5)
    checkpoint: dict[str, Any] = {}
    RandomState().on_save_checkpoint(process(0, 2), None, checkpoint)  # type: ignore[arg-type]
    for rank, seed in ((0, 5), (1, 6)):
        reseed(seed)
        expected = draw()
        RandomState().on_load_checkpoint(process(rank, 2), None, checkpoint)  # type: ignore[arg-type]
        assert draw() == expected


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ({}, "holds no random states"),
        ({RANDOM_STATES: {"within_epoch": False, "processes": [{}, {}]}}, "had 2 processes and has 1 now"),
    ],
)
def test_what_cannot_come_back_is_said(
    checkpoint: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    reseed(7)
    expected = draw()
    reseed(7)
    callback = RandomState()
    callback.on_load_checkpoint(process(), None, checkpoint)  # type: ignore[arg-type]
    callback.on_train_start(process(), None)  # type: ignore[arg-type]
    assert words in caplog.text
    assert draw() == expected, "nothing was changed"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_goes_on_too() -> None:
    torch.cuda.manual_seed(1)
    states = random_state.random_states()
    expected = torch.rand(3, device="cuda")
    set_random_states(states)
    assert torch.equal(torch.rand(3, device="cuda"), expected)


# --- requeue
# When the scheduler says that the end is near: after which step it is saved, and what is said to SLURM.


SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "tune",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
"""What srun sets, as far as Lightning looks."""


def fake_scontrol(folder: Path, then: str = "exit 0") -> Path:
    """A program of that name that writes its arguments down; returns where."""
    script, said = folder / "bin" / "scontrol", folder / "scontrol.txt"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {said}\n{then}\n')
    script.chmod(0o755)
    return said


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM job with an scontrol that notes what it is told."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    said = fake_scontrol(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return said


class Small(pl.LightningModule):
    """One weight that learns; batches are counted, not looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.weight.square()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Announce(pl.Callback):
    """Send the signal at one moment of training: before the optimiser step of a batch, or when validation starts."""

    def __init__(self, step: int | None = None, number: signal.Signals = signal.SIGUSR1) -> None:
        self.step, self.number = step, number

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.step is None:
            os.kill(os.getpid(), self.number)


class Steps(pl.Callback):
    """Look at the checkpoint while it is there, which is until the run is done."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        path = Path(trainer.default_root_dir) / REQUEUED_CHECKPOINT
        if path.is_file():
            self.seen.append(torch.load(path, weights_only=True)["global_step"])


def fit(folder: Path, *callbacks: pl.Callback, **settings: Any) -> list[int]:
    """Two epochs of four batches; returns the steps behind the checkpoint that was written, if one was."""
    seen = Steps()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        callbacks=[Requeue(), *callbacks, seen],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )
    trainer.fit(Small(), datamodule=FakeData())
    assert not (folder / REQUEUED_CHECKPOINT).exists(), "a run that is done needs it no more"
    return seen.seen


def test_the_running_step_is_finished_first(slurm: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    assert fit(tmp_path, Announce(step=5)) == [6]
    assert slurm.read_text() == "requeue 77\n"
    assert signal.getsignal(signal.SIGUSR1) == before


def test_the_workers_of_a_loader_leave_the_signal_to_the_process_that_trains(slurm: Path, tmp_path: Path) -> None:
    """SLURM signals all processes of a job; a worker is a copy of the training, with its handler."""

    class Workers(pl.Callback):
        def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
            worker = os.fork()
            if not worker:
                os.kill(os.getpid(), signal.SIGUSR1)
                os._exit(0)
            os.waitpid(worker, 0)

    assert fit(tmp_path, Workers()) == []
    assert not slurm.exists()


def test_a_copy_of_one_of_several_processes_ends_on_sigterm() -> None:
    """The process itself finishes its step first; a worker has none, and would live on."""
    progress = SimpleNamespace(current=SimpleNamespace(completed=0, ready=1), is_last_batch=False)
    trainer = SimpleNamespace(
        world_size=2, training=True, fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    )
    trainer._accelerator_connector = SimpleNamespace(cluster_environment=None)
    before = signal.getsignal(signal.SIGTERM)
    requeue = Requeue()
    requeue.setup(trainer, None, "fit")  # type: ignore[arg-type]
    try:
        requeue.on_train_start(trainer, None)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)  # the process itself goes on to the end of its step
        worker = os.fork()
        if not worker:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(worker, 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGTERM


def test_gathered_gradients_are_waited_for(slurm: Path, tmp_path: Path) -> None:
    class First(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if (trainer.current_epoch, batch_idx) == (1, 0):
                os.kill(os.getpid(), signal.SIGUSR1)

    assert fit(tmp_path, First(), accumulate_grad_batches=2) == [3]


@pytest.mark.parametrize("step", [None, 3], ids=["in a validation", "in the last step of an epoch"])
def test_where_no_step_follows_the_job_is_requeued_with_what_there_is(
    slurm: Path, tmp_path: Path, step: int | None
) -> None:
    assert fit(tmp_path, Announce(step)) == []
    assert slurm.read_text() == "requeue 77\n", "once"


def test_before_training_too(slurm: Path, tmp_path: Path) -> None:
    class Early(pl.Callback):
        def on_fit_start(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

    assert fit(tmp_path, Early()) == []
    assert slurm.read_text() == "requeue 77\n"


def test_outside_slurm_the_signal_is_not_ours_but_sigterm_saves(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)

    class Look(pl.Callback):
        def on_train_start(self, *_: Any) -> None:
            assert signal.getsignal(signal.SIGUSR1) == before

    with pytest.raises(SystemExit):
        fit(tmp_path, Look(), Announce(step=1, number=signal.SIGTERM))
    assert torch.load(tmp_path / REQUEUED_CHECKPOINT, weights_only=True)["global_step"] == 2


def test_a_failing_scontrol_is_said(slurm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho Invalid job id >&2\nexit 1\n")
    assert not requeue()
    assert "could not requeue job 77: Invalid job id" in caplog.text
    (tmp_path / "bin" / "scontrol").unlink()
    os.environ["PATH"] = str(tmp_path / "bin")
    assert not requeue()
    assert "Submit it again" in caplog.text
