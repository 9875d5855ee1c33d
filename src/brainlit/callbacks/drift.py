"""How far each layer has moved from the pretrained model, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import numpy as np

from brainlit.datamodules import StoryDataModule
from brainlit.encoding.arrays import Float32Array
from brainlit.encoding.similarity import linear_cka, massive_dimensions, relative_change, standardised
from brainlit.files import atomic_path, write_csv
from brainlit.guard import file_guard, read_csv, read_npz
from brainlit.probing.hidden_states import layer_features
from brainlit.probing.inputs import datamodule_of, probed, resolve_layers
from brainlit.probing.process_group import ProcessGroup
from brainlit.splits import Span

TABLE_FILE = "drift.csv"
REFERENCE_FILE = "drift_reference.npz"
FEWEST_ROWS = 4
COLUMNS = ("epoch", "step", "layer", "cka", "change", "massive")
Row = dict[str, str]


class FeatureDrift(pl.Callback):
    """Compare hidden states with those of the pretrained model, for the same sound, after every so many epochs.

    Before training, the states of some windows of the role `choose` (of `tune`, where there is no other) are kept,
    averaged per scanner row, in <run>/drift_reference.npz; a resumed run reads them from there. After every n epochs
    and at the end, each layer's linear CKA with them (1: alike but for rotation and scale) and its relative change
    (norm of the difference over the norm) go to every logger as drift/cka/layer-<k> and drift/change/layer-<k>, and as
    rows into <run>/drift.csv. Rows without sound do not count.

    Each dimension counts in units of its sd before training, for in some layers one of them is larger than all others
    together (massive activations; see `encoding.similarity`) and would hide what these do. `massive` in drift.csv says
    how many dimensions of a layer were so before training.

    Training goes on as it would without this callback. Only the first process computes, however long it takes.

    Parameters
    ----------
    every_n_epochs : int
        After how many epochs to compare; the end of training is compared in any case.
    layers : 'all' or list of int
        Hidden states; 0 is the input of the first layer, negative ones count from the end.
    max_batches : int
        Batches of windows that are compared, the first ones of the role.
    debiased : bool
        Use the unbiased estimate in CKA. The usual one is near 1 whatever happens where there are fewer rows than
        features.
    run_dir : str, optional
        The run directory; the trainer's default_root_dir where not given.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        layers: Literal["all"] | list[int] = "all",
        max_batches: int = 4,
        debiased: bool = True,
        run_dir: str | None = None,
    ) -> None:
        super().__init__()
        if every_n_epochs < 1:
            raise ValueError(f"every_n_epochs is {every_n_epochs}; give 1 (after each epoch) or more.")
        if max_batches < 1:
            raise ValueError(f"max_batches is {max_batches}; give at least 1.")
        if layers != "all" and not layers:
            raise ValueError("layers are empty; name hidden states, or give 'all'.")
        self.every_n_epochs, self.layers, self.max_batches = every_n_epochs, layers, max_batches
        self.debiased, self.run_dir = debiased, run_dir
        self._reference: dict[int, Float32Array] = {}
        self._rows: list[Row] = []
        self._compared_epoch = 0
        self._processes = ProcessGroup()

    # --- Lightning hooks ---

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the group in which processes wait for the first."""
        if stage == "fit":
            self._processes = ProcessGroup.of_trainer(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the states of the pretrained model, or read them where the run is resumed."""
        self._compared_epoch = 0
        with self._processes as group:
            if group.is_first:
                self._keep_reference(trainer, pl_module)

    def _keep_reference(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        path = self._folder(trainer) / REFERENCE_FILE
        what = self._what(trainer, pl_module)
        if trainer.ckpt_path is None:
            self._reference = self._states(trainer, pl_module)
            self._check_enough()
            save_reference(path, self._reference, what)
            self._rows = []
        else:
            self._reference = load_reference(path, what)
            self._rows = read_rows(path.with_name(TABLE_FILE))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare every so many epochs."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0:
            self.compare(trainer, pl_module, epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare after the last epoch, unless that was just done."""
        epoch = trainer.current_epoch
        if epoch > 0 and self._compared_epoch != epoch:
            self.compare(trainer, pl_module, epoch)

    # --- The comparison ---

    def compare(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """Compare now: log, and write the table anew with the rows of this epoch; to be called in all processes."""
        self._compared_epoch = epoch
        with self._processes as group:
            if group.is_first:
                self._compare(trainer, pl_module, epoch)

    def _compare(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        values: dict[str, float] = {}
        rows = [row for row in self._rows if int(row["epoch"]) < epoch]
        for layer, now in self._states(trainer, pl_module).items():
            heard = self._reference[layer].any(axis=1)
            before = self._reference[layer][heard]
            both = standardised(before), standardised(now[heard], before)
            scores = {"cka": linear_cka(*both, self.debiased), "change": relative_change(*both)}
            values |= {f"drift/{name}/layer-{layer}": value for name, value in scores.items() if math.isfinite(value)}
            where = {"epoch": epoch, "step": trainer.global_step, "layer": layer}
            facts = {**where, **scores, "massive": int(massive_dimensions(before).sum())}
            rows.append({column: str(value) for column, value in facts.items()})
        self._rows = rows
        write_csv(self._folder(trainer) / TABLE_FILE, COLUMNS, rows)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)

    def _check_enough(self) -> None:
        """Too few rows are noticed before an epoch is trained."""
        n_heard = min(int(states.any(axis=1).sum()) for states in self._reference.values())
        if n_heard < FEWEST_ROWS:
            raise ValueError(
                f"FeatureDrift has {n_heard} rows with sound to compare and needs at least {FEWEST_ROWS}; give the role"
                " 'choose' more, raise max_batches, or leave the callback out."
            )

    def _states(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[int, Float32Array]:
        """Pooled states (n_rows, hidden_size) of the asked layers; modes and random states come back."""
        datamodule = datamodule_of(trainer)
        module = probed(pl_module)
        layers = resolve_layers(self.layers, module)
        return layer_features(module, datamodule, self._spans(datamodule), layers, progress=False)

    def _spans(self, datamodule: StoryDataModule) -> list[Span]:
        spans = datamodule.roles.spans("choose") or datamodule.roles.spans("tune")
        return first_windows(spans, datamodule.window.n_trs, self.max_batches * datamodule.batch_size)

    def _what(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> str:
        """What is compared, in words: another reference must not be taken for it."""
        datamodule = datamodule_of(trainer)
        layers, spans = resolve_layers(self.layers, probed(pl_module)), ", ".join(map(str, self._spans(datamodule)))
        return f"layers {layers} of {spans} in store {datamodule.store.fingerprint}, in units of each dimension's sd"

    def _folder(self, trainer: pl.Trainer) -> Path:
        return Path(self.run_dir or trainer.default_root_dir)


def first_windows(spans: Sequence[Span], n_trs: int, n_windows: int) -> list[Span]:
    """The part of the spans that their first n_windows windows of n_trs rows cover.

    >>> [str(span) for span in first_windows([Span("a", 0, 10), Span("b", 5, 50)], 4, 5)]
    ['a[0:10]', 'b[5:13]']
    """
    covered = []
    for span in spans:
        n_here = min(math.ceil(span.n_trs / n_trs), n_windows)
        if n_here:
            covered.append(Span(span.story, span.start_tr, min(span.start_tr + n_here * n_trs, span.stop_tr)))
        n_windows -= n_here
    return covered


def save_reference(path: Path, states: dict[int, Float32Array], what: str) -> None:
    """Write the states of the pretrained model, one array per layer, and what they are of; atomically."""
    arrays = {f"layer-{layer}": values for layer, values in states.items()}
    with atomic_path(path) as temporary:
        np.savez(temporary, what=np.array(what), **arrays)  # type: ignore[arg-type]


def load_reference(path: Path, what: str) -> dict[int, Float32Array]:
    """Read them again.

    Raises
    ------
    RuntimeError
        If the file is missing, or is of other layers, rows or data.
    """
    if not path.exists():
        raise RuntimeError(
            f"the run is resumed, but {path}, the hidden states from before training, is missing. Put the file back, or"
            " resume without the callback FeatureDrift."
        )
    cure = "Put the whole file back, or resume without the callback FeatureDrift."
    arrays = read_npz(path, "a file of hidden states", cure)
    with file_guard(path, "a file of hidden states", cure):
        said = str(arrays.pop("what"))
        states = {int(name.removeprefix("layer-")): values for name, values in arrays.items()}
    if said != what:
        raise RuntimeError(
            f"{path} holds {said}, but now these are compared: {what}. Resume with the settings and data that the run"
            " began with."
        )
    return states


def read_rows(path: Path) -> list[Row]:
    """Rows of drift.csv; none where there is no file."""
    if not path.exists():
        return []
    return read_csv(path, "a table of drift", "Move it away; the rows of earlier epochs are then missing.", "epoch")
