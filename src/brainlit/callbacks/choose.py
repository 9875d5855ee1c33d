"""The best checkpoint by what the brain says, on stories that are neither tuned on nor scored."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from brainlit.callbacks.probe import DEFAULT_PROBE
from brainlit.datamodules import StoryDataModule
from brainlit.encoding.bootstrap import BLOCK_TRS
from brainlit.encoding.config import ProbeConfig
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.inputs import borrowed_state, datamodule_of, probed
from brainlit.probing.layer_scores import LayerScore, score_layers
from brainlit.probing.process_group import ProcessGroup
from brainlit.results.run_directory import read_json, write_json_atomic
from brainlit.results.scores import ALL_VOXELS
from brainlit.results.summary import CHOSEN_FILE
from brainlit.splits import LeakError, Roles


class ChooseCheckpoint(ModelCheckpoint):
    """Keep the checkpoint whose layer predicts the stories of the role `choose` best.

    After every so many epochs encoding models of one layer are fitted on the stories of the role `fit` and scored on
    those of `choose`, for the subjects that are tuned on. The mean r over voxels and subjects is logged as
    choose/<region>/r for every region, and the checkpoint with the highest of one region is kept as
    <run>/checkpoints/best-by-probe.ckpt. <run>/chosen.json says which it is, and by what. The stories of the role
    `score` are never looked at, so the number that is reported in the end is not one that was chosen.

    Only the first process computes, however long it takes.

    Parameters
    ----------
    region : str, optional
        Region to go by; by default 'semantic' where there is one, else all voxels.
    layer : int
        Hidden state; negative ones count from the end.
    every_n_epochs : int
    probe : ProbeConfig
        How the encoding models are fitted, as in BandedRidgeProbe.
    dirpath : str, optional
        Folder of the checkpoint; by default <run>/checkpoints.
    filename : str
    """

    def __init__(
        self,
        region: str | None = None,
        layer: int = -1,
        every_n_epochs: int = 1,
        probe: ProbeConfig = DEFAULT_PROBE,
        dirpath: str | None = None,
        filename: str = "best-by-probe",
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename=filename,
            monitor=_metric(region or "semantic"),
            mode="max",
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.region, self.layer, self.every_n = region, layer, every_n_epochs
        bootstrap = {"block_trs": BLOCK_TRS, "n_bootstraps": 1, "seed": 0}
        self.engine = ProbeEngine(probe, [layer], layer, bootstrap, score_role="choose")
        self._processes = ProcessGroup()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the roles and settle the region, before anything is trained.

        Raises
        ------
        LeakError
            If there are no stories to choose by, or they are tuned on, fitted on or scored, too.
        ValueError
            If no subject has the region.
        """
        if stage == "fit":
            datamodule = datamodule_of(trainer)
            check_choosing(datamodule.roles)
            self.monitor = _metric(self._settled_region(datamodule))
            self.dirpath = self.dirpath or str(Path(trainer.default_root_dir) / "checkpoints")
            self.engine.progress = trainer.progress_bar_callback is not None
            self._processes = ProcessGroup.of_trainer(trainer)
        super().setup(trainer, pl_module, stage)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score the choosing stories, then keep the checkpoint if it is the best so far."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n:
            return
        scores = self._score(trainer, pl_module)
        for region, value in scores.items():
            pl_module.log(_metric(region), value, on_step=False, on_epoch=True)
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.is_global_zero:
            self._say(trainer, epoch, scores)

    def _score(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Alignment by region, the same in all processes."""
        datamodule = datamodule_of(trainer)
        with borrowed_state(pl_module), self._processes as group:

            def measure() -> dict[str, float]:
                features, _ = self.engine.features(probed(pl_module), datamodule)
                subjects = self._subjects(datamodule)
                found: list[LayerScore] = score_layers(self.engine, features, datamodule, subjects)
                return {row.region: row.score.value for row in found}

            return dict(group.broadcast(measure))

    def _say(self, trainer: pl.Trainer, epoch: int, scores: dict[str, float]) -> None:
        """Write which checkpoint was chosen by what, with the scores of all epochs."""
        datamodule = datamodule_of(trainer)
        path = Path(trainer.default_root_dir) / CHOSEN_FILE
        earlier = read_json(path).get("epochs", []) if path.exists() else []
        monitor = str(self.monitor)
        own = {"epoch": epoch, "step": trainer.global_step, "scores": {_metric(k): v for k, v in scores.items()}}
        epochs = [*(row for row in earlier if row["epoch"] < epoch), own]
        best = max(epochs, key=lambda row: float(row["scores"][monitor]))
        write_json_atomic(
            path,
            {
                "checkpoint": self.best_model_path,
                "by": monitor,
                "layer": self.layer,
                "epoch": best["epoch"],
                "step": best["step"],
                "value": best["scores"][monitor],
                "fit_spans": [str(span) for span in datamodule.roles.spans("fit")],
                "choose_spans": [str(span) for span in datamodule.roles.spans("choose")],
                "subjects": self._subjects(datamodule),
                "epochs": epochs,
            },
        )

    def _subjects(self, datamodule: StoryDataModule) -> list[str]:
        """Those who are tuned on and heard a story to choose by: others stay unseen until the end."""
        stories = datamodule.roles.stories("choose")
        store = datamodule.store
        heard = [name for name in datamodule.subjects if any(store.n_repeats(name, story) for story in stories)]
        if not heard:
            raise LeakError(f"no subject who is tuned on heard a story of the role 'choose' ({', '.join(stories)}).")
        return heard

    def _settled_region(self, datamodule: StoryDataModule) -> str:
        regions = {name for subject in datamodule.subjects for name in datamodule.store.subject(subject).regions}
        if self.region is None:
            return "semantic" if "semantic" in regions else ALL_VOXELS
        if self.region not in {*regions, ALL_VOXELS}:
            raise ValueError(f"region is {self.region!r}, and there are {', '.join([ALL_VOXELS, *sorted(regions)])}.")
        return self.region


def check_choosing(roles: Roles) -> None:
    """Refuse to choose by stories that serve another role, even where the configuration allows it.

    Raises
    ------
    LeakError
        If there are none, or rows of another role are among them or closer than the roles' purge.
    """
    ours = roles.spans("choose")
    if roles.folds is not None:
        raise LeakError(
            "a checkpoint is to be chosen by encoding models, which would be fitted on rows that the folds score."
            " Leave ChooseCheckpoint out (val/loss of roles.choose chooses), or name fit and score instead of folds."
        )
    if not ours:
        raise LeakError(
            "a checkpoint is to be chosen, and the role 'choose' has no stories: give data.roles.choose some that are"
            " not tuned on, fitted on or scored, or leave ChooseCheckpoint out."
        )
    for role in ("tune", "fit", "score"):
        for span in ours:
            for other in roles.spans(role):
                if span.story == other.story and span.gap_trs(other) < roles.purge_trs:
                    raise LeakError(
                        f"a checkpoint is to be chosen by {span}, and {other} has the role {role!r}: they are less than"
                        f" {roles.purge_trs} TRs apart. Choose by other stories."
                    )


def _metric(region: str) -> str:
    return f"choose/{region.replace(' ', '_')}/r"
