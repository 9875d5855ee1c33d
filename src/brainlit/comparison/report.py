"""One self-contained HTML page for many runs: the effect first, then the claims, then what they rest on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlit.comparison import judged_claims
from brainlit.comparison.claims import CANNOT_TELL, NOT_SUPPORTED, SUPPORTED, WITHDRAWN
from brainlit.comparison.effects import BRAIN, PERMUTED, PRETRAINED, Evidence, Key, mean_over_seeds
from brainlit.comparison.figures import comparison_figures
from brainlit.comparison.headline import EFFECT, effect_figure, effect_sentences
from brainlit.results.pages import render_page
from brainlit.results.run_directory import write_json_atomic, write_text_atomic
from brainlit.results.style import Figure

REPORT_FILE, TABLE_FILE, JSON_FILE, FIGURES = "report.html", "claims.md", "claims.json", "figures"
WRITTEN = (REPORT_FILE, TABLE_FILE, JSON_FILE, FIGURES)
"""What a comparison leaves in its folder."""
VERDICT_COLOURS = {
    SUPPORTED: "#2E7E4F",
    NOT_SUPPORTED: "#8D1E14",
    WITHDRAWN: "#7A2E6B",
    CANNOT_TELL: "#7A6118",
}
SECTIONS = {
    "Alignment before and after": "alignment",
    "Low-level share and impact": "low_level",
    "Downstream tasks": "downstream",
    "Meaning or sound": "preference",
    "Layers": "layers",
    "How far the layers moved": "cka",
}
"""Titles of sections and the figures that they show."""


def write_comparison(evidence: Evidence, found: Sequence[judged_claims.JudgedClaim], folder: Path) -> Path:
    """Write claims.md, claims.json, figures/ and report.html; returns the page.

    Other files of the folder are left as they are.
    """
    write_text_atomic(folder / TABLE_FILE, judged_claims.claims_markdown(evidence, found))
    write_json_atomic(folder / JSON_FILE, judged_claims.claims_json(evidence, found))
    drawn = effect_figure(evidence)
    figures = [*([drawn] if drawn is not None else []), *comparison_figures(evidence)]
    for figure in figures:
        figure.save(folder / FIGURES)
    return write_text_atomic(folder / REPORT_FILE, render_comparison(evidence, found, figures))


def render_comparison(evidence: Evidence, found: Sequence[judged_claims.JudgedClaim], figures: Sequence[Figure]) -> str:
    """The page as text."""
    effect = next((figure for figure in figures if figure.name == EFFECT), None)
    by_model = {model: [one for one in found if one.model == model] for model in evidence.models}
    return render_page(
        "comparison.html.j2",
        "Comparison of regimes",
        evidence=evidence,
        about=f"{len(evidence.runs)} runs · {', '.join(evidence.regimes).replace('_', ' ')} · {evidence.place}",
        headline=effect_sentences(evidence),
        effect=effect,
        heads=judged_claims.HEADS,
        by_model={
            model: {
                "topics": judged_claims.by_topic(judged_claims.measured(own)),
                "sentences": judged_claims.sentences(evidence, model, own),
            }
            for model, own in by_model.items()
        },
        row_cells=judged_claims.row_cells,
        verdict_colours=VERDICT_COLOURS,
        rule=judged_claims.RULE,
        power=judged_claims.power_sentence(evidence),
        sections=SECTIONS,
        figures={figure.name: figure for figure in figures},
        maps=[figure for figure in figures if figure.name.startswith("word-map")],
        tasks=list(_tasks(evidence)),
    )


def _tasks(evidence: Evidence) -> Iterator[tuple[str, Any, Any]]:
    """Every task and part: tuned - before and tuned - permuted, mean and interval over seeds."""
    for model in evidence.models:
        for task, part in evidence.tasks:
            key = Key(task, part)
            changes = [_over_seeds(evidence, model, key, other) for other in (PRETRAINED, PERMUTED)]
            yield f"{model}: {task}, {part}", changes[0], changes[1]


def _over_seeds(evidence: Evidence, model: str, key: Key, other: str) -> Mapping[str, float | None] | None:
    mean = mean_over_seeds(evidence.of(model), key, BRAIN, other)
    return None if mean is None else mean.json()
