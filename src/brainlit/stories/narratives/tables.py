"""Who heard what in the Narratives collection, when it began, and which runs its authors exclude.

Copied as facts from the public metadata, so that nothing has to be downloaded to know them: `participants.tsv` of
ds002345 (who heard what), `staging/compile_events.py` (when the sound began), `code/event_meta.json` (rows) and
`code/scan_exclude.json` (exclusions) of https://github.com/snastase/narratives. data/narratives.md says what confirms
them.
"""

from __future__ import annotations

from dataclasses import dataclass

TR_S = 1.5
"""Of all scans: "all studies used a repetition time of 1.5 seconds" (Nastase et al. 2021)."""


@dataclass(frozen=True)
class Task:
    """A story as the collection has it.

    Parameters
    ----------
    task : str
        The scan in which it was heard ('task-...' in file names); slumlord and reach share one.
    sound : str
        Name of its sound file and of its folder of gentle alignments.
    sound_start_s : float
        Seconds of scan at which the sound file begins: the first event of the scan that names the file.
    onset_trs, duration_trs : int
        Rows of the scan in which the story is told, without the music before it (`code/event_meta.json`).
    heard_by : str
        Numbers of the subjects.
    role : str
        Its role by default. Versions of one text have the same one.
    """

    task: str
    sound: str
    sound_start_s: float
    onset_trs: int
    duration_trs: int
    heard_by: str
    role: str


_PNI = "127 265 267 272-315"
_SHAPES = "49 58 95 115 127 181 186 190 191 200 201 206-253"
_SHERLOCK = "75 146-180"
_SLUMLORD = "16 84 106 111 132-145"
_INTACT = "16 34 65 66 84 89 95 96 106 111 132-137 139-145 195 199 268 316-345"
_MOUTH = "23 30 32 34 38 50 52 65 66 79 81 83-111"

TASKS = {
    "21styear": Task("21styear", "21styear", 0.0, 14, 2225, "75 131 190 201 235 244 249 254-271", "tune"),
    "black": Task("black", "black", 12.0, 8, 533, _PNI, "fit"),
    "bronx": Task("bronx", "bronx", 12.0, 8, 357, _PNI, "score"),
    "forgot": Task("forgot", "forgot", 12.0, 8, 558, _PNI, "tune"),
    "lucy": Task("lucy", "lucy", 2.0, 1, 361, "22 26 41 52 53 55 56 58-61 65 66 69 73 74", "score"),
    "merlin": Task("merlin", "merlin", 4.5, 22, 591, _SHERLOCK, "tune"),
    "milkywayoriginal": Task("milkyway", "milkywayoriginal", 0.0, 14, 269,
                             "34 81 83 91 93 95 96 99-101 104-106 108 111-114", "fit"),
    "milkywaysynonyms": Task("milkyway", "milkywaysynonyms", 0.0, 14, 269, "115-131", "fit"),
    "milkywayvodka": Task("milkyway", "milkywayvodka", 0.0, 14, 269,
                          "23 30 32 38 52 79 86-90 97 98 102 103 107 109 110", "fit"),
    "notthefallintact": Task("notthefallintact", "notthefallintact", 4.5, 20, 365, _INTACT, "score"),
    "pieman": Task("pieman", "pieman", 0.0, 10, 281, "1-82", "choose"),
    "piemanpni": Task("piemanpni", "piemanpni", 12.0, 8, 267, _PNI, "choose"),
    "prettymouth": Task("prettymouth", "prettymouth", 0.0, 14, 451, _MOUTH, "tune"),
    "reach": Task("slumlordreach", "slumlordreach", 4.5, 646, 550, _SLUMLORD, "fit"),
    "shapesphysical": Task("shapesphysical", "shapesphysical", 4.5, 33, 270, _SHAPES, "fit"),
    "shapessocial": Task("shapessocial", "shapessocial", 4.5, 33, 272, _SHAPES, "tune"),
    "sherlock": Task("sherlock", "sherlock", 4.5, 22, 701, _SHERLOCK, "fit"),
    "slumlord": Task("slumlordreach", "slumlordreach", 4.5, 20, 602, _SLUMLORD, "tune"),
    "tunnel": Task("tunnel", "tunnel", 3.0, 2, 1023,
                   "1 4 5 13 22 25 26 41 52 53 55-66 69", "tune"),
}  # fmt: skip

SAME_FORTY_SEVEN = ("black", "bronx", "forgot", "piemanpni")
"""The largest set of stories that the same people heard: 43 minutes, 47 people."""

NOT_OFFERED = {
    "schema": "its runs mix films with stories, in an order that differs from subject to subject; the collection's own"
    " code/event_meta.json leaves it out too",
    "notthefalllongscram": "scrambled version; its words are not aligned (no folder below stimuli/gentle)",
    "notthefallshortscram": "scrambled version; its words are not aligned (no folder below stimuli/gentle)",
}

TWO_RUNS = {"pieman": "1-6 8 10-16"}
"""Subjects who heard a story in two runs, 'run-1' and 'run-2'."""

EXCLUDED = {
    "lucy": ("sub-053", "sub-065"),
    "merlin": ("sub-158",),
    "milkyway": ("sub-038", "sub-105", "sub-123"),
    "notthefallintact": ("sub-317", "sub-335"),
    "pieman": ("sub-001 run-1", "sub-001 run-2", "sub-013 run-2", "sub-014 run-2", "sub-021", "sub-022", "sub-038",
               "sub-056", "sub-068", "sub-069"),
    "prettymouth": ("sub-038", "sub-105"),
    "shapessocial": ("sub-238",),
    "slumlordreach": ("sub-139",),
    "tunnel": ("sub-004", "sub-013"),
}  # fmt: skip
"""Runs that the authors exclude: wrong number of volumes, did not comply, or no response to the sound."""


def numbers(text: str) -> list[int]:
    """Numbers and ranges of numbers, ends included.

    >>> numbers("1 4-6")
    [1, 4, 5, 6]
    """
    ends = [part.split("-") for part in text.split()]
    return [k for one in ends for k in range(int(one[0]), int(one[-1]) + 1)]


def listeners(story: str) -> list[str]:
    """Everyone who heard a story, as 'sub-001'."""
    return [f"sub-{k:03d}" for k in numbers(TASKS[story].heard_by)]


def runs(subject: str, story: str) -> list[str]:
    """File name stems of a subject's runs of a story, 'sub-002_task-pieman_run-1', excluded ones left out."""
    return [stem for stem in all_runs(subject, story) if stem not in excluded_runs(TASKS[story].task)]


def all_runs(subject: str, story: str) -> list[str]:
    """As `runs`, with the excluded ones."""
    if subject not in listeners(story):
        return []
    task = TASKS[story].task
    two = subject in [f"sub-{k:03d}" for k in numbers(TWO_RUNS.get(task, ""))]
    return [f"{subject}_task-{task}{run}" for run in (("_run-1", "_run-2") if two else ("",))]


def excluded_runs(task: str) -> list[str]:
    """File name stems of the runs of a task that the authors exclude."""
    said = [one.split() for one in EXCLUDED.get(task, ())]
    return ["_".join([one[0], f"task-{task}", *one[1:]]) for one in said]
