"""How far people who heard the same story agree: the correlation of each with the mean of the others.

With z-scored responses of N people of which a share a is shared (and all else independent between them), the expected
values are

    r of one with the mean of the others    a / sqrt(a + (1 - a) / (N - 1))
    ceiling of one                          sqrt(a)
    ceiling of the mean of all              sqrt(a / (a + (1 - a) / N))

A ceiling is the r that a model reaches which knows the shared part without error. The others' mean is such a model with
an error, so the leave-one-out r is below the ceiling of one, less so the more people there are (Nastase et al. 2019,
Soc. Cogn. Affect. Neurosci. 14:667; Hasson et al. 2004). The ceilings themselves come from `brainlit.encoding.ceiling`,
with people as presentations. What people share need not be of the stimulus (what a scanner does as a run begins, say),
and what is one person's own is no noise of that person: their own ceiling is higher.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from brainlit.encoding.arrays import FloatArray


def leave_one_out_r(stories: Sequence[npt.ArrayLike], members: Sequence[Sequence[str]]) -> dict[str, FloatArray]:
    """Correlation of each person with the mean of the others who heard the same, over all rows of all stories.

    Parameters
    ----------
    stories : sequence of arrays of shape (n_members, n_trs, n_voxels)
        Each demeaned over time here.
    members : sequence of sequences of str
        Who heard each story, in the order of its first axis; at least two.

    Returns
    -------
    dict of member to array of shape (n_voxels,)
        NaN where a voxel has no (finite, changing) data.

    Raises
    ------
    ValueError
        If a story has fewer than two people, or not one name for each.

    Examples
    --------
    >>> pair = np.array([[[1.0], [2.0], [3.0]], [[2.0], [4.0], [6.0]]])
    >>> {name: r.round(6).tolist() for name, r in leave_one_out_r([pair], [("a", "b")]).items()}
    {'a': [1.0], 'b': [1.0]}
    """
    sums: dict[str, FloatArray] = {}
    for values, names in zip(stories, members, strict=True):
        given = np.asarray(values, dtype=np.float64)
        if given.ndim != 3 or len(given) != len(names) or len(given) < 2:
            raise ValueError(
                f"responses of shape {given.shape} of {len(names)} people ({', '.join(names)}); need (n_members, n_trs,"
                " n_voxels) with at least two people and a name for each."
            )
        own = given - given.mean(axis=1, keepdims=True)
        others = (own.sum(axis=0) - own) / (len(own) - 1)
        # (n_members, n_trs, n_voxels) -> (3, n_members, n_voxels)
        powers = np.stack([(own * others).sum(axis=1), np.square(own).sum(axis=1), np.square(others).sum(axis=1)])
        for k, name in enumerate(names):
            sums[name] = sums.get(name, np.zeros(powers[:, k].shape)) + powers[:, k]
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: np.asarray(xy / np.sqrt(xx * yy)) for name, (xy, xx, yy) in sums.items()}
