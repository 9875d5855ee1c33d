"""When each row of LeBel et al.'s responses happened: by the scanner's log, or by a nominal clock that meets it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from brainlit.stories.base import SourceError
from brainlit.stories.lebel2023.facts import (
    FIRST_VOLUME,
    MEASURED_TR_S,
    NOMINAL_TR_S,
    PADDING_VOLUMES,
    SIDECAR_TR_S,
    SOUND_START_S,
    TRIMMED_VOLUMES,
    VOLUMES,
)
from brainlit.stories.readers.scanner_log import read_scanner_log
from brainlit.timebase import TimeBase, fill_missed_triggers

log = logging.getLogger(__name__)

Clock = Literal["logged", "nominal"]


def n_rows(story: str) -> int:
    """Rows of a story's responses: respdict.json less 20.

    >>> n_rows("souls"), n_rows("wheretheressmoke")
    (355, 291)
    """
    return VOLUMES[story] - TRIMMED_VOLUMES


def story_clock(story: str, report: Path | None, tr_s: float) -> TimeBase:
    """Start of each row in seconds of sound, from a log or, without one, at (10 + r) x tr_s - 10.023.

    Raises
    ------
    ScannerLogError
        If the log is damaged.
    SourceError
        If it has another number of volumes than the scanner made.
    """
    if report is None:
        return TimeBase.regular(n_rows(story), tr_s, FIRST_VOLUME * tr_s - SOUND_START_S)
    logged = read_scanner_log(report)
    triggers_s, missed = fill_missed_triggers(logged.triggers_s, tr_s)
    n_volumes = VOLUMES[story] - PADDING_VOLUMES
    if len(triggers_s) != n_volumes:
        raise SourceError(
            f"{report}: {len(triggers_s)} triggers ({missed.size} of them filled in), but the scanner made {n_volumes}"
            f" volumes of {story!r} (respdict.json counts {VOLUMES[story]}, of which {PADDING_VOLUMES} are padding)."
            " Is it the log of another story? Fetch it again, or use clock: nominal."
        )
    if missed.size:
        log.info("%s: the triggers of volumes %s were missed; filled in.", report, missed.tolist())
    return TimeBase(triggers_s[FIRST_VOLUME : FIRST_VOLUME + n_rows(story)] - logged.sound_start_s, tr_s)


def clock_in_words(stories: Sequence[str], logged: Sequence[str], clock: Clock, tr_s: float) -> str:
    """Which clock was used for how many stories, and how the three repetition times differ."""
    rest, drift_s = len(stories) - len(logged), 300 * abs(tr_s - MEASURED_TR_S)
    why = "as asked for" if clock == "nominal" else "no log found"
    by_log = f"the scanner's log for {len(logged)} of {len(stories)} stories; " if logged else ""
    nominal = (
        f"nominal for {rest} of {len(stories)} stories ({why}): row r starts at (10 + r) x {tr_s:g} - {SOUND_START_S} s"
        " of sound; "
    )
    return (
        f"{by_log}{nominal if rest else ''}tr_s is {tr_s:g} s; the scanner's logs say {MEASURED_TR_S} s, the BIDS"
        f" side-cars {SIDECAR_TR_S} s; a clock of {tr_s:g} s is {drift_s:.2f} s off the logs after 300 volumes"
    )


def check_clock(tr_s: float, sound_lead_s: float) -> None:
    """Refuse times that cannot be meant.

    Raises
    ------
    SourceError
        If tr_s is more than 0.1 s off the scanner's, or sound_lead_s is negative or beyond a minute.
    """
    if not abs(tr_s - NOMINAL_TR_S) <= 0.1:
        raise SourceError(
            f"tr_s is {tr_s}; volumes took {NOMINAL_TR_S} s by the logs, {SIDECAR_TR_S} s by the side-cars."
        )
    if not 0 <= sound_lead_s < 60:
        raise SourceError(f"sound_lead_s is {sound_lead_s}; it is a number of seconds from 0 on, usually 0.")
