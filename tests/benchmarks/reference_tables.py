"""The tables of docs/reference.md, from what the commands of `reference` left in their folders."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from brainlit.comparison.runs import pair_by_seed, pairs_table, read_finished
from brainlit.results.run_directory import RunDirectory, read_json
from brainlit.results.scores import ALL_VOXELS, FOLD_MEAN
from brainlit.results.summary import SUMMARY_FILE, find_score
from brainlit.results.tables import markdown_table, number_said, score_said

Summary = Mapping[str, Any]
Score = Mapping[str, Any] | None
STAGE = "before"
"""Of the one probe of a model that is not tuned."""
CLIP_S, N_CLIPS = 20, 2
"""Sound on which an export is compared: longer than what Whisper hears with silence after it."""
PLANTED = ("semantic", "auditory", "brain_only", "null")
"""The demo's kinds of voxels that its page tells apart."""
NAMES = {"low_level": "low-level features", "word_vectors": "GloVe", "language_model": "MiniLM"}


@dataclass(frozen=True)
class Results:
    """Where the commands wrote, and what each took: CPU seconds, seconds on the clock, peak GB."""

    folder: Path
    notes: Mapping[str, Mapping[str, Any]]

    def summary(self, name: str) -> Summary:
        """The numbers of a probe or run."""
        return read_json(self.folder / name / SUMMARY_FILE)

    def cost(self) -> str:
        """A sentence."""
        said = [
            f"{name} {note['cpu_s']:.0f} s" + (f", {note['peak_gb']:.1f} GB" if note["peak_gb"] else "")
            for name, note in self.notes.items()
        ]
        return prose(f"CPU seconds of one core, start-up and pictures included, and peak memory: {'; '.join(said)}.")


def prose(text: str) -> str:
    """In lines as wide as those of the page."""
    return "\n".join(textwrap.wrap(text, 128, break_long_words=False, break_on_hyphens=False))


# --- Numbers of a probe ---


def score(summary: Summary, metric: str, layer: int, region: str = ALL_VOXELS, subject: str = "all") -> Score:
    """Value and interval, or None."""
    row = find_score(summary, region, metric, subject, layer)
    found: Score = None if row is None else row.get(STAGE)
    return found


def layers_of(summary: Summary) -> list[int]:
    """The hidden states that were probed."""
    return sorted({row["layer"] for row in summary["scores"]})


def regions_of(summary: Summary) -> list[str]:
    """In the order of the data, without all voxels."""
    return [name for name in dict.fromkeys(row["region"] for row in summary["scores"]) if name != ALL_VOXELS]


def value(found: Score) -> str:
    """Two digits, for tables with many columns."""
    return "-" if found is None or found["value"] is None else f"{found['value']:.2f}"


def of_people(summary: Summary, metric: str, layer: int) -> list[str]:
    """The mean over listeners with its interval; the least and the most of them."""
    each = [score(summary, metric, layer, subject=name) for name in summary["probe"]["subjects"]]
    values = [one["value"] for one in each if one is not None]
    return [score_said(score(summary, metric, layer)), *(number_said(f(values)) for f in (min, max))]


def how(summary: Summary, n_people: int | None = None) -> str:
    """What was fitted and scored, what was drawn and what was held fixed."""
    probe = summary["probe"]
    fitted, folds = probe["n_fit_trs_by_fold"], probe["folds"]
    people = "" if n_people is None else f" of {n_people} listeners"
    return prose(
        f"One story{people}, {probe['n_score_trs']} rows scored, each once, in {folds['n']} folds whose models were"
        f" fitted on {min(fitted)} to {max(fitted)} other rows ({folds['purge_trs']} purged on both sides); the"
        " canonical response unless the name says otherwise. [95 % interval]: blocks of 20 rows are drawn within each"
        " fold, widened for what the fits of the folds share; listeners, story, fits and the models' weights are held"
        " fixed."
    )


# --- Ten listeners ---


def word_rate(found: Results) -> str:
    """Word rate in the mean and in single listeners, and how far these agree."""
    by_way = {way: (found.summary(f"alice-word-rate-{way}"), found.summary(f"alice-word-rate-{way}-each")) for way in
              ("fir", "hrf")}  # fmt: skip
    mean, each = by_way["hrf"]
    regions, n = regions_of(mean), len(each["probe"]["subjects"])
    heads = ["r", f"mean of {n}: six regions", *regions, f"single listeners, mean over {n}", "least", "most"]
    rows = []
    for way, (of_mean, of_each) in by_way.items():
        for name, metric in (("word rate", "r_word_rate"), ("random weights, state 0", "r_backbone")):
            own = [value(score(of_mean, metric, 0, region)) for region in regions]
            whole = score_said(score(of_mean, metric, 0))
            rows.append([f"{name}, {way}", whole, *own, *of_people(of_each, metric, 0)])
    agreement = next(iter(mean["probe"]["subjects"].values()))["between_members"]
    said = [agreement[region] for region in (ALL_VOXELS, *regions)]
    people = [f"{one['mean_r']:.2f} ({one['least_r']:.2f} to {one['most_r']:.2f})" for one in said]
    ceilings = [score(mean, "ceiling", 0, region) for region in (ALL_VOXELS, *regions)]
    between = [
        ["each with the mean of the others: mean (least to most)", *people],
        [f"ceiling of the mean of {n}", *(score_said(one, ".2f") for one in ceilings)],
    ]
    lines = [
        *markdown_table(heads, rows),
        "",
        *markdown_table(["between listeners, r", "six regions", *regions], between),
    ]
    return "\n".join([*lines, "", how(mean, n), found.cost()])


def four_bands(found: Results) -> str:
    """Each band alone, every state of the model alone, all together; and what only one of them explains."""
    mean, each = found.summary("alice-four-bands"), found.summary("alice-four-bands-each")
    states, n = layers_of(mean), len(each["probe"]["subjects"])
    last = mean["probe"]["layer"]
    named = [(NAMES[band], f"r_{band}", last) for band in NAMES]
    named += [(f"Whisper base, state {state}", "r_backbone", state) for state in states]
    named += [(f"all four, with state {last}", "r_joint", last)]
    heads = ["r, mean over six regions", f"mean of {n}", f"single listeners, mean over {n}", "least", "most"]
    rows = [[name, score_said(score(mean, metric, k)), *of_people(each, metric, k)] for name, metric, k in named]
    parts = [("Whisper base", "partition_backbone"), *((NAMES[band], f"partition_{band}") for band in NAMES)]
    parts += [("all four together", "r2_joint")]
    unique = [
        [name, *(score_said(score(one, metric, last)) for one in (mean, each))] for name, metric in parts
    ]  # fmt: skip
    ratio = score_said(score(mean, "r_over_ceiling", last))
    folds = score_said(score(mean, FOLD_MEAN, last))
    said = f"State {last} of the mean listener: {ratio} of the ceiling; mean over folds of r {folds}."
    more = markdown_table(["R2 that only it explains", f"mean of {n}", f"single listeners, mean over {n}"], unique)
    return "\n".join([*markdown_table(heads, rows), "", *more, "", said, how(mean, n), found.cost()])


def three_bands(found: Results) -> str:
    """Word vectors and text model as bands of their own, and as one."""
    four, three = found.summary("alice-four-bands"), found.summary("alice-three-bands")
    last = four["probe"]["layer"]
    rows = [
        [f"{NAMES[band]} alone", score_said(score(four, f"r_{band}", last)), ""]
        for band in ("word_vectors", "language_model")
    ]
    both = score(four, "r_language_model+word_vectors", last), score(three, "r_semantic", last)
    rows += [["both: two bands, or one", *map(score_said, both)]]
    rows += [["all bands together", *(score_said(score(one, "r_joint", last)) for one in (four, three))]]
    rows += [["R2 of all bands together", *(score_said(score(one, "r2_joint", last)) for one in (four, three))]]
    table = markdown_table(["mean listener, r", "four bands", "three bands"], rows)
    return "\n".join([*table, "", how(four), found.cost(), "The first of them also made the store."])


def untrained(found: Results) -> str:
    """Every state of the published model beside the same architecture with random weights."""
    trained, random = found.summary("alice-four-bands"), found.summary("alice-untrained")
    rows = [
        [f"state {state}", *(score_said(score(one, "r_backbone", state)) for one in (trained, random))]
        for state in layers_of(trained)
    ]
    last = trained["probe"]["layer"]
    rows += [["low-level features", score_said(score(random, "r_low_level", last)), ""]]
    compared = read_json(found.folder / "alice-trained-untrained" / "comparison.json")["rows"]
    one = next(row for row in compared if row["region"] == ALL_VOXELS)
    paired = f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
    said = f"Last state, published less random weights, paired: {paired}."
    heads = ["mean listener, r", "published weights", "random weights"]
    return "\n".join([*markdown_table(heads, rows), "", prose(said), how(trained), found.cost()])


# --- The demo ---


def layers(found: Results) -> str:
    """The curve over states of the untuned model on simulated listeners."""
    (name,) = found.notes
    summary = found.summary(name)
    there = regions_of(summary)
    regions = [*([region for region in PLANTED if region in there] or there), ALL_VOXELS]
    rows = [
        [f"state {state}", *(score_said(score(summary, "r_backbone", state, region)) for region in regions)]
        for state in layers_of(summary)
    ]
    last, probe = summary["probe"]["layer"], summary["probe"]
    for name, metric in (
        ("low-level features", "low_level"),
        ("semantic features", "semantic"),
        ("all bands", "joint"),
    ):
        if score(summary, f"r_{metric}", last) is not None:
            rows.append([name, *(score_said(score(summary, f"r_{metric}", last, region)) for region in regions)])
    share = score_said(score(summary, "low_level_share", last, "semantic"))
    said = (
        f"Seed {summary['run']['seed']}, mean over {len(probe['subjects'])} simulated listeners; {probe['n_fit_trs']}"
        f" rows fitted, {probe['n_score_trs']} of {len(probe['score_stories'])} held-out stories scored; low-level"
        f" share of state {last} in semantic voxels {share}. [95 % interval]: blocks of 20 rows are drawn in stories;"
        " listeners, fits and seed are held fixed."
    )
    return "\n".join([*markdown_table(["r", *regions], rows), "", prose(said), found.cost()])


def preference_by_layer(found: Results) -> str:
    """Words of the scored stories: alike by meaning or by sound, state by state."""
    from brainlit.downstream.preference import preference
    from brainlit.downstream.result import FOLDER, UNTUNED
    from brainlit.downstream.words import find_words

    run = found.folder / next(iter(found.notes))
    words = find_words(run / FOLDER / UNTUNED)
    if words is None:
        raise FileNotFoundError(f"{run} has no words that were heard; delete its note {run}-words.json.")
    kept = preference(words.layers, words.token_pairs())
    rows = [
        [f"state {one.layer}", *(score_said(_plain(s), "+.3f") for s in (one.semantic, one.phonetic, one.difference)),
         "withheld" if one.ratio is None else score_said(_plain(one.ratio), ".2f")]
        for one in kept
    ]  # fmt: skip
    n = kept[0].n_pairs
    said = (
        f"{len(words.words)} clips of {len(set(words.words))} words, each heard alone with silence after it, centred"
        f" cosines; {n['semantic']} pairs of one category, {n['near_homophone']} near-homophones, {n['random']} random"
        " pairs. [95 % interval]: words are drawn; voices, categories and the model are held fixed. What a column is:"
        " [preference.md](preference.md)."
    )
    heads = ["cosines", "semantic", "phonetic", "difference", "ratio"]
    return "\n".join([*markdown_table(heads, rows), "", prose(said), found.cost()])


def _plain(found: Any) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {"value": found.value, "low": low, "high": high}


def export(found: Results) -> str:
    """Hidden states of a tuned checkpoint in brainlit, and of its export in transformers alone."""
    import torch

    from brainlit.backbones import BackboneConfig, load_backbone
    from brainlit.store import StoryStore
    from brainlit.tuning import load_tuned
    from brainlit.tuning.checkpoint import read_content
    from brainlit.tuning.settings import rebuilt
    from tests.benchmarks.full_size import exported_states

    run = RunDirectory.open(found.folder / next(iter(found.notes)))
    config = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    store = StoryStore.open(Path(config["data"]["store_dir"]))
    checkpoint = run.last_checkpoint
    assert checkpoint is not None  # the export came from it
    module = load_tuned(checkpoint)
    n = CLIP_S * module.backbone.sample_rate_hz
    sound = torch.stack(
        [torch.as_tensor(store.audio(store.story_names[0], k * n, (k + 1) * n)) for k in range(N_CLIPS)]
    )
    mask, chosen = torch.ones_like(sound, dtype=torch.bool), config["model"]["backbone"]
    with torch.no_grad():
        ours = module.backbone.encode(sound, mask).hidden_states
        before = load_backbone(rebuilt(BackboneConfig, chosen)).eval().encode(sound, mask).hidden_states
    opened_by = getattr(module.backbone, "auto_class", "AutoModel")
    theirs = exported_states(run.path / "export", opened_by, chosen["family"], sound)
    rows = [
        [f"state {k}", f"{(one - other).abs().max():.1e}", f"{(one - untuned).abs().max():.1e}", f"{one.std():.2f}"]
        for k, (one, other, untuned) in enumerate(zip(ours, theirs, before, strict=True))
    ]
    n_steps = read_content(checkpoint)["global_step"]
    said = (
        f"{N_CLIPS} clips of {CLIP_S} s of the stories' sound; the model after {n_steps} steps of tuning, in brainlit"
        " from its checkpoint, in transformers from its export. Nothing is drawn; what differs, if at all, is rounding."
    )
    heads = ["largest difference", "checkpoint and export", "checkpoint and untuned model", "sd of the state"]
    return "\n".join([*markdown_table(heads, rows), "", prose(said), found.cost()])


def tuned(found: Results) -> str:
    """Tuned on brains beside the permuted control, seed by seed."""
    pairs = pair_by_seed(read_finished([found.folder / name for name in found.notes]))
    rises = over_seeds([pair.brain.r_after - pair.brain.r_before for pair in pairs])
    beyond = over_seeds([pair.beyond_permuted.value for pair in pairs])
    said = (
        f"Semantic voxels, mean over {len(pairs)} seeds and 95 % t interval: r {rises} by tuning, {beyond} above the"
        " permuted control. Every seed has stories, listeners and voices of its own; intervals in the table are over"
        " held-out time."
    )
    return "\n".join([pairs_table(pairs), "", prose(said), found.cost()])


def over_seeds(values: Sequence[float]) -> str:
    """Mean and 95 % t interval."""
    import numpy as np
    from scipy.stats import t as student

    array = np.asarray(values)
    half = student.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return f"{array.mean():+.3f} [{array.mean() - half:+.3f}, {array.mean() + half:+.3f}]"
