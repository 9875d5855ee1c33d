"""`brainlit figure NAME RUN... -o FILE`: one figure of a run, or of a comparison of runs, as a paper needs it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainlit.cli.errors import UsageError
from brainlit.cli.option_hints import OwnParser
from brainlit.files import write_bytes
from brainlit.hints import did_you_mean

if TYPE_CHECKING:
    from brainlit.results.style import Figure

WIDTHS_MM = {"column": 88.0, "page": 180.0}
"""Of one column and of the page, as most journals have them."""
NARROWEST_MM, WIDEST_MM = 40.0, 500.0
FORMATS = (".pdf", ".svg", ".png")
CURVE = "curve"
DESCRIPTION = """\
Draw one figure as a file for a paper: vectors, text of 7 points, fonts embedded, in the width of a column or a page.
Of one run, the figures of its report; of several, those of their comparison; `curve` is that of `brainlit curve`.
Without -o the names that these runs have are listed. What the figure shows (formula, stories, n, interval) is printed,
for the caption."""


def run_figure(arguments: Sequence[str]) -> int:
    """Write the figure and print its caption; without a file, list the names that there are."""
    parser = OwnParser(
        prog="brainlit figure", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="alignment, partition, layers, ...; any word where names are to be listed")
    parser.add_argument("runs", nargs="+", type=Path, help="a run's folder, or those of several finished runs")
    parser.add_argument("-o", "--output", type=Path, help=f"file to write: {', '.join(FORMATS)}")
    parser.add_argument(
        "--width", default="page", help="column (88 mm), page (180 mm, the default), or a number of millimetres"
    )
    parser.add_argument("--regions", nargs="+", metavar="REGION", help="of one run: only these, for a narrow figure")
    parser.add_argument("--region", help="region that runs are compared in (default: the one of their headline)")
    given = parser.parse_args(list(arguments))
    width_mm = _width_mm(given.width)
    if given.output is not None and given.output.suffix.lower() not in FORMATS:
        raise UsageError(f"-o is {given.output}; its ending says what to write: {', '.join(FORMATS)}.")
    if given.region is not None and len(given.runs) == 1:
        raise UsageError("--region is for several runs; the figures of one run show its regions beside each other.")
    if given.regions is not None and len(given.runs) > 1:
        raise UsageError("--regions is for the figures of one run; several are compared in one --region.")
    if given.name == CURVE:
        drawers = _curve(given.runs, given.region)
    else:
        one = len(given.runs) == 1
        drawers = _of_run(given.runs[0], given.regions) if one else _of_runs(given.runs, given.region)
    if given.output is None:
        print("\n".join(drawers))
        return 0
    if given.name not in drawers:
        of = given.runs[0] if len(given.runs) == 1 else f"these {len(given.runs)} runs"
        raise UsageError(f"there is no figure {given.name!r} of {of}. {did_you_mean(given.name, drawers)}")
    figure = drawers[given.name]()
    if figure is None or figure.print_as is None:
        raise UsageError(f"the figure {given.name!r} has no numbers in {', '.join(map(str, given.runs))}.")
    content = figure.print_as(given.output.suffix.lower().removeprefix("."), width_mm)
    write_bytes(given.output, content)
    print(f"{figure.caption}\n\nAlternative text: {figure.alt}\n\nFigure: {given.output}, {width_mm:g} mm wide")
    return 0


def _width_mm(asked: str) -> float:
    if asked in WIDTHS_MM:
        return WIDTHS_MM[asked]
    try:
        width_mm = float(asked)
    except ValueError:
        width_mm = 0.0
    if not NARROWEST_MM <= width_mm <= WIDEST_MM:
        raise UsageError(f"--width is {asked}; give column, page, or {NARROWEST_MM:g} to {WIDEST_MM:g} (millimetres).")
    return width_mm


def _of_run(folder: Path, regions: Sequence[str] | None) -> dict[str, Callable[[], Figure | None]]:
    """Drawing functions by name: the charts of the summary that have numbers, and the map of each subject."""
    from brainlit.results.brain_figures import brain_figures
    from brainlit.results.figures import summary_figures
    from brainlit.results.metrics import METRICS_FILE, read_metrics
    from brainlit.results.record import find_records
    from brainlit.results.run_directory import RunDirectory
    from brainlit.results.summary import build_summary, regions_of

    run = RunDirectory.open(folder)
    records = find_records(run.probes)
    summary = build_summary(run, records)
    if regions is not None:
        known = regions_of(summary)
        if unknown := [name for name in regions if name not in known]:
            raise UsageError(f"--regions names {unknown[0]!r}. {did_you_mean(unknown[0], known)}")
        summary = {**summary, "scores": [row for row in summary["scores"] if row["region"] in regions]}
    found = dict(summary_figures(summary, read_metrics(run.path / METRICS_FILE)))
    simulated = bool(summary["run"].get("simulated"))
    for subject in summary["probe"]["subjects"]:
        own = [record for record in records if record.subject == subject]
        found |= dict(brain_figures(own, simulated=simulated)[0])
    return found


def _of_runs(folders: Sequence[Path], region: str | None) -> dict[str, Callable[[], Figure | None]]:
    """Those of the comparison; read only where one of them is asked for, since runs of a curve cannot be compared."""
    from brainlit.cli.reports import named_runs
    from brainlit.comparison.evidence import read_evidence
    from brainlit.comparison.figures import comparison_figures
    from brainlit.comparison.headline import effect_figure
    from brainlit.comparison.runs import read_finished

    evidence = read_evidence(read_finished(named_runs(folders), region), region)
    figures = [effect_figure(evidence), *comparison_figures(evidence)]
    return {figure.name: lambda figure=figure: figure for figure in figures if figure is not None}  # type: ignore[misc]


def _curve(folders: Sequence[Path], region: str | None) -> dict[str, Callable[[], Figure | None]]:
    from brainlit.cli.reports import named_runs
    from brainlit.comparison import fractions
    from brainlit.comparison.runs import read_summaries

    points = fractions.curve_points(read_summaries(named_runs(folders)), region)
    return {CURVE: lambda: fractions.curve_figure(points)}
