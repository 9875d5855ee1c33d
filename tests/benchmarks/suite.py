"""What brainlit costs beside plain references: `make bench`, or python -m tests.benchmarks.suite.

Every row runs brainlit and a plain reference in this process, in turns, and compares their answers: a row whose answers
differ fails, and so does the command. The file of one run is what a later run is compared to. Other programs on the
same cores slow both sides down, so ratios are fair where seconds are not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from brainlit.files import atomic_path
from brainlit.hints import did_you_mean
from brainlit.results.tables import markdown_table
from tests.benchmarks import suite_probe_rows, suite_speech_rows
from tests.benchmarks.suite_measuring import FORMAT, SLOWER, Row, measured, surroundings

ROWS: tuple[Row, ...] = (*suite_speech_rows.ROWS, *suite_probe_rows.ROWS)
EXAMPLES = """\
examples:
  make bench                                                  all rows, ten to fifteen minutes of one free core
  make bench ARGS="--quick --output now.json --compare earlier.json"
  make bench ARGS="--rows banded partition"
  make bench ARGS="--rows store_real_size"                    not among the usual ones: 25 GB of disk, ten minutes more

exit status: 0 all answers are the same, 1 some are not, 2 wrong use. A target that is not reached is said, no failure.
"""
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run rows, write their file, print their tables; returns the exit status."""
    options = _options(arguments)
    then = read(options.compare) if options.compare else None
    size = "quick" if options.quick else "full"
    known = {row.name: row for row in ROWS}
    rows = [known[name] for name in options.rows] if options.rows else [row for row in ROWS if row.by_default]
    threads_before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {**surroundings(options.threads), "rows": []}
    try:
        with threadpool_limits(options.threads):
            for row in rows:
                with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                    found["rows"].append(measured(row, size, Path(folder), options.repeats))
                print(line_of(found["rows"][-1]), flush=True)
                write(found, options.output)  # after each row: what was measured stays where one is stopped
    finally:
        torch.set_num_threads(threads_before)
    print("\n" + "\n".join(page_lines(found)))
    if options.page:
        write_page(found, options.page)
    if then is not None:
        print("\n" + "\n".join(comparison(found, then)))
    if wrong := [row["name"] for row in found["rows"] if not row["same"]]:
        print(f"\nFAILED: ours and the reference answer differently in {', '.join(wrong)}.", file=sys.stderr)
    return 1 if wrong else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.suite",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="+", metavar="ROW", help=f"which: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, about three minutes of one free core")
    parser.add_argument("--repeats", type=int, help="counted rounds of each row, the median of which counts")
    parser.add_argument("--threads", type=int, default=1, help="threads of every library (1)")
    parser.add_argument("--folder", type=Path, help="where to work (the temporary folder)")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), help="file to write (bench.json)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="page whose tables are to be this run's, too")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="that of an earlier run")
    options = parser.parse_args(arguments)
    for name in options.rows or ():
        if name not in names:
            parser.error(f"there is no row {name!r}. {did_you_mean(name, names)}")
    if min(options.threads, 1 if options.repeats is None else options.repeats) < 1:
        parser.error("--threads and --repeats are at least 1.")
    if options.page and not options.page.is_file():
        parser.error(f"--page {options.page}: there is no such page; name docs/benchmarks.md.")
    if options.compare and not options.compare.is_file():
        parser.error(f"--compare {options.compare}: there is no such file; name one that --output wrote.")
    return options


def read(path: Path) -> dict[str, Any]:
    """A file of the suite.

    Raises
    ------
    ValueError
        If it is something else.
    """
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("format") != FORMAT or "rows" not in found:
        raise ValueError(f"{path} is no file of this suite (format {FORMAT}); name one that make bench wrote.")
    return found


def write(found: Mapping[str, Any], path: Path) -> None:
    """The file, whole or not at all."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def write_page(found: Mapping[str, Any], page: Path) -> None:
    """The tables of a run between the marks of a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    with atomic_path(page) as part:
        part.write_text("\n".join([before + BEGIN, *page_lines(found), END + after]), encoding="utf-8")


# --- Tables ---


def line_of(row: Mapping[str, Any]) -> str:
    """A row in one line, as soon as it is there."""
    verdict = "" if row["same"] else "  ANSWERS DIFFER"
    return f"{row['name']:20} {seconds(row['ours_s'])} / {seconds(row['reference_s'])}  {row['ratio']:.2f} x{verdict}"


def page_lines(found: Mapping[str, Any]) -> list[str]:
    """All tables of a run in Markdown: where it ran, rows, targets, growth."""
    machine, rows = found["machine"], found["rows"]
    libraries = ", ".join(f"{name} {machine[name]}" for name in ("torch", "numpy", "himalaya", "transformers"))
    lines = [
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores,"
        f" {machine['memory_gb']:g} GB; {libraries}; commit {found['commit']}, {found['date']};"
        f" {found['load'][0]:g} programs were running at the start, this one aside.",
        "",
    ]
    heads = ["row", "ours", "reference", "of one", "ours takes", "reference takes", "ratio", "memory", "answers"]
    lines += markdown_table(heads, [_cells(row) for row in rows])
    if asked := [(row["name"], target) for row in rows for target in row["targets"]]:
        cells = [
            [
                f"`{name}`",
                f"{target['least']:,g} {target['what']}",
                "not measured" if target["found"] is None else f"{target['found']:,.3g}",
                "yes" if target["reached"] else "**no**",
            ]
            for name, target in asked
        ]
        lines += ["", *markdown_table(["row", "asked for, at least", "found", "reached"], cells)]
    if growing := [row for row in rows if "growth" in row]:
        cells = [
            [
                f"`{row['name']}`",
                ", ".join(f"{point['at']:,g}: {seconds(point['ours_s'])}" for point in row["growth"]),
                ", ".join(seconds(point["reference_s"]) for point in row["growth"]),
                f"{row['exponent']['ours']:.2f}, {row['exponent']['reference']:.2f}",
            ]
            for row in growing
        ]
        heads = ["row", "ours, by size", "reference", "seconds grow with size to the power of (ours, reference)"]
        lines += ["", *markdown_table(heads, cells)]
    return lines


def _cells(row: Mapping[str, Any]) -> list[str]:
    sizes = ", ".join(f"{name} {_plain(value)}" for name, value in row["sizes"].items())
    spans = [
        f"{seconds(row[f'{side}_s'])} ({' to '.join(seconds(s) for s in row[f'{side}_spread_s'])})"
        for side in ("ours", "reference")
    ]
    peaks = [row[f"{side}_peak_bytes"] for side in ("ours", "reference")]
    memory = "not measured" if None in peaks else " / ".join(f"{peak / 1e6:,.0f} MB" for peak in peaks)
    answers = f"{'same' if row['same'] else '**differ**'}: {row['agreement']}"
    of_one = f"{row['unit']}, {row['clock']}, n = {row['n']}, {row['size']} size: {sizes}"
    return [f"`{row['name']}`", row["ours"], row["reference"], of_one, *spans, f"{row['ratio']:.2f} x", memory, answers]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " + ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def seconds(value: float) -> str:
    """With a unit that suits it.

    >>> seconds(12.34), seconds(0.0123), seconds(0.0000456)
    ('12.3 s', '12.3 ms', '0.0456 ms')
    """
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def comparison(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Ratios now and then in a table, and in words what is slower and how the machines differ.

    What counts is the ratio to the reference beside which a row ran, for seconds depend on what else the machine did.
    """
    earlier = {row["name"]: row for row in then["rows"]}
    cells, said = [], []
    for row in now["rows"]:
        old = earlier.get(row["name"])
        if old is None or (old["size"], old["sizes"]) != (row["size"], row["sizes"]):
            why = "was not measured then" if old is None else "had other sizes then"
            cells.append([f"`{row['name']}`", "", f"{row['ratio']:.2f} x", "", why])
            continue
        change = row["ratio"] / old["ratio"]
        slower = change < 1 / SLOWER
        remark = f"**slower by {100 * (1 / change - 1):.0f} %**" if slower else ""
        numbers = [f"{old['ratio']:.2f} x", f"{row['ratio']:.2f} x", f"{change:.2f}"]
        cells.append([f"`{row['name']}`", *numbers, remark])
        if slower:
            said.append(
                f"WARNING: {row['name']} is slower: beside its reference it costs {1 / change:.2f} times what it cost"
                f" then ({seconds(old['ours_s'])} then, {seconds(row['ours_s'])} now)."
            )
    keys = {*now["machine"], *then["machine"]}
    differ = sorted(key for key in keys if now["machine"].get(key) != then["machine"].get(key))
    if differ:
        parts = "; ".join(f"{key}: {then['machine'].get(key)} then, {now['machine'].get(key)} now" for key in differ)
        said.append(f"The machines differ, and ratios with them: {parts}.")
    title = f"Ratios of {then['date']} (commit {then['commit']}) and of {now['date']} (commit {now['commit']})"
    table = markdown_table(["row", "then", "now", "now / then", ""], cells)
    return [title, "", *table, *(["", *said] if said else [])]


if __name__ == "__main__":
    sys.exit(main())
