"""What a probe looks at: the model as a probe sees it, and a subject's responses and stimulus bands from the store.

Whatever a probe does to global state (random numbers, train/eval modes, torch's threads) is put back.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from brainlit.datamodules.selection import span_signal
from brainlit.encoding.arrays import BoolArray, Float32Array, IntArray
from brainlit.encoding.ceiling import ceiling_of_rows
from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.folds import FoldRows
from brainlit.encoding.temporal import TemporalBand
from brainlit.features import sub_band_columns
from brainlit.hints import did_you_mean
from brainlit.probing.folds import FoldPlan
from brainlit.probing.temporal_rows import TemporalForm, stimulus_rows
from brainlit.results.scores import ALL_VOXELS, regions_with_all
from brainlit.splits import Span
from brainlit.store import StoryStore
from brainlit.store.between_members import between_members

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from brainlit.datamodules import StoryDataModule
    from brainlit.stories.base import FeatureKind


class ProbedBackbone(Protocol):
    """What a probe needs of a backbone."""

    @property
    def n_layers(self) -> int:
        """Layers; there is one hidden state more."""
        ...


class ProbedModule(Protocol):
    """What a probe needs of an nn.Module, such as `BrainTuning`."""

    @property
    def backbone(self) -> ProbedBackbone:
        """The speech model."""
        ...

    def pooled_states(self, batch: dict[str, Any], layers: Sequence[int]) -> Tensor:
        """Tensor of shape (n_layers_asked, batch, n_bins, hidden_size)."""
        ...


def probed(module: pl.LightningModule) -> ProbedModule:
    """The module that a trainer trains, as a probe sees it."""
    return cast("ProbedModule", module)


def datamodule_of(trainer: pl.Trainer) -> StoryDataModule:
    """The data that a trainer trains on."""
    return cast("StoryDataModule", trainer.datamodule)  # type: ignore[attr-defined]


def resolve_layers(asked: str | Sequence[int], module: ProbedModule) -> list[int]:
    """Hidden states counted from 0, each once, in order; 'all' are all, negative numbers count from the end.

    Raises
    ------
    ValueError
        If one does not exist.
    """
    n_states = module.backbone.n_layers + 1
    return sorted({from_start(int(k), n_states) for k in (range(n_states) if asked == "all" else asked)})


def from_start(layer: int, n_states: int) -> int:
    """The number of a hidden state counted from 0.

    Raises
    ------
    ValueError
        If it does not exist.
    """
    if not -n_states <= layer < n_states:
        raise ValueError(f"layer {layer} does not exist: the backbone has hidden states 0..{n_states - 1}.")
    return layer % n_states


# --- What the store holds ---


@dataclass(frozen=True)
class ProbeData:
    """Rows of the spans that one subject heard, fit spans first.

    Parameters
    ----------
    rows : bool array of shape (n_rows_of_all_spans,)
        Which rows of the features this subject heard.
    stimulus : mapping of band or sub-band to float32 array (n_trs, n_features), or to a TemporalBand of n_trs rows
    responses : float32 array of shape (n_trs, n_voxels)
        NaN in columns that are not good in every story.
    groups : int array of shape (n_trs,)
        Number of the span of each row.
    fit, score : bool arrays of shape (n_trs,)
    ceiling : float32 array of shape (n_scored, n_voxels), or None
        From `score_ceiling`; scored rows after the first skip_trs of each span.
    facts : mapping
        Spans, rows and repeats as plain JSON.
    regions : mapping of name to bool array of shape (n_voxels,)
    folds : tuple of FoldRows
        With folds the rows come in the order of the stories, `fit` and `score` are those that any fold fits or scores,
        and `ceiling` is for the scored rows fold by fold. Empty where fixed rows are fitted and scored.
    """

    rows: BoolArray
    stimulus: Mapping[str, Float32Array | TemporalBand]
    responses: Float32Array
    groups: IntArray
    fit: BoolArray
    score: BoolArray
    ceiling: Float32Array | None
    facts: Mapping[str, Any]
    regions: Mapping[str, BoolArray]
    folds: tuple[FoldRows, ...] = ()

    @property
    def usable(self) -> BoolArray:
        """Voxels that are finite and change on the fitted rows, (n_voxels,); scored rows are not looked at."""
        rows = self.responses[self.fit]
        return np.asarray(np.isfinite(rows).all(axis=0) & (rows != rows[:1]).any(axis=0))


def probe_data(
    store: StoryStore,
    subject: str,
    fit_spans: Sequence[Span],
    score_spans: Sequence[Span],
    config: ProbeConfig | None = None,
    stimulus: Stimulus | None = None,
) -> ProbeData:
    """Read what a probe of one subject needs.

    Voxels are those with data in every story; scored rows take no part in choosing them. The ceiling comes from the
    repeats of the scored stories and is for dividing only.

    Parameters
    ----------
    config : ProbeConfig, optional
        Its skip_trs first rows of each span are left out of the ceiling too; sub_bands, temporal choices and the
        matched filter decide what the bands are.
    stimulus : Stimulus, optional
        Give the same one for subjects who heard the same stories: bands are made once.

    Raises
    ------
    ValueError
        If the subject heard no story to fit on, or none to score on.
    """
    settings = config or ProbeConfig()
    spans = [*fit_spans, *score_spans]
    parts = [store.responses(subject, span.story, span.start_tr, span.stop_tr) for span in spans]
    heard = [part is not None for part in parts]
    _check_heard(subject, heard, fit_spans, score_spans)
    lengths = np.array([span.n_trs for span in spans])
    is_fit = np.arange(len(spans)) < len(fit_spans)
    rows = np.repeat(heard, lengths)
    groups = np.repeat(np.arange(len(spans)), lengths)[rows]
    responses = np.concatenate([part for part in parts if part is not None])
    responses[:, ~store.good_voxels(subject)] = np.nan
    kept = [span for span, has in zip(spans, heard, strict=True) if has]
    scored = [span for span in kept if span in set(score_spans)]
    ceiling, repeat_facts = score_ceiling(store, subject, scored, settings.skip_trs)
    return ProbeData(
        rows=rows,
        stimulus=(stimulus or Stimulus(store, settings)).bands(kept),
        responses=responses,
        groups=groups,
        fit=is_fit[groups],
        score=~is_fit[groups],
        ceiling=ceiling,
        facts=_span_facts(kept, set(fit_spans)) | repeat_facts,
        regions=store.subject(subject).regions,
    )


def probe_folds(
    store: StoryStore, subject: str, plan: FoldPlan, config: ProbeConfig, stimulus: Stimulus | None = None
) -> ProbeData:
    """Read what a probe of one subject over folds needs: the rows of `plan.spans` that this subject heard.

    Raises
    ------
    ValueError
        If the subject heard too little of the stories.
    """
    spans = plan.spans
    parts = [store.responses(subject, span.story, span.start_tr, span.stop_tr) for span in spans]
    heard = [part is not None for part in parts]
    kept = [span for span, has in zip(spans, heard, strict=True) if has]
    own = plan.heard([span.story for span in kept], subject)
    responses = np.concatenate([part for part in parts if part is not None])
    responses[:, ~store.good_voxels(subject)] = np.nan
    folds = own.rows(kept)
    used = np.zeros(len(responses), dtype=bool)
    used[np.concatenate([fold.rows[fold.score] for fold in folds])] = True
    scored = [own.used(span) for fold in own.score for span in fold]
    ceiling, repeat_facts = score_ceiling(store, subject, scored, 0)
    return ProbeData(
        rows=np.repeat(heard, [span.n_trs for span in spans]),
        stimulus=(stimulus or Stimulus(store, config)).bands(kept),
        responses=responses,
        groups=np.repeat(np.arange(len(kept)), [span.n_trs for span in kept]),
        fit=used,
        score=used,
        ceiling=ceiling,
        facts=own.facts() | repeat_facts,
        regions=store.subject(subject).regions,
        folds=folds,
    )


def score_ceiling(
    store: StoryStore, subject: str, spans: Sequence[Span], skip_trs: int
) -> tuple[Float32Array | None, dict[str, Any]]:
    """Share of signal in all scored rows, (n_scored, n_voxels), and what it rests on; None without repeats.

    Rows of stories that were heard once are NaN, and hold the signal per row of those that were heard repeatedly.
    """
    rows = [Span(s.story, s.start_tr + skip_trs, s.stop_tr) for s in spans if s.stop_tr > s.start_tr + skip_trs]
    n_repeats = {span.story: store.n_repeats(subject, span.story) for span in rows}
    repeated = {story: n for story, n in n_repeats.items() if n > 1}
    if not repeated:
        return None, {"n_repeats": 0}
    signal = span_signal(store, subject, rows)
    facts = {
        "n_repeats": min(repeated.values()),
        "most_repeats": max(repeated.values()),
        "ceiling_stories": list(repeated),
        "ceiling_carried_to": [story for story in n_repeats if story not in repeated],
        "n_without_ceiling": int(np.isnan(ceiling_of_rows(signal)).sum()),
        **_member_facts(store, subject, rows),
    }
    return signal, facts


def _member_facts(store: StoryStore, subject: str, rows: Sequence[Span]) -> dict[str, Any]:
    """Who is in a group, by scored story, and how far they agree in all its voxels and each region; {} for a person."""
    members = store.members(subject)
    if not members:
        return {}
    agreement, good = between_members(store, subject, rows), store.good_voxels(subject)
    regions = regions_with_all(store.subject(subject).regions, good)
    return {
        "members": {span.story: members[span.story] for span in rows},
        "between_members": {
            region: agreement.json(mask, by_member=region == ALL_VOXELS) for region, mask in regions.items()
        },
    }


def band_spaces(store: StoryStore, config: ProbeConfig) -> dict[str, list[str]]:
    """The feature spaces of the store that each band of a probe holds, in the order of the settings.

    Raises
    ------
    ValueError
        If a band names a space that the store does not hold, or two bands hold the same one.
    """
    known = [entry.name for entry in store.index.feature_spaces]
    found: dict[str, list[str]] = {}
    for band, asked in config.bands.items():
        spaces = store.spaces_of(cast("FeatureKind", band)) if asked is None else list(asked)
        for space in spaces:
            if space not in known:
                raise ValueError(
                    f"probe.bands.{band} names the feature space {space!r}, which the store {store.path} does not hold."
                    f" {did_you_mean(space, known)} Name one of these, or add it to the data (docs/features.md)."
                )
            for other in (name for name, taken in found.items() if space in taken):
                raise ValueError(
                    f"probe.bands has the feature space {space!r} in two bands, {other} and {band}, and what both hold"
                    " could not be told apart. Where a band is null it holds all spaces of its kind: list those that"
                    " it shall have."
                )
        found[band] = spaces
    return found


class Stimulus:
    """The stimulus bands of some spans, in the form that a probe's settings ask for; the last ones are kept."""

    def __init__(self, store: StoryStore, config: ProbeConfig) -> None:
        self.store, self.config = store, config
        self.spaces = band_spaces(store, config)
        self._kept: tuple[tuple[Span, ...], dict[str, Float32Array | TemporalBand]] | None = None

    def bands(self, spans: Sequence[Span]) -> Mapping[str, Float32Array | TemporalBand]:
        """By band, or by part of the low-level band ('low_level/spectral', ...) where the settings ask for parts."""
        if self._kept is None or self._kept[0] != tuple(spans):
            self._kept = tuple(spans), self._read(spans)
        return self._kept[1]

    def _read(self, spans: Sequence[Span]) -> dict[str, Float32Array | TemporalBand]:
        bands: dict[str, Float32Array | TemporalBand] = {}
        for band, own_spaces in self.spaces.items():
            columns = self.store.band_columns(own_spaces)
            parts: dict[str, list[int]] = {band: list(range(len(columns)))}
            if band == "low_level" and self.config.sub_bands:
                parts = {f"low_level/{name}": own for name, own in sub_band_columns(columns).items()}
            form = TemporalForm.of(self.config, band)
            if form.is_plain(self.store):
                values = np.concatenate([self.store.band(s.story, own_spaces)[s.start_tr : s.stop_tr] for s in spans])
                bands |= {name: values[:, own] for name, own in parts.items() if own}
                continue
            for name, own in parts.items():
                spaces = list(dict.fromkeys(columns[k].partition("/")[0] for k in own))
                if spaces:
                    bands[name] = stimulus_rows(self.store, spans, spaces, form)
        return bands


def _span_facts(spans: Sequence[Span], fit_spans: set[Span]) -> dict[str, Any]:
    fit, score = [s for s in spans if s in fit_spans], [s for s in spans if s not in fit_spans]
    return {
        "fit_spans": [str(span) for span in fit],
        "score_spans": [str(span) for span in score],
        "score_stories": list(dict.fromkeys(span.story for span in score)),
    }


def _check_heard(subject: str, heard: Sequence[bool], fit_spans: Sequence[Span], score_spans: Sequence[Span]) -> None:
    for role, spans, has in (
        ("fit", fit_spans, heard[: len(fit_spans)]),
        ("score", score_spans, heard[len(fit_spans) :]),
    ):
        if not any(has):
            listed = ", ".join(str(span) for span in spans) or "none"
            raise ValueError(
                f"subject {subject} heard none of the stories to {role} ({listed}), so it cannot be probed. Give it"
                f" stories in data.roles.{role}, or leave it out of data.subjects."
            )


# --- State that is borrowed, settings and weights that are compared ---


@contextmanager
def borrowed_state(module: nn.Module | ProbedModule) -> Iterator[None]:
    """Let the block do what it likes to the random states, to train/eval modes and to torch's thread count.

    Everything is put back as it was when the block ends, also when it raises: each submodule gets its own mode back
    (a frozen part that was in eval mode stays there), and training goes on with the random numbers that it would have
    drawn without the block.
    """
    modes = {part: part.training for part in cast(nn.Module, module).modules()}
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the global state is what is borrowed
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
        if torch.get_num_threads() != n_threads:
            torch.set_num_threads(n_threads)


def settings_hash(*parts: Any) -> str:
    """Short hash of arrays (dtype, shape, bytes) and JSON values."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:20]


def weights_hash(module: nn.Module) -> str:
    """Short hash of the backbone's weights (of all weights, where there is no backbone)."""
    digest = hashlib.blake2b(digest_size=10)
    part: Any = getattr(module, "backbone", module)
    for name, value in part.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
