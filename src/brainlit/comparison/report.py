"""One self-contained HTML page for many runs: the claims first, then what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from brainlit.comparison.claims import CANNOT_TELL, NOT_MEASURED, NOT_SUPPORTED, SUPPORTED, TOPICS
from brainlit.comparison.effects import BRAIN, PERMUTED, PRETRAINED, Evidence, Key, over_seeds
from brainlit.comparison.figures import comparison_figures
from brainlit.comparison.judged_claims import (
    HEADS,
    RULE,
    JudgedClaim,
    claims_json,
    claims_markdown,
    note_sentences,
    plain_sentences,
    power_sentence,
    row_cells,
)
from brainlit.files import atomic_path
from brainlit.results import report as html
from brainlit.results.run_directory import write_json_atomic, write_text_atomic
from brainlit.results.style import Figure

REPORT_FILE, TABLE_FILE, JSON_FILE, FIGURES = "report.html", "claims.md", "claims.json", "figures"
WRITTEN = (REPORT_FILE, TABLE_FILE, JSON_FILE, FIGURES)
"""What a comparison leaves in its folder."""
BADGES = {SUPPORTED: "#2E7D4F", NOT_SUPPORTED: "#B3402E", CANNOT_TELL: "#8A6D1B", NOT_MEASURED: "#667080"}
SECTIONS = {
    "alignment": "Alignment before and after",
    "low_level": "Low-level share and impact",
    "downstream": "Downstream tasks",
    "preference": "Meaning or sound",
    "layers": "Layers",
    "cka": "How far the layers moved",
}


def write_comparison(evidence: Evidence, found: Sequence[JudgedClaim], folder: Path) -> Path:
    """Write claims.md, claims.json, figures/ and report.html; returns the page.

    Other files of the folder are left as they are.
    """
    write_text_atomic(folder / TABLE_FILE, claims_markdown(evidence, found))
    write_json_atomic(folder / JSON_FILE, claims_json(evidence, found))
    figures = comparison_figures(evidence)
    for figure in figures:
        for suffix, data in ((".png", figure.png), (".svg", figure.svg)):
            if data is not None:
                with atomic_path(folder / FIGURES / f"{figure.name}{suffix}") as temporary:
                    temporary.write_bytes(data)
    return write_text_atomic(folder / REPORT_FILE, render_comparison(evidence, found, figures))


def render_comparison(evidence: Evidence, found: Sequence[JudgedClaim], figures: Sequence[Figure]) -> str:
    """The page as text."""
    drawn = {figure.name: figure for figure in figures}
    maps = [html.figure_tag(figure) for figure in figures if figure.name.startswith("word-map")]
    body = [
        _header(evidence, found),
        html.section("The claims", *[_claims_of(evidence, found, model) for model in evidence.models]),
        html.section("How verdicts are made", html.paragraph(RULE), html.paragraph(power_sentence(evidence))),
        *[
            html.section(title, html.figure_tag(drawn[name]), _tasks_table(evidence) if name == "downstream" else "")
            for name, title in SECTIONS.items()
            if name in drawn
        ],
        html.section("Words before and after", *maps) if maps else "",
        html.section("What the tasks themselves warn of", html.bullets(evidence.notes)) if evidence.notes else "",
        html.section("Not there", html.bullets(evidence.missing)) if evidence.missing else "",
        html.section("Runs", html.paragraph(", ".join(evidence.runs))),
    ]
    return html.page("Comparison of regimes", [part for part in body if part])


def _header(evidence: Evidence, found: Sequence[JudgedClaim]) -> str:
    """How many claims came out how, model by model."""
    sentences = []
    for model in evidence.models:
        own = [one for one in found if one.model == model]
        counts = {word: sum(one.verdict == word for one in own) for word in BADGES}
        said = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
        seeds = evidence.of(model)
        sentences.append(f"{model}: {said}; {len(seeds)} seed{'s' if len(seeds) != 1 else ''}.")
    about = f"{len(evidence.runs)} runs · {', '.join(evidence.regimes).replace('_', ' ')} · {evidence.place}"
    return (
        f'<header class="card"><h1>What brain-tuning did</h1><div class="meta">{escape(about)}</div>'
        f"{html.bullets(sentences, 'headline')}</header>"
    )


def _claims_of(evidence: Evidence, found: Sequence[JudgedClaim], model: str) -> str:
    own = [one for one in found if one.model == model]
    rows: list[tuple[list[str], bool]] = []
    topic = ""
    for one in own:
        if one.claim.topic != topic:
            topic = one.claim.topic
            rows.append(([f"<b>{escape(TOPICS[topic])}</b>", *[""] * (len(HEADS) - 1)], False))
        rows.append((_cells(one), False))
    heading = f"<h3>{escape(model)}, seeds {', '.join(str(seed.seed) for seed in evidence.of(model))}</h3>"
    return "".join(
        [
            heading,
            html.table(HEADS, rows, n_text=2),
            html.paragraph("In brackets after a number: its smallest effect of interest.", "note"),
            html.bullets([*plain_sentences(own), *note_sentences(own)], "limits"),
        ]
    )


def _cells(one: JudgedClaim) -> list[str]:
    """The cells of HEADS: the source small below the claim, a line for each seed, the verdict in its colour."""
    _, *numbers, seeds, _ = map(escape, row_cells(one))
    claim = f'{escape(one.text)}<div class="note">{escape(one.claim.source)}</div>'
    lines = seeds.replace("; ", "<br>")
    return [claim, *numbers, f'<span class="ci">{lines}</span>', _badge(one)]


def _badge(one: JudgedClaim) -> str:
    colour = BADGES.get(one.verdict, BADGES[NOT_MEASURED])
    return f'<span class="badge" style="background:{colour};color:#fff">{escape(one.verdict)}</span>'


def _tasks_table(evidence: Evidence) -> str:
    """Every task and part: tuned - before and tuned - permuted, mean and interval over seeds."""
    rows = []
    for model in evidence.models:
        for task, part in evidence.tasks:
            cells = [_over_seeds_cell(evidence, model, Key(task, part), other) for other in (PRETRAINED, PERMUTED)]
            rows.append(([escape(f"{model}: {task}, {part}"), *cells], False))
    table = html.table(["task and part", "tuned - before", "tuned - permuted"], rows)
    note = "Differences of the score, mean over seeds; in brackets the 95 % t interval over seeds."
    return f"<details><summary>all tasks and parts</summary>{table}{html.paragraph(note, 'note')}</details>"


def _over_seeds_cell(evidence: Evidence, model: str, key: Key, other: str) -> str:
    values = [one for seed in evidence.of(model) if (one := seed.difference(BRAIN, other, key)) is not None]
    if not values:
        return html.DASH
    return html.number(over_seeds(values).json(), signed=True)
