"""`brainlit report [RUN]`: write the report of a run again, from what lies in its folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Write summary.json, the figures and report.html; print the headline and where the report is."""
    parser = argparse.ArgumentParser(prog="brainlit report", description="Write the report of a run again.")
    parser.add_argument("run", nargs="?", type=Path, help="a run's folder; the latest run under --root by default")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    given = parser.parse_args(list(arguments))
    from brainlit.results.report import write_report
    from brainlit.results.run_directory import RunDirectory, read_json
    from brainlit.results.summary import SUMMARY_FILE

    run = RunDirectory.open(given.run or latest_run(given.root))
    report = write_report(run)
    for sentence in read_json(run.path / SUMMARY_FILE)["headline"]:
        print(sentence)
    print(f"Report: {report}")
    return 0


def latest_run(root: Path) -> Path:
    """Folder of the run that was started or finished last.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    found = sorted(root.glob("*/*/status.json"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise FileNotFoundError(f"there is no run under {root}/. Train first (make train), or name the run's folder.")
    return found[-1].parent
