"""Reference results of published weights: `make reference WEIGHTS=folder`, or `python -m tests.benchmarks.reference`.

Every row of docs/reference.md is measured by commands of brainlit itself, which are printed as they run and stand on
the page. A row whose weights or data are not there is skipped, with the reason, and its part of the page stays as it
is. What a finished command left in runs/reference is kept, so the same call goes on where it stopped.

WEIGHTS holds whisper-base/ and minilm-l6/ (folders of save_pretrained) and glove-6b-50d/glove.6B.50d.txt. The listeners
of Alice lie where BRAINLIT_ALICE says (data/alice.md). The page is written between the markers of each row.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainlit.comparison.judged_claims import around_markers, replace_between
from brainlit.hints import did_you_mean
from brainlit.results.run_directory import read_json, write_json_atomic
from tests.benchmarks import reference_tables as tables

FOLDER = Path("runs/reference")
PAGE = Path("docs/reference.md")
SEEDS = (41, 42, 43)
"""Chose nothing in experiments/published_demo.yaml."""
WEIGHTS = "$WEIGHTS"
"""Stands for the folder in commands, as they are printed and kept."""
FILES = {
    "Whisper base": "whisper-base/config.json",
    "GloVe": "glove-6b-50d/glove.6B.50d.txt",
    "MiniLM": "minilm-l6/config.json",
}
"""What a folder of weights holds, by what is asked for."""
ALICE = "Alice"
VARIABLES = {"BRAINLIT_GLOVE": FILES["GloVe"], "BRAINLIT_MINILM": "minilm-l6"}
"""What experiments/probe/four_bands.yaml reads."""
EACH = ("--data.subjects", "[s18,s22,s23,s24,s26,s28,s30,s31,s35,s36]")
"""The listeners whose mean is data/alice_group.yaml's, each by themselves; s33 is damaged."""
LAST_LINES, LONG_LINE = 15, 120


@dataclass(frozen=True)
class Step:
    """One command.

    Parameters
    ----------
    name : str
        Of its folder below runs/reference.
    command : tuple of str
        What stands behind `brainlit`.
    by_make : str, optional
        The same as a command of make.
    """

    name: str
    command: tuple[str, ...]
    by_make: str | None = None

    @property
    def said(self) -> str:
        """As one would type it, in lines that can be read."""
        words: list[str] = []
        for word in self.command:
            quoted = word if WEIGHTS in word else shlex.quote(word)
            is_value = bool(words) and words[-1].startswith("-") and " " not in words[-1]
            words[-1:] = [f"{words[-1]} {quoted}"] if is_value else [*words[-1:], quoted]
        lines = ["brainlit"]
        for word in words:
            new_line = len(lines[-1]) + len(word) > LONG_LINE
            lines[-1:] = [f"{lines[-1]} \\", f"  {word}"] if new_line else [f"{lines[-1]} {word}"]
        return self.by_make or "\n".join(lines)


@dataclass(frozen=True)
class Row:
    """A part of the page: what it needs, the commands in their order, and what makes text of their results."""

    name: str
    needs: tuple[str, ...]
    steps: tuple[Step, ...]
    text: Callable[[tables.Results], str]


# --- What is measured ---


def probe(name: str, preset: str, weights: str, *more: str) -> Step:
    """A probe of the mean listener of Alice, or of those that data.subjects names."""
    files = [part for config in ("alice_group", "whisper", preset) for part in ("-c", config)]
    return Step(name, ("probe", *files, "--weights", weights, *more, "--output", str(FOLDER / name)))


def fit(name: str, regime: str, seed: int, *more: str) -> Step:
    """A run of Whisper base on the demo, as `make train MODEL=whisper SIZE=folder` has it."""
    configs = ("brain_tune", "data/demo", "model/whisper", "published_demo", f"regime/{regime}")
    files = [part for config in configs for part in ("-c", f"experiments/{config}.yaml")]
    chosen = ["--seed_everything", str(seed), "--model.backbone.weights", f"{WEIGHTS}/whisper-base"]
    further = ["--run.experiment", FOLDER.name, "--run.id", name, "--run.wandb", "off", *more]
    by_make = f"make train MODEL=whisper SIZE={WEIGHTS}/whisper-base REGIME={regime} SEED={seed}"
    given = " \\\n  ".join(" ".join(part) for part in (further[:6], further[6:]) if part)
    return Step(name, ("fit", *files, *chosen, *further), f'{by_make} ARGS="{given}"')


def rows(seeds: Sequence[int] = SEEDS) -> list[Row]:
    """All parts of the page, in its order."""
    whisper, untrained, one_band = f"{WEIGHTS}/whisper-base", f"random:{WEIGHTS}/whisper-base", "{low_level: null}"
    together = "{low_level: null, semantic: [word_vectors, language_model]}"
    fir = ("--probe.temporal", "fir")
    first = f"demo-pretrained-{seeds[0]}"
    pretrained = fit(first, "pretrained", seeds[0])
    every = (ALICE, *FILES)
    paired, compared = (
        "alice-trained-untrained",
        [str(FOLDER / f"alice-{name}") for name in ("four-bands", "untrained")],
    )
    return [
        Row(
            "word-rate",
            (ALICE,),
            (
                probe("alice-word-rate-hrf", "word_rate", "random:tiny"),
                probe("alice-word-rate-fir", "word_rate", "random:tiny", *fir),
                probe("alice-word-rate-hrf-each", "word_rate", "random:tiny", *EACH),
                probe("alice-word-rate-fir-each", "word_rate", "random:tiny", *EACH, *fir),
            ),
            tables.word_rate,
        ),
        Row(
            "four-bands",
            every,
            (
                probe("alice-four-bands", "four_bands", whisper),
                probe("alice-four-bands-each", "four_bands", whisper, *EACH),
            ),
            tables.four_bands,
        ),
        Row(
            "three-bands",
            every,
            (
                probe("alice-four-bands", "four_bands", whisper),
                probe("alice-three-bands", "four_bands", whisper, "--probe.bands", together),
            ),
            tables.three_bands,
        ),
        Row(
            "untrained",
            every,
            (
                probe("alice-four-bands", "four_bands", whisper),
                probe("alice-untrained", "four_bands", untrained, "--probe.bands", one_band),
                Step(paired, ("probe", "--compare", *compared, "--output", str(FOLDER / paired))),
            ),
            tables.untrained,
        ),
        Row("layers", ("Whisper base",), (pretrained,), tables.layers),
        Row(
            "preference",
            ("Whisper base",),
            (pretrained, Step(f"{first}-words", ("downstream", str(FOLDER / first), "--task", "words"))),
            tables.preference_by_layer,
        ),
        Row(
            "export",
            ("Whisper base",),
            (
                fit("demo-steps", "brain", seeds[0], *FEW_STEPS),
                Step("demo-steps-export", ("export", str(FOLDER / "demo-steps"))),
            ),
            tables.export,
        ),
        Row(
            "tuned",
            ("Whisper base",),
            tuple(fit(f"demo-{regime}-{seed}", regime, seed) for seed in seeds for regime in ("brain", "permuted")),
            tables.tuned,
        ),
    ]


FEW_STEPS = (
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "0"),
    "--trainer.callbacks=brainlit.callbacks.RunReport",
)
"""A run that changes the weights and measures nothing."""


def absent(need: str, weights: Path | None) -> str | None:
    """Why something that a row needs is not there, and the cure; None where it is."""
    if need == ALICE:
        folder = Path(os.environ.get("BRAINLIT_ALICE") or "data/alice/files")
        if (folder / "alice.flac").is_file():
            return None
        return f"there is no {folder / 'alice.flac'}: set BRAINLIT_ALICE to the folder of the listeners (data/alice.md)"
    if weights is None:
        return f"it needs {need}: say where the weights are, make reference WEIGHTS=folder (docs/reference.md)"
    if (weights / FILES[need]).is_file():
        return None
    return f"there is no {need} in the folder of weights: {weights / FILES[need]} is missing"


# --- Commands ---


def run_step(step: Step, weights: Path | None, folder: Path = FOLDER) -> Mapping[str, Any]:
    """What the command took: its note, from an earlier call where it has finished.

    Raises
    ------
    SystemExit
        If the command fails, with the end of its log; or if what is there is of another command.
    """
    note, log = folder / f"{step.name}.json", folder / "logs" / f"{step.name}.txt"
    if note.is_file():
        found = read_json(note)
        if found["command"] != list(step.command):
            sys.exit(f"{step.name} was measured by another command; delete {folder / step.name} and {note}.")
        return found
    print(step.said, flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    command = [word.replace(WEIGHTS, str(weights)) for word in step.command]  # of a row that needs weights
    given = {} if weights is None else {name: str(weights / file) for name, file in VARIABLES.items()}
    with log.open("wb") as out:
        program = [sys.executable, "-m", "brainlit.cli", *command]
        process = subprocess.Popen(program, stdout=out, stderr=out, env={**os.environ, **given})
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        sys.exit("\n".join([f"{step.name} failed (exit status {process.returncode}). The end of {log}:", *end]))
    took = {"cpu_s": used.ru_utime + used.ru_stime, "clock_s": time.monotonic() - started}
    found = {"command": list(step.command), **took, "peak_gb": used.ru_maxrss * 1024 / 1e9}
    write_json_atomic(note, found)
    return found


def measure(row: Row, weights: Path | None, page: Path, folder: Path = FOLDER) -> bool:
    """Run what is missing of a row and write its part of the page; False, with the reason, where it is skipped."""
    around_markers(page, row.name)
    reasons = [reason for need in row.needs if (reason := absent(need, weights)) is not None]
    if reasons:
        print(f"{row.name}: skipped, its part of {page} stays as it is: {'; '.join(reasons)}.", flush=True)
        return False
    notes = {step.name: run_step(step, weights, folder) for step in row.steps}
    text = row.text(tables.Results(folder, notes))
    commands = "\n".join(step.said for step in row.steps)
    replace_between(page, row.name, f"```\n{commands}\n```\n\n{text}")
    print(f"{row.name}: written into {page}.", flush=True)
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="folder of weights; rows that need none are measured without")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="of the page (default: all)")
    parser.add_argument("--page", type=Path, default=PAGE, help="what is written (default: docs/reference.md)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and what would be skipped and why")
    given = parser.parse_args(arguments)
    known = {row.name: row for row in rows()}
    for name in given.rows or ():
        if name not in known:
            parser.error(f"there is no row {name!r}. {did_you_mean(name, known)}")
    for row in [known[name] for name in given.rows or known]:
        if not given.dry_run:
            measure(row, None if given.weights is None else given.weights.absolute(), given.page)
            continue
        reasons = [reason for need in row.needs if (reason := absent(need, given.weights)) is not None]
        print(f"{row.name}: {'; '.join(reasons) or 'everything is there'}")
        print("\n".join(f"  {step.said}" for step in row.steps))


if __name__ == "__main__":
    main()
