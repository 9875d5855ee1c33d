"""Warm starts: a later checkpoint tries only the gammas that were best for a voxel before.

Between checkpoints of one training the best mixture of a voxel hardly moves; evaluating its three best ones of the
probe before changed the mean score by 5e-5 where it was measured, for a fifth of the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from brainlit.encoding.arrays import BoolArray, FloatArray, IntArray
from brainlit.encoding.result import Int16Array, ProbeResult
from brainlit.splits import LeakError

N_RANKED = 5
"""Gammas per model and voxel that a result remembers."""


@dataclass(frozen=True, eq=False)
class WarmStart:
    """Where a search begins, made by `from_result`.

    Parameters
    ----------
    ranking : mapping of model to int16 array of shape (n_best, n_voxels)
        Rows of `gammas`, best first; -1 for none.
    gammas : array of shape (n_pool, n_bands)
    bands : tuple of str
        Of the columns of the gammas.
    rows : str
        Hash of the rows that the earlier probe was fitted on and scored on.
    """

    ranking: Mapping[str, Int16Array]
    gammas: FloatArray
    bands: tuple[str, ...]
    rows: str

    @classmethod
    def from_result(cls, result: ProbeResult, n_best: int = 3) -> WarmStart:
        """The n_best gammas of every model and voxel of an earlier probe of the same voxels.

        Raises
        ------
        ValueError
            If n_best is not between 1 and N_RANKED, or the result comes from a file that does not have them.
        """
        if not 1 <= n_best <= N_RANKED:
            raise ValueError(f"n_best is {n_best}; a result remembers {N_RANKED} gammas: give 1 to {N_RANKED}.")
        if not result.gamma_ranking or "rows" not in result.meta:
            raise ValueError(
                "this probe does not say which gammas its voxels chose; it was saved by an earlier brainlit. Probe once"
                " without a warm start."
            )
        ranking = {model: values[:n_best] for model, values in result.gamma_ranking.items()}
        gammas = np.asarray(result.meta["gammas"], dtype=np.float64)
        return cls(ranking, gammas, tuple(result.meta["n_columns"]), str(result.meta["rows"]))

    def narrow(self, columns: IntArray) -> WarmStart:
        """The same for some of its voxels."""
        return replace(self, ranking={model: best[:, columns] for model, best in self.ranking.items()})

    @property
    def n_voxels(self) -> int:
        """Voxels of the earlier probe."""
        return int(next(iter(self.ranking.values())).shape[1])

    def wanted(self) -> BoolArray:
        """Which gammas are tried for which voxel, (n_pool, n_voxels): all of them for voxels that were dropped."""
        tried = np.zeros((len(self.gammas), self.n_voxels), dtype=bool)
        for ranking in self.ranking.values():
            for best in ranking:
                known = np.flatnonzero(best >= 0)
                tried[best[known], known] = True
        tried[:, ~tried.any(axis=0)] = True
        return tried


def wanted_gammas(
    warm: Mapping[str, WarmStart], n_voxels: Mapping[str, int], gammas: FloatArray, bands: Sequence[str], rows: str
) -> BoolArray | None:
    """Which gammas are tried for which voxel of all subjects side by side; None where all are.

    Parameters
    ----------
    warm : mapping of subject to WarmStart
        Subjects without one try every gamma.
    n_voxels : mapping of subject to number of voxels, in order

    Raises
    ------
    LeakError
        If an earlier probe was fitted or scored on other rows, among which may be rows that are scored now.
    ValueError
        If a subject is unknown, or voxels, bands or gammas are others.
    """
    if not warm:
        return None
    unknown = sorted(set(warm) - set(n_voxels))
    if unknown:
        raise ValueError(f"warm starts for {', '.join(unknown)}, who are not probed; probed: {', '.join(n_voxels)}.")
    for subject, start in warm.items():
        name = f"the warm start{f' of {subject}' if subject else ''}"
        if start.rows != rows:
            raise LeakError(
                f"{name} comes from a probe with other fitted or scored rows: its gammas may have been chosen on rows"
                " that are scored now. Take a probe of the same roles, or start cold."
            )
        if start.n_voxels != n_voxels[subject]:
            raise ValueError(
                f"{name} has {start.n_voxels} voxels, the responses {n_voxels[subject]}; take that of the same voxels."
            )
        if start.bands != tuple(bands):
            raise ValueError(
                f"{name} has bands {', '.join(start.bands)}, this probe {', '.join(bands)}: a mixture of other features"
                " says nothing here. Start cold."
            )
        if start.gammas.shape != gammas.shape or not np.allclose(start.gammas, gammas):
            raise ValueError(
                f"{name} has gammas of shape {start.gammas.shape}, this probe {gammas.shape}, or others;"
                " n_gammas and seed must be those of the earlier probe."
            )
    everything: Sequence[BoolArray] = [
        warm[name].wanted() if name in warm else np.ones((len(gammas), n), dtype=bool) for name, n in n_voxels.items()
    ]
    return np.concatenate(everything, axis=1)
