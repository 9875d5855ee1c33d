"""The run's own account of itself, written when training ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info

from brainlit.callbacks.probe import BandedRidgeProbe
from brainlit.callbacks.probe_log import log_run
from brainlit.paths import link, next_command
from brainlit.probing.inputs import datamodule_of
from brainlit.results.methods import trains_the_head_alone
from brainlit.results.record import PROBES_BEFORE
from brainlit.results.report import write_report
from brainlit.results.run_directory import RunDirectory, collect, read_json, write_json_atomic, write_provenance
from brainlit.results.summary import RUN_FILE, SUMMARY_FILE
from brainlit.results.tables import SIMULATED
from brainlit.tuning.schedule import count_planned_steps, count_steps_per_epoch, too_short_said

if TYPE_CHECKING:
    from brainlit.backbones import SpeechBackbone
    from brainlit.datamodules import StoryDataModule

log = logging.getLogger(__name__)

REGIMES = {
    "brain": "brain: tuned to predict the voxels' responses",
    "permuted": "permuted control: as brain, but the responses do not belong to the sound",
    "stimulus": "stimulus control: trained on the same sound without any brain",
    "language_model": "language model: tuned to predict a text model's representations of the words",
    "large_speech_model": "large speech model: tuned to predict a larger speech model's representations",
    "pretrained": "pretrained: not tuned",
}
MAIN = "main"
"""The probe of the data that are tuned on, among those by name."""
NESTED = {"pooling": ("how", "over"), "head": ("kind",), "loss": ("name",), "anchor": ("kind",)}
"""Settings of the model that have settings of their own, and what is said of them."""


class RunReport(pl.Callback):
    """Write run.json and provenance.json when training starts, summary.json and report.html when it has ended.

    Put it after the probe in the list of callbacks. The last lines that it logs are the headline, a link
    to the report and the command that people type next.

    Parameters
    ----------
    run_dir : str, optional
        The run directory; the trainer's default_root_dir where not given.
    regime : str, optional
        What to call the regime; by default the data module's, or 'pretrained' without epochs.
    """

    def __init__(self, run_dir: str | None = None, regime: str | None = None) -> None:
        super().__init__()
        self.run_dir, self.regime = run_dir, regime
        self._started = self._trained_s = self._last = 0.0
        self.config_files: list[str] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a finished run before anything is trained.

        Raises
        ------
        RunFinishedError
            If the folder holds a finished run.
        """
        if stage == "fit" and trainer.is_global_zero:
            RunDirectory.adopt(self._path(trainer))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known beforehand, so that a killed run can be reported too."""
        if not trainer.is_global_zero:
            return
        self._started, self._trained_s = time.monotonic(), 0.0
        path, datamodule = self._path(trainer), datamodule_of(trainer)
        named = {"config_files": self.config_files} if self.config_files else {}
        facts = run_facts(trainer, pl_module, self.regime)
        earlier = {**_went_on(trainer, path), **_probes_before(trainer, path)}
        write_json_atomic(path / RUN_FILE, {**facts, **named, **earlier, **online_facts(trainer.loggers)})
        if facts["simulated"]:
            _tell_wandb(trainer)
        seed = pl_module.hparams.get("seed", getattr(datamodule, "seed", None))
        write_provenance(path, collect(seed=seed, store_path=getattr(datamodule.store, "path", None)))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock of training runs until the last batch of the epoch, validation included, probes not."""
        self._last = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        self._tick()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the validation, unless it is the one before training."""
        if not trainer.sanity_checking and self._last:
            self._tick()

    def _tick(self) -> None:
        now = time.monotonic()
        self._trained_s, self._last = self._trained_s + now - self._last, now

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the report, mark the run as finished and say where it is."""
        if not trainer.is_global_zero:
            return
        path = self._path(trainer)
        for logger in trainer.loggers:
            logger.save()
        trained = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
        seconds = round(time.monotonic() - self._started, 1)
        facts = read_json(path / RUN_FILE)
        training = {"training_seconds": round(self._trained_s, 2)}
        earlier = float(facts.get("seconds", 0.0))
        write_json_atomic(path / RUN_FILE, {**facts, **trained, "seconds": earlier + seconds, **training})
        run = RunDirectory.open(path)
        report = write_report(run, state="finished")
        run.finish()
        summary = read_json(path / SUMMARY_FILE)
        log_run(trainer, run, report, summary)
        for sentence in summary["headline"]:
            if not any(warning.startswith(sentence) for warning in summary["warnings"]):  # which says more
                rank_zero_info(sentence)
        for warning in summary["warnings"]:
            log.warning(warning)
        rank_zero_info(f"Report: {link(report)}\n{next_command('downstream', path)}")

    def _path(self, trainer: pl.Trainer) -> Path:
        return Path(self.run_dir or trainer.default_root_dir)


def _tell_wandb(trainer: pl.Trainer) -> None:
    """Say in the notes of the run in W&B, before the user's own, and in its tags that no brain was measured."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            if SIMULATED not in (run.notes or ""):
                run.notes = "\n".join([SIMULATED, *filter(None, [run.notes])])
            run.tags = tuple(dict.fromkeys((*(run.tags or ()), "simulated-listeners")))


def online_facts(loggers: Iterable[Any]) -> dict[str, str]:
    """Where the run is seen in W&B, for its report; nothing where W&B is offline or not used."""
    runs = [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]
    addresses = [str(run.url) for run in runs if not run.offline and run.url]
    return {"wandb_url": addresses[0]} if addresses else {}


def run_facts(trainer: pl.Trainer, pl_module: Any, regime: str | None = None) -> dict[str, Any]:
    """What was run, in plain JSON and in words."""
    datamodule = datamodule_of(trainer)
    name = regime or ("pretrained" if trainer.max_epochs == 0 else str(getattr(datamodule, "regime", "brain")))
    description = datamodule.describe()
    truth = [bool(datamodule.store.subject(subject).truth) for subject in datamodule.subjects]
    left_out = "; ".join(f"{name}: {reason}" for name, reason in datamodule.store.left_out.items()) or "nothing"
    n_steps = count_planned_steps(trainer)
    trial = trial_said(trainer)
    short = "" if trial else too_short_said(n_steps, count_steps_per_epoch(trainer))
    n_trained = sum(parameter.numel() for parameter in pl_module.backbone.parameters() if parameter.requires_grad)
    return {
        "regime": name,
        "regime_words": REGIMES.get(name, name),
        "control": name == "permuted",
        "simulated": all(truth),
        "model": f"{model_words(pl_module.backbone)}, {n_trained / 1e6:.2f} M trained",
        "data": _data_words(datamodule, description),
        "data_facts": {**datamodule.store.facts, "left out": left_out},
        "training": _training_words(trainer, pl_module, datamodule, description),
        "planned_steps": n_steps,
        "trial": trial,
        "warnings": [said for said in (short, *parts_said(trainer)) if said],
        "tune": ", ".join(description["roles"].get("tune", [])),
        "data_module": description,
        "backbone": pl_module.backbone.describe(),
    }


def trial_said(trainer: pl.Trainer) -> str | None:
    """What a run was that only shows that its parts work together; None where it was none."""
    n_batches = int(getattr(trainer, "fast_dev_run", 0))
    if not n_batches:
        return None
    return (
        f"A trial run (fast_dev_run: {n_batches} batch{'es' * (n_batches > 1)} of training, no checkpoint): it shows"
        " that everything works together, and nothing about the brain. Its numbers are no results."
    )


def parts_said(trainer: pl.Trainer) -> list[str]:
    """What a run left out of its training, its validation or its record because its trainer was told to."""
    if trial_said(trainer):
        return []
    said = []
    trains = trainer.max_epochs != 0
    for name, what in (("train", "trained on"), ("val", "validated on")) if trains else ():
        limit = getattr(trainer, f"limit_{name}_batches")
        if not isinstance(limit, float) or limit != 1.0:  # a float is a share of the batches, an int a count
            part = "none" if not limit else f"{limit:.0%}" if isinstance(limit, float) else f"at most {limit}"
            option = f"--trainer.limit_{name}_batches {limit:g}"
            said.append(f"{option}: {part} of the batches of an epoch {'is' if limit == 1 else 'are'} {what}.")
    if not trainer.loggers:
        said.append(
            "--trainer.logger false: nothing was logged, so there are no curves, and whether training ended better than"
            " the mean of every target is not known."
        )
    return said


def _went_on(trainer: pl.Trainer, path: Path) -> dict[str, str]:
    """The checkpoint of another run that this one went on from, also after it was interrupted itself."""
    checkpoint = trainer.ckpt_path
    if checkpoint is not None and not Path(checkpoint).resolve().is_relative_to(path.resolve()):
        return {"went_on_from": str(checkpoint)}
    earlier = read_json(path / RUN_FILE) if checkpoint is not None and (path / RUN_FILE).is_file() else {}
    return {"went_on_from": earlier["went_on_from"]} if "went_on_from" in earlier else {}


def _probes_before(trainer: pl.Trainer, path: Path) -> dict[str, dict[str, str]]:
    """Where the probes before training came from, by the name of their data; also after an interruption."""
    probes = {str(one.name or MAIN): one.before for one in trainer.callbacks if isinstance(one, BandedRidgeProbe)}  # type: ignore[attr-defined]
    written = read_json(path / RUN_FILE).get(PROBES_BEFORE, {}) if (path / RUN_FILE).is_file() else {}
    found = {name: words or written.get(name, "") for name, words in probes.items()}
    said = {name: words for name, words in found.items() if words}
    return {PROBES_BEFORE: said} if said else {}


def model_words(backbone: SpeechBackbone) -> str:
    """Family, weights and size of a speech model."""
    about, n_all = backbone.describe(), sum(parameter.numel() for parameter in backbone.parameters())
    size = f"{backbone.n_layers} layers of {backbone.hidden_size}, {n_all / 1e6:.2f} M parameters"
    return f"{about.get('family')} ({about.get('weights')}), {size}"


def _data_words(datamodule: StoryDataModule, description: dict[str, Any]) -> str:
    minutes = ", ".join(f"{hours * 60:.0f} min {role}" for role, hours in description["hours"].items())
    held_out = [f"not tuned on: {', '.join(names)}" for names in [description.get("held_out_subjects")] if names]
    masked = [f"{n} voxels of {name} masked (no data)" for name, n in description["n_masked_voxels"].items() if n]
    return "; ".join([f"{datamodule.store.name}, TR {datamodule.tr_s:g} s, {minutes}", *held_out, *masked])


def _training_words(
    trainer: pl.Trainer, pl_module: Any, datamodule: StoryDataModule, description: dict[str, Any]
) -> str:
    precision, threads = trainer.precision, torch.get_num_threads()
    named = ", ".join(_settings_words(pl_module.hparams))
    return (
        f"{trainer.max_epochs} epochs, batches of {datamodule.batch_size} windows of {description['window_s']:g} s,"
        f" {named}, precision {precision}, {threads} threads"
    )


def _settings_words(settings: Mapping[str, Any]) -> list[str]:
    """How the model was trained, as far as it says so."""
    named = ("layer", "backbone_lr", "head_lr", "backbone_mode")
    values = {key: settings[key] for key in named if key in settings}
    words = [f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()]
    for key, names in NESTED.items():
        values = settings.get(key) or {}
        words += [f"{key} {' '.join(str(values[name]) for name in names if name in values)}"] if values else []
    words.append(_trained_words(settings))
    objective = settings.get("objective") or {}
    weights = [f"{objective[name]:g} {name}" for name in ("targets", "self_supervised", "ctc") if objective.get(name)]
    return [*words, *([f"objective {' + '.join(weights)}"] if weights else [])]


def _trained_words(settings: Mapping[str, Any]) -> str:
    """LoRA, or all weights, and what is left out of them."""
    lora, trainable = settings.get("lora") or {}, settings.get("trainable") or {}
    if trains_the_head_alone(trainable):
        return "the head alone, all weights of the backbone frozen"
    limits = ("first_layer", "last_layer", "upper_layers", "projection")
    left = ", ".join(f"{name} {trainable[name]}" for name in limits if trainable.get(name) not in (None, True))
    of = f"LoRA of rank {lora['rank']}" if lora.get("rank") else "all weights above the front end"
    return f"{of}, but {left}" if left else of
