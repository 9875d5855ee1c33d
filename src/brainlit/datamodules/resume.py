"""Whether a checkpoint was made with the same data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], to_train: bool) -> None:
    """Refuse to train on with other data than a run began with; for evaluation say so in the log.

    Parameters
    ----------
    before : mapping
        What the checkpoint remembers; what it does not know is taken to be the same.
    now : mapping
        The same of this run.

    Raises
    ------
    ValueError
        Naming the first setting that differs and both values.
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
