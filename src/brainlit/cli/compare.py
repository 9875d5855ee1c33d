"""`brainlit compare RUN...`: regimes side by side, seed by seed, and what they say about the claims."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """\
Set brain runs against permuted runs of the same models and seeds, then all regimes against each other: a table of the
claims about brain-tuning, each with its number, its interval over seeds and a verdict. Name all runs of a reproduction
at once: any seeds, regimes, permutations and models. docs/comparing.md says how verdicts are made."""


def main(arguments: Sequence[str]) -> int:
    """Print the table of `results.comparison` and that of the claims; write the report where a folder is given."""
    parser = argparse.ArgumentParser(
        prog="brainlit compare", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs")
    parser.add_argument("--region", help="region to compare (default: the one that the headline is about)")
    parser.add_argument("--output", type=Path, help="folder for report.html, claims.md, claims.json and figures/")
    parser.add_argument(
        "--into", type=Path, help="page whose part between <!-- claims:begin --> and <!-- claims:end --> is replaced"
    )
    given = parser.parse_args(list(arguments))
    from brainlit.results.claims_table import around_markers, claims_markdown, replace_between
    from brainlit.results.comparison import comparison_table, has_pairs, pair_by_seed, read_finished
    from brainlit.results.comparison_report import write_comparison
    from brainlit.results.evidence import read_evidence
    from brainlit.results.findings import findings

    if given.into is not None:
        around_markers(given.into, "claims")
    runs = read_finished(named_runs(given.runs), given.region)
    if has_pairs(runs):
        print(comparison_table(pair_by_seed(runs, given.region)), end="\n\n")
    evidence = read_evidence(runs, given.region)
    found = findings(evidence)
    table = claims_markdown(evidence, found)
    print(table, end="")
    if given.into is not None:
        print(f"\nTable: {replace_between(given.into, 'claims', table)}")
    if given.output is not None:
        print(f"\nReport: {write_comparison(evidence, found, given.output)}")
    return 0


def named_runs(paths: Sequence[Path]) -> list[Path]:
    """The paths without what an earlier comparison (or a reproduction) left beside the runs, named by a *."""
    from brainlit.results.comparison_report import JSON_FILE, WRITTEN

    runs = [path for path in paths if path.name not in (*WRITTEN, "logs") and not (path / JSON_FILE).is_file()]
    return list(dict.fromkeys(runs))
