"""The pool of commands: order, limits, failures, interruption. The jobs are tiny programs, never a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from brainlit.cli import run_many
from brainlit.cli.run_many import Job, JobError, Run, run_jobs, seconds_left, thread_variables
from brainlit.files import only_writer
from brainlit.results.run_directory import RunDirectory


def python(name: str, code: str, *after: str) -> Job:
    return Job(name, (sys.executable, "-S", "-c", code), after)


WAIT = """
import os, time
def wait_for(words, path):
    for _ in range(3000):
        if os.path.exists(path) and words in open(path).read():
            return
        time.sleep(0.01)
    raise SystemExit(f"waited in vain for {words}")
"""


def noting(folder: Path, name: str, *after: str, until: str = "", seconds: float = 0.0) -> Job:
    """A job that notes when it began and ended; it ends so long after others have noted what it waits for."""
    path = str(folder / "notes")
    note = f"open({path!r}, 'a').write"
    waiting = f"{WAIT}\n{note}('{name} begins\\n')\nwait_for({until!r}, {path!r})\ntime.sleep({seconds})"
    return python(name, f"{waiting}\n{note}('{name} ends\\n')", *after)


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_many, "POLL_S", 0.01)
    monkeypatch.setattr(run_many, "PATIENCE_S", 1.0)


@pytest.fixture
def usual_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM as in a terminal, whoever started the tests."""
    ours = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in ours.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_jobs_run_in_their_order_after_those_they_wait_for(tmp_path: Path) -> None:
    jobs = [
        noting(tmp_path, "first"),
        noting(tmp_path, "second", "first"),
        noting(tmp_path, "third"),
        noting(tmp_path, "fourth", "second", "third"),
    ]
    taken = run_jobs(jobs, tmp_path / "logs", 1)
    assert notes(tmp_path) == [f"{job.name} {what}" for job in jobs for what in ("begins", "ends")]
    assert list(taken) == ["first", "second", "third", "fourth"]
    assert min(taken.values()) > 0


def test_a_job_that_waits_is_overtaken(tmp_path: Path) -> None:
    jobs = [
        noting(tmp_path, "slow", until="overtakes ends"),
        noting(tmp_path, "waits", "slow"),
        noting(tmp_path, "overtakes"),
    ]
    run_jobs(jobs, tmp_path / "logs", 2)
    lines = notes(tmp_path)
    assert lines.index("overtakes ends") < lines.index("slow ends") < lines.index("waits begins")


def test_no_more_than_so_many_run_at_once(tmp_path: Path) -> None:
    first = [noting(tmp_path, "job0", until="job1 begins"), noting(tmp_path, "job1", until="job0 begins")]
    run_jobs([*first, *(noting(tmp_path, f"job{k}", seconds=0.1) for k in range(2, 6))], tmp_path / "logs", 2)
    running, most = 0, 0
    for line in notes(tmp_path):
        running += 1 if line.endswith("begins") else -1
        most = max(most, running)
    assert most == 2


def test_a_job_has_a_log_our_variables_and_no_input(tmp_path: Path) -> None:
    code = (
        "import os, sys; print(os.environ['OMP_NUM_THREADS'], repr(sys.stdin.read())); print('to err', file=sys.stderr)"
    )
    for _ in range(2):
        run_jobs([python("says", code)], tmp_path / "logs", 1, thread_variables(2, 6))
    assert sorted((tmp_path / "logs" / "says.txt").read_text().splitlines()) == ["3 ''"] * 2 + ["to err"] * 2


def test_after_a_failure_the_others_finish_and_none_starts(tmp_path: Path) -> None:
    note = f"open({str(tmp_path / 'notes')!r}, 'a').write('failing\\n')"
    failing = f"{note}; [print('line', k) for k in range(30)]; print('50%\\r100%'); raise SystemExit(3)"
    jobs = [
        noting(tmp_path, "runs", until="failing", seconds=1.0),
        python("fails", failing),
        noting(tmp_path, "late"),
        noting(tmp_path, "waits", "fails"),
    ]
    with pytest.raises(JobError) as caught:
        run_jobs(jobs, tmp_path / "logs", 2)
    assert sorted(notes(tmp_path)) == ["failing", "runs begins", "runs ends"]
    lines = str(caught.value).splitlines()
    assert lines[0] == f"fails failed (exit status 3). The end of its log, {tmp_path / 'logs' / 'fails.txt'}:"
    assert lines[1:] == [*(f"  | line {k}" for k in range(16, 30)), "  | 100%"], "15 lines, of a bar its last state"


def test_a_job_that_was_killed_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(
        JobError, match=r"ended by SIGKILL, as the system does where memory runs out.*\n  \(it is empty"
    ):
        run_jobs([python("dies", "import os; os.kill(os.getpid(), 9)")], tmp_path / "logs", 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_jobs(tmp_path: Path, usual_signals: None, number: signal.Signals) -> None:
    """One ends when it is asked to, the other asks back until it is killed."""
    path = str(tmp_path / "polite")
    polite = f"note = open({path!r}, 'ab', buffering=0)\ntry: note.write(b'begins ') and time.sleep(60)\n"
    polite = f"import time\n{polite}except KeyboardInterrupt: note.write(b'asked')"
    stubborn = (
        f"{WAIT}\nfrom signal import SIG_IGN, SIGINT, SIGTERM, signal; [signal(n, SIG_IGN) for n in (SIGINT, SIGTERM)]"
        f"\nprint(os.getpid(), flush=True); wait_for('begins', {path!r}); os.kill(os.getppid(), {int(number)})"
        "\ntime.sleep(60)"
    )
    jobs = [python("polite", polite), python("stubborn", stubborn)]
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([*jobs, noting(tmp_path, "late")], tmp_path / "logs", 2)
    assert time.monotonic() - started < 30
    assert (tmp_path / "polite").read_text() == "begins asked"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "logs" / "stubborn.txt").read_text()), 0)
    assert notes(tmp_path) == []
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_jobs_end_when_their_parent_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent is a process of its own, which is killed without a chance to end its jobs."""
    path = str(tmp_path / "polite")
    ending = "import brainlit.cli as cli, os, time; cli.WATCH_S, cli.PATIENCE_S = 0.05, {patience_s}\n"
    ending += "cli.end_with_parent(int(os.environ[cli.PARENT_VARIABLE]))\n"
    polite = f"note = open({path!r}, 'a', buffering=1)\ntry: print(os.getpid(), file=note) or time.sleep(60)\n"
    # whoever starts these tests in the background of a shell has SIGINT ignored
    usual = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    polite = f"{usual}{ending.format(patience_s=30)}{polite}except KeyboardInterrupt: note.write('asked')"
    stubborn = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{ending.format(patience_s=0.5)}"
    stubborn += "print(os.getpid(), flush=True)\ntime.sleep(60)"
    code = (
        "import sys; from pathlib import Path; from brainlit.cli.run_many import Job, run_jobs\n"
        f"jobs = [Job(str(k), (sys.executable, '-c', code)) for k, code in enumerate({[polite, stubborn]!r})]\n"
        f"run_jobs(jobs, Path({str(tmp_path)!r}), 2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    files = (tmp_path / "polite", tmp_path / "1.txt")
    while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < until:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    numbers = [int(file.read_text().split()[0]) for file in files]
    while any(map(_alive, numbers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(_alive, numbers))
    assert (tmp_path / "polite").read_text().endswith("asked")


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{number}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


def test_a_plan_waits_for_runs_that_others_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = RunDirectory.claim(tmp_path, "reproduce", "busy")
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            busy.release()

    monkeypatch.setattr(run_many.time, "sleep", wait)
    run_many.wait_for_others([Run(tmp_path / "reproduce" / name, "brain", 1, ()) for name in ("busy", "new")])
    assert len(waited) == 3
    assert capsys.readouterr().err == f"waiting: another process is writing {busy.path}\n"


def test_a_plan_waits_for_downstream_tasks_that_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = RunDirectory.create(tmp_path, "reproduce", "a")
    finished.finish()
    busy, waited = ExitStack(), list[float]()
    busy.enter_context(only_writer(finished.path / "downstream"))

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            busy.close()

    monkeypatch.setattr(run_many.time, "sleep", wait)
    run_many.wait_for_others([Run(finished.path, "brain", 1, ())])
    assert len(waited) == 3


def test_plans_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two jobs are called 'a'"):
        run_jobs([noting(tmp_path, "a"), noting(tmp_path, "a")], tmp_path / "logs", 1)
    with pytest.raises(ValueError, match=r"job 'a' waits for \['b'\], which do not come before it"):
        run_jobs([noting(tmp_path, "a", "b"), noting(tmp_path, "b")], tmp_path / "logs", 1)
    assert notes(tmp_path) == []


def test_nothing_to_do_is_done(tmp_path: Path) -> None:
    assert run_jobs([], tmp_path / "logs", 2) == {}


def test_the_time_left_is_that_of_the_kinds_that_are_known() -> None:
    taken = {"fit": [90.0, 110.0], "ask": [20.0]}
    assert seconds_left(["fit"], [], {}, 1) is None
    assert seconds_left([], [("fit", 30.0)], taken, 1) == 70
    assert seconds_left(["fit", "ask"], [("fit", 500.0)], taken, 2) == 60, "one that takes longer ends at any moment"
    assert seconds_left(["new"], [], taken, 1) == pytest.approx(220 / 3), "the mean of all where a kind is new"


@pytest.mark.parametrize(("n_at_once", "n_cores", "each"), [(2, 2, "1"), (1, 8, "8"), (3, 2, "1")])
def test_jobs_share_the_cores(n_at_once: int, n_cores: int, each: str) -> None:
    assert set(thread_variables(n_at_once, n_cores).values()) == {each}


def test_the_bar_says_what_runs_and_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_jobs([noting(tmp_path, "one", seconds=0.2), noting(tmp_path, "two", seconds=0.2)], tmp_path / "logs", 1)
    shown = capsys.readouterr().err
    assert "now one" in shown
    assert "1/2" in shown
    assert "left; now two" in shown
    assert "2/2" in shown
