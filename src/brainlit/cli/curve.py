"""`brainlit curve RUN...`: alignment against the share of the data that was tuned on."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Print the table of `results.fractions`, and write it and its picture."""
    parser = argparse.ArgumentParser(
        prog="brainlit curve",
        description="Set runs with different data.tune_fraction beside each other: alignment by hours of tuning data,"
        " one line per regime. Writes curve.csv and curve.png.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs of any fractions, regimes, seeds")
    parser.add_argument("--region", help="region to look at (default: the one that the headline is about)")
    parser.add_argument("--output", type=Path, help="folder to write into (default: the one that all runs lie in)")
    given = parser.parse_args(list(arguments))
    from brainlit.results.comparison import read_summaries
    from brainlit.results.fraction_figure import FIGURE_FILE, curve_figure, save_curve_figure
    from brainlit.results.fractions import TABLE_FILE, curve_points, curve_table, write_curve_table

    runs = [run for run in given.runs if run.name not in (TABLE_FILE, FIGURE_FILE)]  # of an earlier call, by a *
    points = curve_points(read_summaries(runs), given.region)
    folder = given.output or common_parent(runs)
    figure = curve_figure(points)
    print(curve_table(points))
    print(f"\n{figure.caption}")
    print(f"Table: {write_curve_table(points, folder)}")
    print(f"Figure: {save_curve_figure(figure, folder)}")
    return 0


def common_parent(runs: Sequence[Path]) -> Path:
    """The deepest folder that all runs lie in.

    >>> str(common_parent([Path("/a/runs/x/1"), Path("/a/runs/y/1")]))
    '/a/runs'
    """
    return Path(os.path.commonpath([run.absolute().parent for run in runs]))
