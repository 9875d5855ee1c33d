"""The LightningDataModule: builds the store if need be, gives out windows of each role, and knows its own numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from brainlit.datamodules.targets import PermutedTargets, TargetSource, VoxelTargets
from brainlit.datamodules.voxels import heard_any, select_voxels
from brainlit.datamodules.windows import (
    EpochWindows,
    Window,
    WindowBatch,
    WindowConfig,
    WindowDataset,
    evaluation_windows,
    keep_batch,
    training_windows,
)
from brainlit.encoding.ceiling import CeilingMethod
from brainlit.encoding.roles import Roles, Span, make_roles
from brainlit.features import FeatureConfig
from brainlit.store import StoryStore, build_store
from brainlit.store.schema import unknown_name
from brainlit.stories import StorySource

logger = logging.getLogger(__name__)

MAX_DELAY_TRS = 4
"""Longest delay (in TRs) that the default purge leaves room for."""
DEFAULT_WINDOW = WindowConfig()
DEFAULT_FEATURES = FeatureConfig()


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
    purge_trs : int or None
        Rows to keep between spans of different roles in one story; None: context, shift and four TRs of delay.
    allow : list of str or None
        Pairs of roles that may share rows, in words: 'fit and choose'.
    subjects : list of str or None
        Whom to tune on; None takes all subjects of the source.
    features : FeatureConfig
        The feature spaces that the store holds for the probes.
    batch_size : int
        Windows per batch.
    num_workers : int
        Processes that read ahead; 0 reads in this one (reading is seldom what takes the time).
    seed : int
        Decides windows and order of every epoch, and the permutation.
    min_ceiling : float or None
        Tune only on voxels whose noise ceiling, measured on the repeats of the 'choose' spans, is above this (and
        whose signal is beyond chance); None tunes on all voxels that are finite and vary.
    ceiling_method : 'signal_power', 'split_half' or 'explainable_variance'
        How that ceiling is estimated; `brainlit.encoding.ceiling` has the formulas.
    regime : 'brain' or 'permuted'
        Predict the responses, or (the matched control) the tuning responses block-permuted in time. Validation and
        later stages always see the responses themselves.
    permute_block_trs : int
        Length of the blocks that change places.

    Attributes
    ----------
    store : StoryStore
    roles : Roles
    story_names : list of str
        What `story` in a batch counts.
    subjects : list of str
    target_voxels : dict of subject to int array
        Columns of the responses that are targets.
    target_sizes : dict of subject to int
    n_bins, context_trs : int
    tr_s : float
        These exist after `setup`.
    """

    store: StoryStore
    roles: Roles
    story_names: list[str]
    subjects: list[str]
    target_voxels: dict[str, npt.NDArray[np.int64]]
    target_sizes: dict[str, int]
    n_bins: int
    context_trs: int
    tr_s: float

    def __init__(
        self,
        source: StorySource,
        store_dir: str,
        window: WindowConfig = DEFAULT_WINDOW,
        roles: dict[str, list[str]] | None = None,
        purge_trs: int | None = None,
        allow: list[str] | None = None,
        subjects: list[str] | None = None,
        features: FeatureConfig = DEFAULT_FEATURES,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        min_ceiling: float | None = None,
        ceiling_method: CeilingMethod = "signal_power",
        regime: Literal["brain", "permuted"] = "brain",
        permute_block_trs: int = 10,
    ) -> None:
        super().__init__()
        if regime not in ("brain", "permuted"):
            raise ValueError(f"regime is {regime!r}; 'brain' and 'permuted' are the regimes of this data module.")
        if batch_size < 1 or num_workers < 0:
            raise ValueError(f"batch_size is {batch_size} and num_workers {num_workers}; need at least 1 and 0.")
        self.source, self.store_dir, self.window, self.features = source, store_dir, window, features
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.min_ceiling, self.ceiling_method = min_ceiling, ceiling_method
        self.regime, self.permute_block_trs = regime, permute_block_trs
        self._asked_roles, self._asked_purge_trs, self._asked_subjects = roles, purge_trs, subjects
        self._allow = tuple(allow or ())
        self._targets: TargetSource | None = None

    def prepare_data(self) -> None:
        """Build the store, or see that it is there and was made with the source's settings."""
        build_store(self.source, Path(self.store_dir), features=self.features).close()

    def setup(self, stage: str | None = None) -> None:
        """Open the store and settle roles, subjects and voxels; the same for every stage, so done once."""
        if self._targets is not None:
            return
        self.store = StoryStore.open(Path(self.store_dir))
        self.tr_s, self.story_names = self.store.tr_s, self.store.story_names
        self.context_trs = self.window.context_trs(self.tr_s)
        self.n_bins = self.context_trs + self.window.n_trs
        self.roles = self._settle_roles()
        self.subjects = self._settle_subjects()
        self.target_voxels = {
            subject: select_voxels(
                self.store, subject, self.roles.spans("choose"), self.min_ceiling, self.ceiling_method
            )
            for subject in self.subjects
        }
        self._responses = VoxelTargets(self.store, self.target_voxels)
        self.target_sizes = dict(self._responses.sizes)
        self._targets = self._tuning_targets()

    def train_dataloader(self) -> DataLoader[Window]:
        """Windows of the 'tune' spans, in a new order each epoch; stories are mixed within batches."""
        dataset = self._dataset([], self._targets_of_tuning())
        sampler = EpochWindows(self._tune_spans(), self.window, self.seed)
        return self._loader(dataset, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Window] | list[Any]:
        """Each row of the 'choose' spans that a subject heard, once; no loader if there are none."""
        spans = self._heard_spans("choose")
        return self._evaluation_loader(spans) if spans else []

    def test_dataloader(self) -> DataLoader[Window]:
        """Each row of the 'score' spans once."""
        return self._evaluation_loader(self.roles.spans("score"))

    def predict_dataloader(self) -> DataLoader[Window]:
        """Each row of the 'score' spans once."""
        return self._evaluation_loader(self.roles.spans("score"))

    def evaluation_batches(
        self, spans: Sequence[Span], batch_size: int | None = None, window: WindowConfig | None = None
    ) -> Iterator[WindowBatch]:
        """Batches in which each row of the spans has row_mask True exactly once, in order.

        Parameters
        ----------
        batch_size : int or None
            None takes the data module's.
        window : WindowConfig or None
            Other windows than those of training, say one per TR; None takes the data module's.
        """
        dataset = self._dataset([], self._targets_of_responses(), window)
        windows, step = evaluation_windows(spans, dataset.config.n_trs), batch_size or self.batch_size
        for start in range(0, len(windows), step):
            yield dataset.read(windows[start : start + step])

    def describe(self) -> dict[str, Any]:
        """Numbers for logs and records, as plain JSON values: windows, hours, subjects, voxels, roles."""
        self._require_setup()
        windows = training_windows(self._heard_spans("tune"), self.window, None)
        return {
            "store": self.store.name,
            "store_fingerprint": self.store.fingerprint,
            "regime": self.regime,
            "seed": self.seed,
            "subjects": list(self.subjects),
            "n_train_windows": len(windows),
            "n_train_rows": sum(window.stop_tr - window.start_tr for window in windows),
            "window_s": self.window.n_trs * self.tr_s + self.window.context_s,
            "hours": {role: round(self.roles.n_trs(role) * self.tr_s / 3600, 4) for role in self.roles.by_role},
            "roles": self.roles.as_text(),
            "purge_trs": self.roles.purge_trs,
            "n_targets": dict(self.target_sizes),
            "n_masked_voxels": {name: int((~self.store.good_voxels(name)).sum()) for name in self.subjects},
            "min_ceiling": self.min_ceiling,
            "ceiling_method": self.ceiling_method,
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint remembers of the data."""
        return {"store_fingerprint": self.store.fingerprint, "seed": self.seed, "regime": self.regime}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Say so in the log where a run is resumed on other data than it began with."""
        for key, now in self.state_dict().items():
            if state_dict.get(key, now) != now:
                logger.warning("the checkpoint was made with %s=%s, this run has %s", key, state_dict[key], now)

    # Parts of setup

    def _settle_roles(self) -> Roles:
        asked = self.source.default_roles() if self._asked_roles is None else self._asked_roles
        purge_trs = self._asked_purge_trs
        if purge_trs is None:
            purge_trs = self.window.purge_trs(self.tr_s, MAX_DELAY_TRS)
        n_trs_of = {story: self.store.n_trs(story) for story in self.story_names}
        return make_roles(asked, n_trs_of, purge_trs, self._allow)

    def _settle_subjects(self) -> list[str]:
        subjects = self._usable_subjects() if self._asked_subjects is None else list(self._asked_subjects)
        if not subjects or len(set(subjects)) < len(subjects):
            raise ValueError(f"subjects are {subjects}; name each subject once, and at least one.")
        for subject in subjects:
            if subject not in self.store.subject_names:
                raise unknown_name("subject", subject, self.store.subject_names)
            tune = self.roles.stories("tune")
            if tune and not heard_any(self.store, subject, tune):
                raise ValueError(
                    f"subject {subject!r} heard none of the stories to tune on ({', '.join(tune)}), but"
                    f" {', '.join(self.store.heard(subject))}. Leave the subject out or tune on one of those."
                )
        return subjects

    def _usable_subjects(self) -> list[str]:
        return [name for name in self.source.subject_names() if name in self.store.subject_names]

    def _tuning_targets(self) -> TargetSource:
        if self.regime == "brain" or not self.roles.spans("tune"):
            return self._responses
        return PermutedTargets(self._responses, self.roles.spans("tune"), self.permute_block_trs, self.seed)

    # Parts of the loaders

    def _targets_of_tuning(self) -> TargetSource:
        self._require_setup()
        assert self._targets is not None
        return self._targets

    def _targets_of_responses(self) -> VoxelTargets:
        self._require_setup()
        return self._responses

    def _require_setup(self) -> None:
        if self._targets is None:
            raise RuntimeError("the data module is not set up; call prepare_data() and setup() first.")

    def _heard_spans(self, role: str) -> list[Span]:
        """The spans of a role that at least one subject heard."""
        spans = self.roles.spans(role)
        return [span for span in spans if any(heard_any(self.store, name, [span.story]) for name in self.subjects)]

    def _tune_spans(self) -> list[Span]:
        self._require_setup()
        spans = self._heard_spans("tune")
        if not spans:
            raise ValueError("no spans to tune on: give the role 'tune' a story that a subject heard.")
        return spans

    def _dataset(
        self, windows: Sequence[Window], targets: TargetSource, config: WindowConfig | None = None
    ) -> WindowDataset:
        return WindowDataset(self.store, config or self.window, windows, targets)

    def _evaluation_loader(self, spans: Sequence[Span]) -> DataLoader[Window]:
        targets = self._targets_of_responses()
        return self._loader(self._dataset(evaluation_windows(spans, self.window.n_trs), targets))

    def _loader(self, dataset: WindowDataset, sampler: EpochWindows | None = None) -> DataLoader[Window]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=keep_batch,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )
