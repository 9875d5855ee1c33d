"""Do targets and head fit each other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

COMMON_SPACE = (
    "Bring all subjects to a common space (such as fsaverage5 or fsaverage6) and give --data.common_voxels true, which"
    " keeps the vertices that are chosen in every subject (with min_ceiling null, those that have data), or choose"
    " --model.head.kind linear, a map for each subject."
)


def common_size(target_sizes: Mapping[str, int]) -> int:
    """The number of targets that all subjects have.

    Raises
    ------
    ValueError
        If they have different numbers.
    """
    sizes = set(target_sizes.values())
    if len(sizes) > 1:
        raise ValueError(
            f"a shared head predicts the same targets for all subjects, but they have {_counts(target_sizes)}."
            f" {COMMON_SPACE}"
        )
    return sizes.pop()


def check_common_columns(target_columns: Mapping[str, npt.ArrayLike]) -> None:
    """Refuse subjects whose targets are different columns of the responses, even if as many.

    Parameters
    ----------
    target_columns : mapping of subject to int array of shape (n_targets,)

    Raises
    ------
    ValueError
        Naming the subjects, how many targets they have and how many of these are common to all.
    """
    columns = {subject: np.asarray(values) for subject, values in target_columns.items()}
    first = next(iter(columns.values()))
    if all(np.array_equal(first, values) for values in columns.values()):
        return
    common = set(first.tolist()).intersection(*(values.tolist() for values in columns.values()))
    raise ValueError(
        "a shared head predicts the same targets for all subjects, but theirs are different columns of the responses,"
        f" or in another order: {_counts({subject: len(values) for subject, values in columns.items()})}, of which"
        f" {len(common)} are common to all. {COMMON_SPACE}"
    )


def check_target_sizes(head_sizes: Mapping[str, int], data_sizes: Mapping[str, int]) -> None:
    """Refuse data whose subjects or numbers of voxels are not those of the head.

    Raises
    ------
    ValueError
        Naming the subject and both numbers.
    """
    for subject in [*head_sizes, *data_sizes]:
        ours, theirs = head_sizes.get(subject), data_sizes.get(subject)
        if ours != theirs:
            raise ValueError(
                f"the head predicts {_voxels(ours)} of subject {subject!r}, but the data have {_voxels(theirs)}. Give"
                " the subjects, the store and the voxel selection (min_ceiling, ceiling_method, roles) that the model"
                " was trained with, or train a new model."
            )


def check_context(delays_trs: Sequence[int], context_trs: int, tr_s: float) -> None:
    """Refuse windows too short for the delays, before anything is probed or trained.

    Parameters
    ----------
    context_trs : int
        Rows before the first target row of a window.
    tr_s : float
        Repetition time.

    Raises
    ------
    ValueError
    """
    furthest = max(delays_trs)
    if context_trs < furthest:
        raise ValueError(
            f"the head reads rows up to {furthest} TRs back, but the windows carry {context_trs} rows of context. Give"
            f" --data.window.context_s at least {furthest * tr_s:g} ({furthest} TRs of {tr_s:g} s), or fewer"
            " --model.head.delays_trs."
        )


def check_targets(target_sizes: Mapping[str, int], targets: Mapping[str, Tensor]) -> None:
    """Refuse a batch whose targets are not those of the head: see check_target_sizes.

    Parameters
    ----------
    target_sizes : mapping of subject to int
        Of the head.
    targets : mapping of subject to Tensor of shape (batch, n_trs, n_targets)
    """
    check_target_sizes(target_sizes, {subject: values.shape[-1] for subject, values in targets.items()})


def _counts(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{subject} {size:,}" for subject, size in sizes.items())


def _voxels(size: int | None) -> str:
    return "no voxels" if size is None else f"{size:,} voxels"
