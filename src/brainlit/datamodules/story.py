"""The LightningDataModule: builds the store if need be, gives out windows of each role, and knows its own numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from brainlit.datamodules.dataset import NoTargets, StepLoader, TargetSource, WindowDataset, evaluation_loader
from brainlit.datamodules.folds import AskedFolds, settle_folds, spans_by_role
from brainlit.datamodules.regimes import TargetChoice
from brainlit.datamodules.selection import (
    common_columns,
    heard_any,
    require_heard,
    select_voxels,
    settle_roles,
    settle_subjects,
    voxel_ceilings,
    with_fraction,
)
from brainlit.datamodules.targets.config import (
    REGIMES,
    ControlConfig,
    LanguageTargetsConfig,
    Regime,
    RepresentationConfig,
    SpeechTargetsConfig,
    require_choice,
)
from brainlit.datamodules.targets.stored import VoxelTargets
from brainlit.datamodules.windows import (
    EpochSteps,
    EvaluationSteps,
    WindowBatch,
    WindowConfig,
    evaluation_windows,
    training_windows,
)
from brainlit.encoding.arrays import FloatArray, IntArray
from brainlit.encoding.ceiling import CeilingMethod
from brainlit.features import FeatureConfig
from brainlit.splits import Roles, Span
from brainlit.store import StoryStore, build_store
from brainlit.stories import StorySource

logger = logging.getLogger(__name__)

SubjectSteps = Literal["together", "sequential"]

_MAX_DELAY_TRS = 4
"""Longest delay (in TRs) that the default purge leaves room for."""
DEFAULT_WINDOW = WindowConfig()
DEFAULT_FEATURES = FeatureConfig()
DEFAULT_CONTROL = ControlConfig()
DEFAULT_REPRESENTATION = RepresentationConfig()
DEFAULT_LANGUAGE_MODEL = LanguageTargetsConfig()
DEFAULT_SPEECH_MODEL = SpeechTargetsConfig()


class StoryDataModule(L.LightningDataModule):
    """Windows of sound with the responses of every subject who heard them.

    Parameters
    ----------
    source : StorySource
        The data set.
    store_dir : str
        Folder of its store; built when it is not there, refused when it was made with other settings.
    window : WindowConfig
        How much of a story one item holds.
    roles : dict of role to list of str, or None
        Which stories, or spans such as 'alice[0:120]', tune, fit, choose and score; None takes the source's own.
        With {folds: 5, purge: auto} every row is scored once, by encoding models fitted on the other folds: see
        `datamodules.folds`. What is tuned on or chosen by is named apart, as tune and choose, and never scored.
    purge_trs : int or None
        Rows to keep between spans of different roles in one story; None: context, shift and four TRs of delay.
    allow : list of str or None
        Pairs of roles that may share rows, in words: 'fit and choose'.
    subjects : list of str or None
        Whom to tune on; None takes all subjects of the source.
    features : FeatureConfig
        The feature spaces that the store holds for the probes.
    batch_size : int
        Windows per batch of each process: an optimiser step sees as many times more as there are processes (devices)
        and accumulated batches.
    num_workers : int
        Processes that read ahead; 0 reads in this one (reading is seldom what takes the time).
    seed : int
        Decides windows and order of every epoch, the control and which stories a fraction takes.
    min_ceiling : float or None
        Tune only on voxels whose noise ceiling, measured on the repeats of the 'choose' spans, is above this (and
        whose signal is beyond chance); None tunes on all voxels that are finite and vary.
    ceiling_method : 'signal_power', 'split_half' or 'explainable_variance'
        How that ceiling is estimated; `brainlit.encoding.ceiling` has the formulas.
    common_voxels : bool
        Tune only on voxels chosen in every subject, as shared heads need; all must be in one space (as many voxels).
    regime : str
        What is predicted. brain: the responses. permuted: the tuning responses without their match to the sound, as
        `control` says; validation and test see the real ones. language_model, large_speech_model: hidden states of
        another model, made to match the responses in number and variance, in tuning, validation and test alike, for
        that is what the head predicts. stimulus, pretrained: the responses are there but not tuned on.
    control : ControlConfig
        How 'permuted' takes the responses away from the sound.
    representation : RepresentationConfig
        How hidden states of another model become targets.
    language_model : LanguageTargetsConfig
        The text model of regime 'language_model'.
    speech_model : SpeechTargetsConfig
        The speech model of regime 'large_speech_model'.
    held_out_subjects : list of str or None
        Subjects who are probed and not tuned on.
    subject_steps : 'together' or 'sequential'
        One training step for all subjects of a batch of windows, or one after the other for each who heard it.
    tune_fraction : float
        Share of the tuning rows to use: whole stories in an order drawn from the seed, the last one cut, so that a
        smaller share is part of a larger one.

    Attributes
    ----------
    store : StoryStore
    roles : Roles
    story_names : list of str
        What `story` in a batch counts.
    subjects : list of str
        Those who are tuned on.
    probed_subjects : list of str
        Those, and those who are held out.
    target_voxels : dict of subject to int array
        Columns of the responses that are targets (or that targets match).
    target_sizes : dict of subject to int
        What the head predicts: the targets of the regime, by subject, or by the regime's name where
        `representation.dimension` is not voxels.
    target_columns : dict of subject to int array, or None
        Columns that each subject's targets stand for; None where the targets are no subject's.
    n_bins, context_trs : int
    tr_s : float
        These exist after `setup`.
    """

    store: StoryStore
    roles: Roles
    story_names: list[str]
    subjects: list[str]
    probed_subjects: list[str]
    target_voxels: dict[str, IntArray]
    target_sizes: dict[str, int]
    target_columns: dict[str, IntArray] | None
    n_bins: int
    context_trs: int
    tr_s: float

    def __init__(
        self,
        source: StorySource,
        store_dir: str,
        window: WindowConfig = DEFAULT_WINDOW,
        roles: dict[str, list[str] | int | float | Literal["auto"]] | None = None,
        purge_trs: int | None = None,
        allow: list[str] | None = None,
        subjects: list[str] | None = None,
        features: FeatureConfig = DEFAULT_FEATURES,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        min_ceiling: float | None = None,
        ceiling_method: CeilingMethod = "signal_power",
        common_voxels: bool = False,
        regime: Regime = "brain",
        control: ControlConfig = DEFAULT_CONTROL,
        representation: RepresentationConfig = DEFAULT_REPRESENTATION,
        language_model: LanguageTargetsConfig = DEFAULT_LANGUAGE_MODEL,
        speech_model: SpeechTargetsConfig = DEFAULT_SPEECH_MODEL,
        held_out_subjects: list[str] | None = None,
        subject_steps: SubjectSteps = "together",
        tune_fraction: float = 1.0,
    ) -> None:
        super().__init__()
        require_choice("regime", regime, REGIMES)
        require_choice("subject_steps", subject_steps, get_args(SubjectSteps))
        if not 0 < tune_fraction <= 1:
            raise ValueError(f"tune_fraction is {tune_fraction}; it is a share of the tuning rows, above 0, up to 1.")
        if batch_size < 1 or num_workers < 0:
            raise ValueError(f"batch_size is {batch_size} and num_workers {num_workers}; need at least 1 and 0.")
        self.source, self.store_dir, self.window, self.features = source, store_dir, window, features
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.min_ceiling, self.ceiling_method, self.common_voxels = min_ceiling, ceiling_method, common_voxels
        self._choice = TargetChoice(regime, control, representation, language_model, speech_model)
        self.regime, self.held_out_subjects = regime, list(held_out_subjects or ())
        self.subject_steps, self.tune_fraction = subject_steps, tune_fraction
        self._asked_roles, self._asked_purge_trs, self._asked_subjects = roles, purge_trs, subjects
        self._allow = tuple(allow or ())
        self._asked_folds = None if roles is None or "folds" not in roles else AskedFolds.read(roles, self._allow)
        self._only_probed = False
        self.not_tuned_on: list[str] = []
        self._targets: tuple[TargetSource, TargetSource] | None = None
        self._place_to_resume: dict[str, Any] | None = None

    def only_probe(self) -> None:
        """Do without the role 'tune', whatever it holds (`not_tuned_on` remembers); to be said before setup."""
        self._only_probed = True
        if self._asked_folds is None:
            self.not_tuned_on = list(self._roles_to_settle().get("tune", []))
        else:  # what is scored stays the same, with or without tuning
            self.not_tuned_on = list(self._asked_folds.apart.get("tune", []))

    def prepare_data(self) -> None:
        """Build the store, or see that it is there and was made with the source's settings."""
        build_store(self.source, Path(self.store_dir), features=self.features).close()

    def setup(self, stage: str | None = None) -> None:
        """Open the store and settle roles, subjects, voxels and targets; the same for every stage, so done once.

        Raises
        ------
        ValueError
            As what it settles does, and if a run is to tune on data with folds that name nothing to tune on.
        """
        if self._targets is None:
            self._settle()
        if stage == "fit" and self.roles.folds is not None and self.regime != "pretrained":
            self._tune_spans()  # before a probe has taken its time

    def _settle(self) -> None:
        self.store = StoryStore.open(Path(self.store_dir))
        self.tr_s, self.story_names = self.store.tr_s, self.store.story_names
        self.context_trs = self.window.context_trs(self.tr_s)
        self.n_bins = self.context_trs + self.window.n_trs
        usable = [name for name in self.source.subject_names() if name in self.store.subject_names]
        self.roles = self._settle_roles()
        self.subjects = settle_subjects(self.store, usable, self._asked_subjects, self.held_out_subjects)
        require_heard(self.store, self.subjects, self.roles.stories("tune"))
        self.roles = with_fraction(self.roles, self._heard_spans("tune"), self.tune_fraction, self.seed)
        require_heard(self.store, self.subjects, self.roles.stories("tune"))
        self.probed_subjects = [*self.subjects, *self.held_out_subjects]
        self.target_voxels = self._choose_voxels()
        self._responses = VoxelTargets(self.store, self.target_voxels)
        self._targets = self._choice.targets(self._responses, self.roles, self.window, self.seed)
        self.target_sizes = dict(self._targets[0].sizes)
        self.target_columns = self.target_voxels if set(self.target_sizes) == set(self.subjects) else None

    @cached_property
    def target_ceilings(self) -> dict[str, FloatArray]:
        """Noise ceilings (highest reachable r) of each subject's targets, measured on the repeats of 'choose'.

        NaN for a voxel whose repeats do not agree. Computed when first asked for.

        Raises
        ------
        ValueError
            If the targets are no responses, or a subject heard no 'choose' span repeatedly.
        """
        self._require_setup()
        if self._targets is None or self._targets[1] is not self._responses:
            raise ValueError(
                f"targets of regime {self.regime!r} are no responses, so they have no noise ceiling; take a loss that"
                " needs none."
            )
        choose, method = self.roles.spans("choose"), self.ceiling_method
        return {
            subject: voxel_ceilings(self.store, subject, choose, method)[columns]
            for subject, columns in self.target_voxels.items()
        }

    # Loaders

    def train_dataloader(self) -> StepLoader:
        """Windows of the 'tune' spans, in a new order each epoch; stories are mixed within batches.

        The first loader after a checkpoint was loaded goes on where that one's was. Lightning does the same for its
        loaders, but not where the length of the run was asked for (estimated_stepping_batches) before its loops were
        restored.
        """
        loader = self._training_loader(*self._process())
        place, self._place_to_resume = self._place_to_resume, None
        if place is not None:
            loader.load_state_dict(place)
        return loader

    def undivided_train_dataloader(self) -> StepLoader:
        """The windows of the first epoch, all of them in every process: for what is measured before training."""
        return self._training_loader(0, 1)

    def val_dataloader(self) -> DataLoader[WindowBatch] | list[Any]:
        """Each row of the 'choose' spans that a subject heard, once; no loader if there are none."""
        spans = self._heard_spans("choose")
        return self._evaluation_loader(spans) if spans else []

    def test_dataloader(self) -> DataLoader[WindowBatch]:
        """Each row of the 'score' spans once."""
        return self._evaluation_loader(self.roles.spans("score"))

    predict_dataloader = test_dataloader

    def evaluation_batches(
        self,
        spans: Sequence[Span],
        batch_size: int | None = None,
        window: WindowConfig | None = None,
        with_targets: bool = True,
    ) -> Iterator[WindowBatch]:
        """Batches in which each row of the spans has row_mask True exactly once, in order; targets are responses.

        Parameters
        ----------
        batch_size : int or None
            None takes the data module's.
        window : WindowConfig or None
            Other windows than those of training, say one per TR; None takes the data module's.
        with_targets : bool
            Without, batches hold no targets, and spans may begin before the first row (negative numbers), where the
            sound does.
        """
        self._require_setup()
        targets = self._responses if with_targets else NoTargets()
        dataset = WindowDataset(self.store, window or self.window, targets)
        windows, step = evaluation_windows(spans, dataset.config.n_trs), batch_size or self.batch_size
        for start in range(0, len(windows), step):
            yield dataset.read(windows[start : start + step])

    def tuning_texts(self) -> list[str]:
        """The words of each story that is tuned on, in lower case with spaces between them."""
        stories = dict.fromkeys(span.story for span in self._tune_spans())
        return [" ".join(self.store.words(story).labels).lower() for story in stories]

    # What is remembered

    def describe(self) -> dict[str, Any]:
        """Numbers for logs and records, as plain JSON values: windows, hours, subjects, voxels, roles, targets."""
        self._require_setup()
        windows = training_windows(self._heard_spans("tune"), self.window, None)
        return {
            "store": self.store.name,
            "store_fingerprint": self.store.fingerprint,
            "regime": self.regime,
            "targets": self._choice.settings(),
            "seed": self.seed,
            "subjects": list(self.subjects),
            "members": {
                name: {story: len(names) for story, names in members.items()}
                for name in self.probed_subjects
                if (members := self.store.members(name))
            },
            "held_out_subjects": list(self.held_out_subjects),
            "subject_steps": self.subject_steps,
            "n_train_windows": len(windows),
            "n_train_rows": sum(window.stop_tr - window.start_tr for window in windows),
            "tune_fraction": self.tune_fraction,
            "window_s": self.window.n_trs * self.tr_s + self.window.context_s,
            "hours": {role: round(self.roles.n_trs(role) * self.tr_s / 3600, 4) for role in self.roles.by_role},
            "rows": {role: self.roles.n_trs(role) for role in self.roles.by_role},
            "roles": self.roles.as_text(),
            "purge_trs": self.roles.purge_trs,
            "n_folds": None if self.roles.folds is None else len(self.roles.folds),
            "n_targets": dict(self.target_sizes),
            "n_masked_voxels": {name: int((~self.store.good_voxels(name)).sum()) for name in self.subjects},
            "min_ceiling": self.min_ceiling,
            "ceiling_method": self.ceiling_method,
            "common_voxels": self.common_voxels,
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint remembers of the data: all that decides the batches, and the place in the epoch."""
        return {**self._identity(), "train_loader": self._place_in_epoch()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was made; refuse to train on with other batches than it began with.

        Raises
        ------
        ValueError
            If a run is resumed with other data, targets, windows, batches or subjects.
        """
        _require_same(state_dict, self._identity(), self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING)
        self._place_to_resume = state_dict.get("train_loader")

    def _identity(self) -> dict[str, Any]:
        return {
            "store_fingerprint": self.store.fingerprint,
            "regime": self.regime,
            "targets": self._choice.settings(),
            "seed": self.seed,
            "subjects": list(self.subjects),
            "subject_steps": self.subject_steps,
            "tune_fraction": self.tune_fraction,
            "tune": [str(span) for span in self.roles.spans("tune")],
            "window": asdict(self.window),
            "batch_size": self.batch_size,
        }

    def _place_in_epoch(self) -> dict[str, Any] | None:
        loader = None if self.trainer is None else self.trainer.train_dataloader
        return loader.state_dict() if isinstance(loader, StepLoader) else None

    # Parts of setup

    def _roles_to_settle(self) -> Mapping[str, Sequence[str]]:
        return self.source.default_roles() if self._asked_roles is None else spans_by_role(self._asked_roles)

    def _settle_roles(self) -> Roles:
        own_trs = self.window.purge_trs(self.tr_s, _MAX_DELAY_TRS)
        purge_trs = own_trs if self._asked_purge_trs is None else self._asked_purge_trs
        if self._asked_folds is not None:
            roles = settle_folds(self.store, self._asked_folds, purge_trs, self._allow)
            kept = {role: spans for role, spans in roles.by_role.items() if not (self._only_probed and role == "tune")}
            return replace(roles, by_role=kept)
        asked = dict(self._roles_to_settle())
        if self._only_probed:
            asked.pop("tune", None)
        return settle_roles(self.store, asked, purge_trs, self._allow)

    def _choose_voxels(self) -> dict[str, IntArray]:
        how = (self.roles.spans("choose"), self.min_ceiling, self.ceiling_method)
        chosen = {subject: select_voxels(self.store, subject, *how) for subject in self.subjects}
        return common_columns(self.store, chosen) if self.common_voxels else chosen

    # Parts of the loaders

    def _require_setup(self) -> None:
        if self._targets is None:
            raise RuntimeError("the data module is not set up; call prepare_data() and setup() first.")

    def _sources(self) -> tuple[TargetSource, TargetSource]:
        """Targets of tuning, and of validation and test."""
        self._require_setup()
        assert self._targets is not None
        return self._targets

    def _heard_spans(self, role: str) -> list[Span]:
        """The spans of a role that at least one subject heard."""
        spans = self.roles.spans(role)
        return [span for span in spans if any(heard_any(self.store, name, [span.story]) for name in self.subjects)]

    def _tune_spans(self) -> list[Span]:
        spans = self._heard_spans("tune")
        if not spans and self.roles.folds is not None:
            raise ValueError(
                "roles has folds and nothing to tune on. What is tuned on is named apart and never scored: give"
                " roles.tune stories or spans (and roles.choose others), or probe an untuned model: brainlit probe."
            )
        if not spans:
            raise ValueError("no spans to tune on: give the role 'tune' a story that a subject heard.")
        return spans

    def _hearers(self, story: str) -> tuple[str, ...]:
        """Whose targets there are for a story."""
        targets = self._sources()[0]
        return tuple(name for name in targets.sizes if targets.heard(name, story))

    def _training_loader(self, rank: int, n_ranks: int) -> StepLoader:
        targets, spans = self._sources()[0], self._tune_spans()
        dataset = WindowDataset(self.store, self.window, targets)
        hearers = self._hearers if self.subject_steps == "sequential" else None
        steps = EpochSteps(spans, self.window, self.seed, self.batch_size, hearers, rank, n_ranks)
        return StepLoader(dataset, steps, self.num_workers)

    def _evaluation_loader(self, spans: Sequence[Span]) -> DataLoader[WindowBatch]:
        windows = evaluation_windows(spans, self.window.n_trs)
        dataset = WindowDataset(self.store, self.window, self._sources()[1])
        steps = EvaluationSteps(windows, self.batch_size, *self._process())
        return evaluation_loader(dataset, steps, self.num_workers)

    def _process(self) -> tuple[int, int]:
        """Which process of the run this is, of how many."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], to_train: bool) -> None:
    """Refuse to train on with other data than a run began with; for evaluation say so in the log.

    What the checkpoint does not know is taken to be the same; a ValueError names the first setting that differs and
    both values.
    """
    for key, value in now.items():
        earlier = before.get(key, value)
        if earlier == value:
            continue
        if to_train:
            raise ValueError(
                f"the checkpoint was made with {key} {earlier}, and this run has {value}: a run goes on with the data"
                " it began with. Give the checkpoint's setting, or start a new run."
            )
        logger.warning("the checkpoint was made with %s %s, this run has %s", key, earlier, value)
