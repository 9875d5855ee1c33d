"""The rows of a probe over folds: what each fold scores, what it is fitted on, and how far apart the two are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from brainlit.encoding.config import ProbeConfig
from brainlit.encoding.folds import FoldRows
from brainlit.splits import Roles, Span, merged_spans
from brainlit.stories.response_filter import ResponseFilter

if TYPE_CHECKING:
    from brainlit.datamodules import StoryDataModule

HAEMODYNAMIC_PURGE_S = 20.0
"""How far back a haemodynamic response reaches; only the tail of its undershoot is longer."""
FEWEST_FIT_TRS = 40
"""Rows that a fold is fitted on: cross-validation inside them holds out a quarter and purges some twenty."""


@dataclass(frozen=True)
class FoldPlan:
    """What every fold fits and scores.

    Parameters
    ----------
    fit, score : tuples of tuples of Span
        By fold.
    purge_trs : int
        Rows on both sides of a scored span that are not fitted on.
    lead_trs, trail_trs : int
        Rows of the story before and after every span that feed its delays, as far as there are some.
    n_trs_of : mapping of story to its number of rows
    skip_trs : int
        First rows of every story that are neither fitted nor scored.
    """

    fit: tuple[tuple[Span, ...], ...]
    score: tuple[tuple[Span, ...], ...]
    purge_trs: int
    lead_trs: int
    trail_trs: int
    n_trs_of: dict[str, int]
    skip_trs: int

    @classmethod
    def of(cls, datamodule: StoryDataModule, config: ProbeConfig) -> FoldPlan:
        """The plan of a data module whose roles have folds, for the settings of a probe.

        Raises
        ------
        ValueError
            If a fold leaves too little to fit on, or a setting has no meaning with folds.
        """
        roles, store = datamodule.roles, datamodule.store
        folds = roles.folds
        assert folds is not None
        if config.tuned_sound:
            raise ValueError(
                "probe.tuned_sound is not there for roles with folds. Set it to false (--probe.tuned_sound false), or"
                " name the roles fit and score instead of folds."
            )
        reach_trs = purge_trs(roles, config, datamodule.tr_s, store.response_filter, datamodule.window.purge_trs)
        fit = tuple(folds.fit_spans(k, reach_trs, roles.clocks) for k in range(len(folds)))
        for number, (fitted, scored) in enumerate(zip(fit, folds.scored, strict=True), start=1):
            n_fit = sum(span.n_trs for span in fitted)
            if n_fit < FEWEST_FIT_TRS:
                raise ValueError(
                    f"fold {number} of {len(folds)} scores {', '.join(map(str, scored))}, and purging {reach_trs} TRs"
                    f" on both sides leaves {n_fit} TRs to fit on; at least {FEWEST_FIT_TRS} are needed. Give more"
                    " rows, another number of folds or fewer seconds of purge: roles.over, roles.folds, roles.purge."
                )
        reach = [*config.delays_trs, config.impact_lags_trs if config.low_level_impact else 0]
        lead_trs, trail_trs = max(config.skip_trs, *reach), max(0, reach[-1], *(-delay for delay in config.delays_trs))
        n_trs_of = {story: store.n_trs(story) for story in store.story_names}
        return cls(fit, folds.scored, reach_trs, lead_trs, trail_trs, n_trs_of, config.skip_trs)

    def __len__(self) -> int:
        return len(self.score)

    def widened(self, span: Span) -> Span:
        """A span with the rows that feed its delays."""
        stop_tr = min(span.stop_tr + self.trail_trs, self.n_trs_of[span.story])
        return Span(span.story, max(span.start_tr - self.lead_trs, 0), stop_tr)

    def used(self, span: Span) -> Span:
        """A span without the first rows of its story."""
        return Span(span.story, max(span.start_tr, self.skip_trs), span.stop_tr)

    @property
    def spans(self) -> list[Span]:
        """Every row that some fold has a use for, once: what features are computed of."""
        return merged_spans([self.widened(span) for own in self.score for span in own])

    def heard(self, stories: Sequence[str], subject: str) -> FoldPlan:
        """The folds in which a subject heard something to score, with what they heard.

        Raises
        ------
        ValueError
            If there is none, or nothing to fit on in one of them.
        """
        fit, score = [], []
        for fitted, scored in zip(self.fit, self.score, strict=True):
            own = tuple(span for span in scored if span.story in stories)
            if own:
                score.append(own)
                fit.append(tuple(span for span in fitted if span.story in stories))
        n_trs = [sum(span.n_trs for span in own) for own in fit]
        if len(score) < 2 or min(n_trs) < FEWEST_FIT_TRS:
            heard = ", ".join(dict.fromkeys(span.story for own in score for span in own)) or "none of the stories"
            raise ValueError(
                f"subject {subject} heard {heard}, which lie in {len(score)} of {len(self)} folds and leave"
                f" {min(n_trs, default=0)} TRs to fit on; at least 2 folds and {FEWEST_FIT_TRS} TRs are needed. Leave"
                " it out of data.subjects, or give other stories in roles.over."
            )
        return replace(self, fit=tuple(fit), score=tuple(score))

    def rows(self, spans: Sequence[Span]) -> tuple[FoldRows, ...]:
        """Every fold's rows among those of some spans, which hold all of them; each stretch is a group of its own."""
        starts = np.cumsum([0, *(span.n_trs for span in spans)])
        place = {
            (span.story, span.start_tr + k): int(start) + k
            for span, start in zip(spans, starts[:-1], strict=True)
            for k in range(span.n_trs)
        }
        return tuple(self._rows(fit, score, place) for fit, score in zip(self.fit, self.score, strict=True))

    def _rows(self, fit: Sequence[Span], score: Sequence[Span], place: dict[tuple[str, int], int]) -> FoldRows:
        rows, groups, is_fit, is_score = [], [], [], []
        for number, span in enumerate((*fit, *score)):
            wide = self.widened(span)
            trs = np.arange(wide.start_tr, wide.stop_tr)
            own = (trs >= span.start_tr) & (trs < span.stop_tr)
            rows += [place[span.story, int(tr)] for tr in trs]
            groups += [number] * len(trs)
            is_fit.append(own & (number < len(fit)))
            is_score.append(own & (number >= len(fit)))
        masks = np.concatenate(is_fit), np.concatenate(is_score)
        return FoldRows(np.array(rows, dtype=np.int64), np.array(groups, dtype=np.int64), *masks)

    def facts(self) -> dict[str, Any]:
        """What a record says of the folds, as plain JSON."""
        score = [[str(self.used(span)) for span in own] for own in self.score]
        pairs = zip(self.fit, self.score, strict=True)
        within = any({span.story for span in fit} & {span.story for span in own} for fit, own in pairs)
        spans = [text for own in score for text in own]
        return {
            "fit_spans": spans,
            "score_spans": spans,
            "score_stories": list(dict.fromkeys(span.story for own in self.score for span in own)),
            "folds": {"n": len(self), "within_stories": within, "purge_trs": self.purge_trs, "score": score},
        }


def purge_trs(
    roles: Roles, config: ProbeConfig, tr_s: float, passed: ResponseFilter | None, window_purge_trs: Any
) -> int:
    """Rows on both sides of a scored span that are not fitted on.

    Where no seconds are given: what windows hear before a row, and then the farthest of the delays (twice), a
    haemodynamic response, and half the window of a smoother that was taken out of the responses. Trends and cosines
    reach over the whole story, and nothing could be purged of them.

    Parameters
    ----------
    window_purge_trs : callable of (tr_s, reach_trs)
        `WindowConfig.purge_trs`.
    """
    assert roles.folds is not None
    if roles.folds.purge_s is not None:
        return math.ceil(roles.folds.purge_s / tr_s - 1e-9)
    reach_trs = 2 * max(abs(delay) for delay in config.delays_trs)
    if any(config.temporal_of(band) != "fir" for band in config.band_names):
        reach_trs = max(reach_trs, math.ceil(HAEMODYNAMIC_PURGE_S / tr_s - 1e-9))
    if passed is not None and passed.savgol is not None:
        reach_trs = max(reach_trs, math.ceil(passed.savgol[0] / 2 / tr_s - 1e-9))
    return max(int(window_purge_trs(tr_s, reach_trs)), roles.purge_trs)
