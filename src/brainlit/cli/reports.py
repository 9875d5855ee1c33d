"""The verbs that read finished runs: `brainlit report`, `export`, `compare` and `curve`.

report writes the page of one run again; export its model as a folder that transformers loads without brainlit; compare
sets regimes side by side, seed by seed, with what they say about the claims; curve sets alignment against the hours of
data that were tuned on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brainlit.cli.errors import UsageError
from brainlit.cli.option_hints import OwnParser
from brainlit.files import only_writer
from brainlit.paths import link, next_command

if TYPE_CHECKING:
    from brainlit.results.run_directory import RunDirectory

COMPARE_DESCRIPTION = """\
Set brain runs against permuted runs of the same models and seeds, then all regimes against each other: a table of the
claims about brain-tuning, each with its number, its interval over seeds and a verdict. Name all runs of a reproduction
at once: any seeds, regimes, permutations and models. docs/comparing.md says how verdicts are made."""


def run_report(arguments: Sequence[str]) -> int:
    """Write summary.json, figures, methods.md and report.html; print the headline, where it is, and what comes next."""
    parser = OwnParser(prog="brainlit report", description="Write the report of a run again.")
    parser.add_argument("run", nargs="?", type=Path, help="a run's folder; the latest run under --root by default")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    given = parser.parse_args(list(arguments))
    from brainlit.results.report import report_run
    from brainlit.results.run_directory import RunDirectory

    run = RunDirectory.open(given.run or latest_run(given.root))
    report, summary = report_run(run)
    for sentence in summary["headline"]:
        print(sentence)
    print(f"Report: {link(report)}\n{next_command('downstream', run.path)}")
    return 0


def latest_run(root: Path) -> Path:
    """Folder of the run that was started or finished last, of those that have been probed.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    from brainlit.results.record import record_files

    found = sorted(root.glob("*/*/status.json"), key=lambda path: path.stat().st_mtime_ns)
    probed = [path.parent for path in found if record_files(path.parent / "probes")]
    if not probed:
        what = (
            f"none of the {len(found)} runs under {root}/ has been probed"
            if found
            else f"there is no run under {root}/"
        )
        raise FileNotFoundError(f"{what}. Train first (brainlit fit -c demo -c wav2vec), or name the run's folder.")
    return probed[-1]


def run_export(arguments: Sequence[str]) -> int:
    """Write the folder; print where it is."""
    parser = OwnParser(
        prog="brainlit export",
        description="Write a tuned model as a Hugging Face folder: config, weights, feature extractor, model card.",
    )
    parser.add_argument("run", type=Path, help="a run's folder, or a checkpoint file")
    parser.add_argument(
        "--checkpoint", default="best", help="best (the default; last where there is none), last, or a checkpoint file"
    )
    parser.add_argument("--output", type=Path, help="folder to write (default: RUN/export)")
    parser.add_argument("--overwrite", action="store_true", help="replace the export of another checkpoint")
    parser.add_argument("--push", metavar="USER/NAME", help="upload the folder to this model of the Hugging Face hub")
    parser.add_argument(
        "--public", action="store_true", help="of --push: a model made for it may be seen by all; else by you alone"
    )
    given = parser.parse_args(list(arguments))
    from brainlit.results.export import Upload, export_model
    from brainlit.results.run_directory import RunDirectory

    if given.public and not given.push:
        raise UsageError("--public is for --push USER/NAME; a folder on this machine is seen by whom its rights let.")
    upload = Upload.open(given.push, public=given.public) if given.push else None

    if given.run.is_file():
        run, checkpoint, output = None, given.run, given.run.with_name(f"{given.run.stem}-export")
    else:
        run = RunDirectory.open(given.run)
        checkpoint, output = chosen_checkpoint(run, given.checkpoint), run.path / "export"
    folder = export_model(checkpoint, given.output or output, run, overwrite=given.overwrite)
    print(f"{checkpoint} is now a model of transformers, with its card: {folder}")
    if upload is not None:
        print(f"Uploaded: {upload.send(folder)}")
    return 0


def chosen_checkpoint(run: RunDirectory, name: str) -> Path:
    """The checkpoint of a run that 'best', 'last' or a path stands for; where there is no best one, the last.

    Raises
    ------
    FileNotFoundError
        If the run has no checkpoint yet.
    UsageError
        If the name is none of these.
    """
    best = run.checkpoints / "best.ckpt"
    if name == "best" and best.is_file():
        return best
    if name in ("best", "last"):
        last = run.last_checkpoint
        if last is None:
            raise FileNotFoundError(
                f"{run.path} has no checkpoint: it was stopped before its first epoch ended, or keeps none"
                " (--trainer.enable_checkpointing false, fast_dev_run)."
            )
        return last
    for path in (Path(name), run.checkpoints / name):
        if path.is_file():
            return path
    found = ", ".join(sorted(path.name for path in run.checkpoints.glob("*.ckpt"))) or "none"
    raise UsageError(f"the checkpoint is {name!r}; give best, last or a file. The run has: {found}.")


def run_compare(arguments: Sequence[str]) -> int:
    """Print the table of `comparison.runs` and that of the claims; write the report where a folder is given."""
    parser = OwnParser(
        prog="brainlit compare", description=COMPARE_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--region", help="region to compare (default: the one that the headline is about)")
    parser.add_argument("--output", type=Path, help="folder for report.html, claims.md, claims.json and figures/")
    parser.add_argument(
        "--into", type=Path, help="page whose part between <!-- claims:begin --> and <!-- claims:end --> is replaced"
    )
    given = parser.parse_args(list(arguments))
    from brainlit.comparison.evidence import read_evidence
    from brainlit.comparison.judged_claims import around_markers, claims_markdown, judge_claims, replace_between
    from brainlit.comparison.report import JSON_FILE, WRITTEN, write_comparison
    from brainlit.comparison.runs import has_pairs, pair_by_seed, pairs_table, read_finished

    if given.into is not None:
        around_markers(given.into, "claims")
    runs = read_finished(named_runs(given.runs), given.region)
    if has_pairs(runs):
        print(pairs_table(pair_by_seed(runs, given.region)), end="\n\n")
    evidence = read_evidence(runs, given.region)
    found = judge_claims(evidence)
    table = claims_markdown(evidence, found)
    print(table, end="")
    if given.into is not None:
        print(f"\nTable: {replace_between(given.into, 'claims', table)}")
    if given.output is not None:
        with only_writer(given.output / JSON_FILE, *WRITTEN):
            print(f"\nReport: {link(write_comparison(evidence, found, given.output))}")
    return 0


def named_runs(paths: Sequence[Path]) -> list[Path]:
    """The paths without what an earlier comparison (or a reproduction) left beside the runs, named by a *."""
    from brainlit.comparison.report import JSON_FILE, WRITTEN

    runs = [path for path in paths if path.name not in (*WRITTEN, "logs") and not (path / JSON_FILE).is_file()]
    return list(dict.fromkeys(runs))


def run_curve(arguments: Sequence[str]) -> int:
    """Print the table of `comparison.fractions`, and write it and its picture."""
    parser = OwnParser(
        prog="brainlit curve",
        description="Set runs with different data.tune_fraction beside each other: alignment by hours of tuning data,"
        " one line per regime. Writes curve.html, curve.csv, curve.png and curve.svg.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs of any fractions, regimes, seeds")
    parser.add_argument("--region", help="region to look at (default: the one that the headline is about)")
    parser.add_argument("--output", type=Path, help="folder to write into (default: the one that all runs lie in)")
    given = parser.parse_args(list(arguments))
    from brainlit.comparison import fractions
    from brainlit.comparison.runs import read_summaries

    runs = [run for run in given.runs if run.name not in fractions.WRITTEN]  # of an earlier call, named by a *
    points = fractions.curve_points(read_summaries(runs), given.region)
    folder = given.output or common_parent(runs)
    figure = fractions.curve_figure(points)
    print(fractions.curve_table(points))
    print(f"\n{figure.caption}")
    with only_writer(folder / fractions.TABLE_FILE, *fractions.WRITTEN[1:]):
        print(f"Table: {fractions.write_curve_table(points, folder)}")
        figure.save(folder)
        page = fractions.write_curve_page(points, figure, folder)
    print(f"Figure: {folder / fractions.FIGURE_FILE}\nPage: {page}")
    return 0


def common_parent(runs: Sequence[Path]) -> Path:
    """The deepest folder that all runs lie in.

    >>> str(common_parent([Path("/a/runs/x/1"), Path("/a/runs/y/1")]))
    '/a/runs'
    """
    return Path(os.path.commonpath([run.absolute().parent for run in runs]))
