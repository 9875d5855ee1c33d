"""How a row of the suite is measured: ours and the plain reference in turns, medians, peak memory, the same answers."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from tests.benchmarks.probe_speed import processor

FORMAT = 1
SLOWER = 1.15
"""A row that costs so many times more beside its reference than before is warned of."""
LIBRARIES = ("torch", "numpy", "himalaya", "transformers", "scikit-learn")
STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Answer = Mapping[str, npt.NDArray[Any]]
Side = Callable[[], Answer]
Clock = Literal["cpu", "wall"]


class Agreement(NamedTuple):
    """Whether two answers are the same, and in words how near they are."""

    same: bool
    said: str


@dataclass(frozen=True, eq=False)
class Case:
    """One row at one size, ready to run.

    Parameters
    ----------
    sizes : mapping of str to plain value
        What a reader needs to judge the seconds.
    ours, reference : callables
        What is timed; each returns its answer.
    agree : callable
        From both answers (of the first round) to an Agreement.
    check : pair of callables, or None
        Answers that are compared instead of those of what is timed, where these cannot be.
    unit : str
        What the seconds are of.
    n_ours, n_reference : float
        How many units a call of either side does: seconds are divided by it.
    operations : callable, or None
        Floating point operations of a unit, known once it ran; `brainlit plan --paper` makes a rate of them.
    at : float or None
        Place on the axis of a row that grows.
    """

    sizes: Mapping[str, Any]
    ours: Side
    reference: Side
    agree: Callable[[Answer, Answer], Agreement]
    check: tuple[Side, Side] | None = None
    unit: str = "run"
    n_ours: float = 1.0
    n_reference: float = 1.0
    operations: Callable[[], float] | None = None
    at: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the suite.

    Parameters
    ----------
    ours, reference : str
        What either is, in words.
    make : callable
        From the size ('full', 'quick', 'tiny') and a folder to the cases: one, or several over which it grows.
    clock : str
        cpu: seconds of the processor, which other programs change least. wall: where a disk or other processes work.
    repeats : int
        Counted rounds, at least; `--repeats` asks for others.
    warm : bool
        Whether a round before them is not counted.
    least_ratio, least_memory_ratio, least_per_s : float or None
        What is demanded of it: reference / ours in seconds and in bytes, units of ours per second.
    by_default : bool
        Whether it runs where no row is named.
    """

    name: str
    ours: str
    reference: str
    make: Callable[[str, Path], Iterator[Case]]
    clock: Clock = "cpu"
    repeats: int = 3
    warm: bool = True
    least_ratio: float | None = None
    least_memory_ratio: float | None = None
    least_per_s: float | None = None
    by_default: bool = True


# --- One row ---


def measured(row: Row, size: str, folder: Path, repeats: int | None = None, progress: bool = True) -> dict[str, Any]:
    """All that the file says about a row; for one that grows, of the largest case, with all of them under 'growth'."""
    points = []
    for case in row.make(size, folder):
        gc.collect()
        points.append(_measured_case(row, case, repeats or row.repeats, progress))
    found = {
        "name": row.name,
        "ours": row.ours,
        "reference": row.reference,
        "size": size,
        "clock": row.clock,
        **points[-1],
        "same": all(point["same"] for point in points),
        "targets": _targets(row, points[-1]),
    }
    if len(points) > 1:
        kept = ("at", "ours_s", "reference_s", "ratio", "agreement", "same")
        found["growth"] = [{key: point[key] for key in kept} for point in points]
        found["exponent"] = {side: _exponent(points, f"{side}_s") for side in ("ours", "reference")}
    return found


def _measured_case(row: Row, case: Case, repeats: int, progress: bool) -> dict[str, Any]:
    sides = {"ours": (case.ours, case.n_ours), "reference": (case.reference, case.n_reference)}
    seconds: dict[str, dict[Clock, list[float]]] = {side: {"cpu": [], "wall": []} for side in sides}
    peaks: dict[str, list[int]] = {side: [] for side in sides}
    answers: dict[str, Answer] = {}
    rounds = range(-1 if row.warm else 0, repeats)
    for k in tqdm(rounds, desc=row.name, leave=False, disable=not progress):
        for side in sides if k % 2 else reversed(sides):  # neither is always the one that comes second
            call, n_units = sides[side]
            answer, cpu_s, wall_s, peak = timed(call)
            answers.setdefault(side, answer)
            if peak is not None:
                peaks[side].append(peak)
            if k >= 0:
                seconds[side]["cpu"].append(cpu_s / n_units)
                seconds[side]["wall"].append(wall_s / n_units)
    ours, reference = (check() for check in case.check) if case.check else (answers["ours"], answers["reference"])
    same, said = case.agree(ours, reference)
    found: dict[str, Any] = {"sizes": dict(case.sizes), "unit": case.unit, "n": repeats}
    for side in sides:
        own = seconds[side][row.clock]
        found[f"{side}_s"] = statistics.median(own)
        found[f"{side}_spread_s"] = [min(own), max(own)]
        found[f"{side}_wall_s"] = statistics.median(seconds[side]["wall"])
        found[f"{side}_peak_bytes"] = max(peaks[side]) if peaks[side] else None
    found["ratio"] = found["reference_s"] / found["ours_s"]
    if case.operations is not None:
        found["operations"] = case.operations()
    return {**found, "at": case.at, "same": bool(same), "agreement": said}


def _targets(row: Row, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was demanded, what was found, and whether that is enough."""
    bytes_of = [found[f"{side}_peak_bytes"] for side in ("reference", "ours")]
    memory = bytes_of[0] / max(bytes_of[1], 1) if None not in bytes_of else None
    asked = (
        ("times faster", row.least_ratio, found["ratio"]),
        ("times less memory", row.least_memory_ratio, memory),
        (f"{found['unit']}s per second", row.least_per_s, 1 / found["ours_s"]),
    )
    return [
        {"what": what, "least": least, "found": value, "reached": value is not None and value >= least}
        for what, least, value in asked
        if least is not None
    ]


def _exponent(points: Sequence[Mapping[str, Any]], key: str) -> float:
    """Slope of log seconds over log size: 1 grows in proportion, 2 with the square."""
    sizes, seconds = ([math.log(point[name]) for point in points] for name in ("at", key))
    return float(np.polyfit(sizes, seconds, 1)[0])


def timed(call: Side) -> tuple[Answer, float, float, int | None]:
    """The answer, seconds of the processor (of processes that it started, too) and of the wall, and peak bytes."""
    before = reset_peak()
    cpu_started, started = processor_s(), time.perf_counter()
    answer = call()
    wall_s, cpu_s = time.perf_counter() - started, processor_s() - cpu_started
    return answer, cpu_s, wall_s, None if before is None else max(0, status_bytes("VmHWM") - before)


def processor_s() -> float:
    """Seconds of this process and of those that it started and waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def reset_peak() -> int | None:
    """Let the most memory that this process has held begin anew; bytes held now, or None where that cannot be done."""
    if not os.access(RESET_PEAK, os.W_OK):
        return None
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back first, or the next peak would hide in it
    RESET_PEAK.write_text("5")
    return status_bytes("VmRSS")


def status_bytes(key: str) -> int:
    """A line of /proc/self/status."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


# --- Where and when ---


def surroundings(threads: int) -> dict[str, Any]:
    """Machine, libraries, date, commit, and how busy the machine was."""
    root = Path(__file__).parents[2]
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit_of(root),
        "load": [round(load, 1) for load in os.getloadavg()],
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": threads,
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    }


def commit_of(root: Path) -> str | None:
    """The commit of a clone, with '+' where files differ from it; None outside of one."""
    if not (root / ".git").exists():
        return None
    said = [
        subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()
        for words in (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    ]
    return said[0] + ("+" if said[1] else "")


# --- Answers ---


def near(tolerance: float, relative: bool = False) -> Callable[[Answer, Answer], Agreement]:
    """An agreement in which no number is farther off than the tolerance, or that share of the largest number."""

    def agree(ours: Answer, reference: Answer) -> Agreement:
        farthest = 0.0
        for name, values in reference.items():
            own, wanted = np.asarray(ours[name], dtype=np.float64), np.asarray(values, dtype=np.float64)
            if own.shape != wanted.shape:
                return Agreement(False, f"{name}: shapes {own.shape} and {wanted.shape}")
            scale = float(np.abs(wanted).max()) if relative else 1.0
            farthest = max(farthest, float(np.abs(own - wanted).max()) / scale)
        how = "of the largest number" if relative else "apart"
        return Agreement(farthest <= tolerance, f"at most {farthest:.1g} {how} (allowed: {tolerance:g})")

    return agree


def near_correlations(mean: float, most: float, share: float = 0.99) -> Callable[[Answer, Answer], Agreement]:
    """An agreement of correlations over voxels: of their means, and of all but 1 % of the voxels."""

    def agree(ours: Answer, reference: Answer) -> Agreement:
        apart = {name: np.asarray(ours[name]) - values for name, values in reference.items()}
        means = [float(np.mean(values)) for values in apart.values()]
        worst = max(means, key=abs)
        far = max(float(np.quantile(np.abs(values), share)) for values in apart.values())
        of = float(np.mean(next(reversed(reference.values()))))
        said = f"mean r {of:.4f} {worst:+.5f} (allowed: {mean:g}), {share:.0%} of voxels within {far:.4f} ({most:g})"
        return Agreement(abs(worst) <= mean and far <= most, said)

    return agree
