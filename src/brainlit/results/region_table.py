"""The numbers of one probe as a table to print: what was measured down the page, regions across it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from brainlit.results.band_names import bands_of, labels
from brainlit.results.members import agreement_said, subject_said
from brainlit.results.record import fitted_on_tuned_said, folds_said
from brainlit.results.summary import find_score, regions_of, word_sentences
from brainlit.results.tables import SIMULATED, count_said, markdown_table, score_said

REGIONS_ACROSS = 5


def region_table(summary: Mapping[str, Any]) -> str:
    """Markdown: the compared layer's numbers of every region, with their intervals, what they rest on and formulas.

    Parameters
    ----------
    summary : mapping
        Of `summary.build_summary`, with the probe of one moment: of several, the last one is shown.
    """
    regions = regions_of(summary)
    shown = {
        metric: label
        for metric, label in labels(bands_of(summary)).items()
        if any(find_score(summary, region, metric) for region in regions)
    }
    lines = [SIMULATED, ""] if summary.get("run", {}).get("simulated") else []
    for start in range(0, len(regions), REGIONS_ACROSS):
        lines += [*_block(summary, regions[start : start + REGIONS_ACROSS], shown), ""]
    return "\n".join([*lines, *(f"- {line}" for line in (*_rest_on(summary), *_formulas(summary, shown)))])


def _block(summary: Mapping[str, Any], regions: Sequence[str], shown: Mapping[str, str]) -> list[str]:
    counts = [find_score(summary, region, "r_backbone") for region in regions]
    rows = [
        [name, *("-" if row is None else str(row[key]) for row in counts)]
        for name, key in (("subjects", "n_subjects"), ("voxels", "n_voxels"))
    ]
    for metric, label in shown.items():
        found = [find_score(summary, region, metric) for region in regions]
        rows.append([label, *(_cell(row, count) for row, count in zip(found, counts, strict=True))])
    return markdown_table(["", *(region.replace("_", " ") for region in regions)], rows)


def _cell(row: Mapping[str, Any] | None, counted: Mapping[str, Any] | None) -> str:
    """A number, and of how many subjects it is where these are not all that are counted for the region."""
    if row is None:
        return score_said(None)
    said = score_said(row.get("after", row.get("before")), ".1f" if row["metric"].startswith("impact") else ".3f")
    n = row["n_subjects"]
    return said if counted is not None and n == counted["n_subjects"] else f"{said} (of {count_said(n, 'subject')})"


def _rest_on(summary: Mapping[str, Any]) -> Iterator[str]:
    probe, boot = summary["probe"], summary["probe"].get("bootstrap", {})
    subjects = [subject_said(name, facts) for name, facts in probe["subjects"].items()]
    whose = subjects[0] if len(subjects) == 1 else f"mean over the subjects counted above, of {', '.join(subjects)}"
    yield f"{whose}; layer {probe['layer']}; voxels of all subjects together"
    if said := agreement_said(probe["subjects"], summary["headline_region"]):
        yield said
    if folds := folds_said(probe):
        yield f"{folds}: {' | '.join(', '.join(spans) for spans in probe['folds']['score'])}"
    for role, done in (("score", "scored on"), ("fit", "fitted on")) if not folds else ():
        yield f"{done} {', '.join(probe.get(f'{role}_spans', []))} ({probe.get(f'n_{role}_trs')} TRs used)"
    if said := fitted_on_tuned_said(probe):
        yield said
    yield from word_sentences(summary)
    yield (
        f"[low, high]: 95 % interval, block bootstrap over time within the scored {'folds' if folds else 'stories'},"
        f" {boot.get('block_trs')}-TR blocks or longer, {boot.get('n_bootstraps')} draws, seed {boot.get('seed')},"
        " widened for the number of blocks and what their borders hide"
        f"{', and for the rows that the fits of the folds share' if folds else ''}; it says nothing about other"
        " stories or people"
    )


def _formulas(summary: Mapping[str, Any], shown: Mapping[str, str]) -> Iterator[str]:
    """Each formula once, under the name that its rows begin with."""
    said = set()
    for metric, label in shown.items():
        name = metric if metric in summary["formulas"] else metric.partition("_")[0]
        if name in summary["formulas"] and name not in said:
            said.add(name)
            yield f"{label if name == metric else name}: {summary['formulas'][name]}"
