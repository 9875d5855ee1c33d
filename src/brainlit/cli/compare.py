"""`brainlit compare RUN...`: tuned against permuted runs, model by model and seed by seed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Print the table of `results.comparison` for runs of both regimes."""
    parser = argparse.ArgumentParser(
        prog="brainlit compare",
        description="Set brain runs against permuted runs of the same models and seeds, in one region.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs, both regimes of each model and seed")
    parser.add_argument("--region", help="region to compare (default: the one that the headline is about)")
    given = parser.parse_args(list(arguments))
    from brainlit.results.comparison import comparison_table, pair_by_seed, read_finished

    print(comparison_table(pair_by_seed(read_finished(given.runs), given.region)))
    return 0
