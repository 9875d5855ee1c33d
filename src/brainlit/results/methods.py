"""What was done, as a paper says it: the page's title, the methods with a run's own settings, and what to cite.

Every number is read from the run's files. What they do not say is left out; nothing is filled in with a default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlit.guard import read_yaml
from brainlit.results.citations import DATA_SETS, FAMILIES, FAMILY_NAMES, METHOD, RIDGE, Citation, bibliography, cited
from brainlit.results.model_card import base_model, weights_words
from brainlit.results.probe_words import bands_said, interval_said, time_of_bands_said
from brainlit.results.record import folds_said
from brainlit.results.run_directory import CONFIG_FILE
from brainlit.results.style import band_label
from brainlit.results.summary import not_tuned_on
from brainlit.results.tables import count_said

METHODS_FILE = "methods.md"
HPARAMS_FILE = "hparams.yaml"
ROLES = {
    "tune": "to tune the model",
    "fit": "to fit the encoding models",
    "choose": "to choose the checkpoint",
    "score": "for the reported scores",
}
UNTUNED = (None, "pretrained", "features")
PROBED = ("fit", "score")
"""Regimes that tune nothing, and the roles that stories have in these."""
MOST_NAMES = 4
"""So many stories of a role are named; more are counted."""
TUNED = {
    "brain": "tuned on the brain responses of",
    "permuted": "tuned on brain responses shuffled in time (control), of",
    "stimulus": "tuned on the sound alone (control), against the brain responses of",
    "language_model": "tuned on a text model's representations, against the brain responses of",
    "large_speech_model": "tuned on a larger speech model's representations, against the brain responses of",
    "pretrained": "untuned, against the brain responses of",
    "features": "against the brain responses of",
}
REGIMES = {
    "brain": f"The model was tuned to predict the voxels' responses ({METHOD.short})",
    "permuted": "As a control, the model was tuned to predict responses that do not belong to the sound",
    "stimulus": "As a control, the model was trained further on the sound by a loss of its own, without any brain",
    "language_model": "The model was tuned to predict a text model's representations of the words",
    "large_speech_model": "The model was tuned to predict a larger speech model's representations",
}
SCHEDULES = {
    "warmup_linear": "rose linearly over the first {warmup:.0%} of the steps and then fell linearly to 0",
    "constant": "stayed constant",
    "published_2410": f"followed the schedule of the code released with {METHOD.short}",
}
LOSSES = {
    "mse": "mean squared error",
    "ceiling_mse": "mean squared error weighted by the noise ceilings",
    "temporal_correlation": "1 - Pearson correlation over time",
    "spatial_correlation": "1 - Pearson correlation over voxels",
    "cosine_huber": "Huber error plus 1 - cosine",
    "cosine_l2": "squared error plus weighted 1 - cosine",
}
HEADS = {
    "linear": "a linear map of each subject's own",
    "bottleneck": "linear maps through {rank} features common to all subjects",
    "shared": "one linear map for all subjects",
    "shared_low_rank": "one linear map for all subjects with deviations of rank {rank}",
}
OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam"}
PACKAGES = {"torch": "PyTorch", "lightning": "Lightning", "transformers": "Transformers", "himalaya": "himalaya"}
SHAPES: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "model": {
        **dict.fromkeys(("lora", "trainable", "pooling", "head", "loss", "objective"), dict),
        **dict.fromkeys(("backbone_lr", "head_lr", "weight_decay", "warmup_fraction"), (int, float)),
        **dict.fromkeys(("optimizer", "schedule"), str),
        "layer": int,
    },
    "data": {**dict.fromkeys(("window", "control", "language_model", "speech_model"), dict), "batch_size": int},
    "trainer": {"gradient_clip_val": (int, float), "callbacks": list},
}
"""What is read of a configuration; a module of somebody's own may mean something else by a name."""
_NO_BRACES = str.maketrans("{}", "()")

Facts = Mapping[str, Any]


def read_settings(folder: Path) -> dict[str, Any]:
    """What the methods need of a run's resolved configuration, or of the model's hyperparameters where there is none.

    Raises
    ------
    UnreadableFileError
        If the file is damaged.
    """
    file = next((folder / name for name in (CONFIG_FILE, HPARAMS_FILE) if (folder / name).is_file()), None)
    if file is None:
        return {}
    found = read_yaml(file, "the configuration of a run", "Fetch the run again, or delete the file.")
    return _shaped({"model": found} if file.name == HPARAMS_FILE else found)


def _shaped(settings: Facts) -> dict[str, Any]:
    """The settings that are of the kind that SHAPES expects."""
    return {
        part: {name: own[name] for name, kind in shapes.items() if isinstance(own.get(name), kind)}
        for part, shapes in SHAPES.items()
        if isinstance(own := settings.get(part), dict)
    }


# --- The title ---


def done_said(summary: Facts) -> str:
    """What was done, in one line: the title of the page.

    >>> run = {"regime": "brain", "simulated": True, "backbone": {"family": "wav2vec", "weights": "tiny", "origin": {}}}
    >>> done_said({"run": run, "probe": {"subjects": {"a": {}, "b": {}}}})
    'wav2vec 2.0 (tiny) tuned on the brain responses of 2 simulated listeners'
    """
    run, regime = summary["run"], str(summary["run"].get("regime"))
    trial = "Trial run: " if run.get("trial") else ""
    who, left_out = listeners_said(summary), not_tuned_on(summary)
    if left_out and regime in ("brain", "permuted"):
        tuned_on = {name: facts for name, facts in summary["probe"]["subjects"].items() if name not in left_out}
        if tuned_on:
            who = f"{listeners_said({**summary, 'probe': {'subjects': tuned_on}})}, {len(left_out)} more held out"
    return f"{trial}{model_said(run)} {TUNED.get(regime, 'and the brain responses of')} {who}"


def model_said(run: Facts) -> str:
    """Family and weights of the speech model, as their authors write them."""
    backbone = run.get("backbone") or {}
    if backbone.get("family"):
        whole = {"weights": "", "origin": {}, **backbone}
        weights = base_model(whole) or weights_words(whole)
        return f"{FAMILY_NAMES.get(backbone['family'], backbone['family'])}{f' ({weights})' if weights else ''}"
    words = str(run.get("model") or "A speech model")
    family, _, rest = (_search(r"^([^(,]*(?:\([^)]*\))?)", words) or words).partition(" ")
    return f"{FAMILY_NAMES.get(family, family)} {rest}".strip()


def listeners_said(summary: Facts) -> str:
    """How many there are, and whether they are simulated; of groups, how many groups."""
    subjects = summary["probe"]["subjects"]
    n = len(subjects) or len((summary["run"].get("data_module") or {}).get("subjects", ()))
    groups = sum(bool(facts.get("members")) for facts in subjects.values())
    kind = "simulated " if summary["run"].get("simulated") else ""
    if not n:
        return f"{kind}listeners"
    if groups == n:
        return count_said(n, f"group of {kind}listeners", f"groups of {kind}listeners")
    return count_said(n, f"{kind}listener")


# --- The methods ---


def methods_paragraphs(summary: Facts, settings: Facts, provenance: Facts) -> list[str]:
    """The paragraphs: model, data, tuning, encoding models, scores, software; those about nothing known are left out.

    Parameters
    ----------
    summary : mapping
        Of `build_summary`.
    settings : mapping
        Of `read_settings`.
    provenance : mapping
        provenance.json.
    """
    parts = {
        "Model": _model(summary["run"], settings),
        "Data": _data(summary),
        "Tuning": _tuning(summary["run"], settings),
        "Encoding models": _encoding(summary, settings),
        "Scores": _scores(summary),
        "Software": _software(summary["run"], provenance),
    }
    texts = {name: " ".join(sentences) for name, sentences in parts.items()}
    return [f"{name}. {text}" for name, text in texts.items() if text]


def works_of(summary: Facts) -> list[Citation]:
    """What the run should cite."""
    names = [_store_of(summary["run"]), *(part.get("data_set") for part in summary.get("held_out", {}).values())]
    return cited(_family_of(summary["run"]), [name for name in names if name])


def bibtex_of(summary: Facts, provenance: Facts) -> str:
    """BibTeX of what the run should cite."""
    return bibliography(works_of(summary), (provenance.get("versions") or {}).get("brainlit"))


def methods_markdown(title: str, paragraphs: Sequence[str], bibtex: str, more: str = "") -> str:
    """The same as a file to paste from."""
    texts = [f"**{name}.** {text}" for name, _, text in (paragraph.partition(". ") for paragraph in paragraphs)]
    return "\n\n".join([f"# {title}", *texts, *filter(None, [more]), f"```bibtex\n{bibtex}\n```"]) + "\n"


def _model(run: Facts, settings: Facts) -> Iterator[str]:
    backbone = run.get("backbone") or {}
    if not backbone.get("family"):
        what = "What was probed were" if run.get("regime") == "features" else "The speech model was"
        yield from [f"{what} {run['model']}."] if run.get("model") else []
        return
    layers = f"{backbone['n_layers']} transformer layers" if backbone.get("n_layers") else ""
    units = f"{backbone['hidden_size']} units" if backbone.get("hidden_size") else ""
    facts = [
        " of ".join(filter(None, [layers, units])),
        f"{_millions(backbone['n_parameters'])} parameters" if backbone.get("n_parameters") else "",
        FAMILIES[backbone["family"]].short if backbone["family"] in FAMILIES else "",
    ]
    kind = {"tiny": ", brainlit's own small weights", "random": ", random weights"}
    made = kind.get(str((backbone.get("origin") or {}).get("kind")), "")
    inside = "; ".join(filter(None, facts))
    yield f"The speech model was {model_said(run)}{made}{f' ({inside})' if inside else ''}."
    if run.get("regime") == "pretrained":
        yield "It was not tuned."
        return
    model = settings.get("model") or {}
    n_trained, what = _search(r"([\d.]+ M) trained", run.get("model")), _trained_said(model)
    if trains_the_head_alone(model.get("trainable") or {}):
        yield "Only the head trained; all weights of the speech model were frozen."
    elif said := ": ".join(filter(None, [f"{n_trained} parameters" if n_trained else "", what])):
        yield f"What trained were {said}."


def trains_the_head_alone(trainable: Facts) -> bool:
    """Whether settings of `TrainableConfig` freeze the whole backbone."""
    return trainable.get("upper_layers") == 0 and trainable.get("projection") is False


def _trained_said(model: Facts) -> str:
    lora, trainable = model.get("lora") or {}, model.get("trainable") or {}
    if not lora and not trainable:
        return ""
    limits = [
        words.format(trainable[key])
        for key, words in (
            ("first_layer", "from layer {} on"),
            ("last_layer", "up to layer {}"),
            ("upper_layers", "of the topmost {} layers"),
        )
        if trainable.get(key) is not None
    ]
    if lora.get("rank"):
        alpha = f", alpha {lora['alpha']:g}" if lora.get("alpha") is not None else ""
        dropout = f", dropout {lora['dropout']:g}" if lora.get("dropout") else ""
        on = f" on {', '.join(lora['targets'])}" if lora.get("targets") else ""
        first, last = lora.get("first_layer"), lora.get("last_layer")
        limits += [f"from layer {first} on"] if first is not None else []
        limits += [f"up to layer {last}"] if last is not None else []
        of = f"low-rank adapters (LoRA) of rank {lora['rank']}{alpha}{dropout}{on}"
    else:
        of = (
            "the weights above the convolutional front end"
            if limits
            else "all weights above the convolutional front end"
        )
    return " ".join([of, *limits])


def _data(summary: Facts) -> Iterator[str]:
    run, probe = summary["run"], summary["probe"]
    store, about = _store_of(run), run.get("data_module") or {}
    if not store and not probe["subjects"]:
        return
    works = ", ".join(work.short for work in DATA_SETS.get(store or "", ()))
    tr_s = _search(r"TR ([\d.]+) s", run.get("data"))
    facts = [f"data set {store}" if store else "", works, f"TR {tr_s} s" if tr_s else "", _voxels_said(probe)]
    yield f"Responses were those of {listeners_said(summary)} ({'; '.join(filter(None, facts))})."
    if about.get("held_out_subjects"):
        yield f"Not tuned on: {', '.join(about['held_out_subjects'])}."
    if run.get("simulated"):
        yield "No brain was measured."
    if passed := _passed(run):
        yield f"Responses: {passed}."
    if roles := _roles_said(about, PROBED if run.get("regime") in UNTUNED else list(ROLES)):
        yield f"{roles}."
    if folds := folds_said(probe):
        yield f"Scores are of {folds}."


def _voxels_said(probe: Facts) -> str:
    counts = sorted({facts["n_used"] for facts in probe["subjects"].values() if facts.get("n_used")})
    if not counts:
        return ""
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} voxels{' each' if len(probe['subjects']) > 1 else ''}"


def _passed(run: Facts) -> str:
    """What was taken out of the responses."""
    return str((run.get("data_facts") or {}).get("responses passed") or "")


def _roles_said(about: Facts, shown: Sequence[str]) -> str:
    """'2 stories (a, b; 210 TRs, 0.12 h) to tune the model', for each role that has any."""
    roles, rows, hours = (about.get(key) or {} for key in ("roles", "rows", "hours"))
    stories = {
        role: list(dict.fromkeys(span.partition("[")[0].strip() for span in roles[role]))
        for role in shown
        if roles.get(role)
    }
    said = []
    for role, names in stories.items():
        size = [f"{rows[role]} TRs"] if role in rows else []
        size += [f"{hours[role]:.2f} h"] if role in hours else []
        inside = "; ".join(filter(None, [", ".join(names) if len(names) <= MOST_NAMES else "", ", ".join(size)]))
        said.append(f"{count_said(len(names), 'story', 'stories')} ({inside}) {ROLES[role]}")
    if not said:
        return ""
    every = [name for names in stories.values() for name in names]
    apart = "; no story had two roles" if len(every) == len(set(every)) and len(stories) > 1 else ""
    return f"{', '.join(said)}{apart}"


def _tuning(run: Facts, settings: Facts) -> Iterator[str]:
    if run.get("regime") in UNTUNED:
        return
    model, data, trainer = (settings.get(key) or {} for key in ("model", "data", "trainer"))
    training, about = run.get("training"), run.get("data_module") or {}
    regime, predicts = str(run["regime"]), (model.get("objective") or {}).get("targets", 1.0) != 0
    yield f"{REGIMES.get(regime, run.get('regime_words') or regime)}{_targets_said(regime, data)}."
    window = _window_said(data.get("window") or {}, about)
    if window:
        batch = data.get("batch_size")
        n_windows = about.get("n_train_windows")
        batches = f", in batches of {batch}" if batch else ""
        yield f"The model heard {window}{batches}{f' ({n_windows} windows per epoch)' if n_windows else ''}."
    if predicts and (head := _head_said(model, run.get("backbone") or {})):
        yield f"{head}."
    if predicts and (model.get("loss") or {}).get("name"):
        yield f"The loss was {_loss_said(model)}."
    optimizer = OPTIMIZERS.get(str(model.get("optimizer")), model.get("optimizer"))
    rates = {what: _rate(model, training, f"{what}_lr") for what in ("backbone", *["head"] * predicts)}
    known = [f"{rate} ({what})" for what, rate in rates.items() if rate]
    decay = f"weight decay {model['weight_decay']:g}" if model.get("weight_decay") is not None else ""
    parts = [f"learning rates {' and '.join(known)}" if known else "", decay]
    parts += [f"gradients clipped at {trainer['gradient_clip_val']:g}"] if trainer.get("gradient_clip_val") else []
    if optimizer:
        yield f"The optimiser was {optimizer}{f' ({inside})' if (inside := ', '.join(filter(None, parts))) else ''}."
    schedule = SCHEDULES.get(str(model.get("schedule")))
    if schedule and ("{warmup" not in schedule or model.get("warmup_fraction") is not None):
        yield f"Rates {schedule.format(warmup=model.get('warmup_fraction'))}."
    if run.get("steps"):
        precision = _search(r"precision ([\w-]+)", training)
        epochs = f" in {count_said(run['epochs'], 'epoch')}" if run.get("epochs") else ""
        yield f"It took {count_said(run['steps'], 'step')}{epochs}{f', at precision {precision}' if precision else ''}."


def _targets_said(regime: str, data: Facts) -> str:
    """What stood in the place of the responses, with its settings."""
    if regime == "permuted" and (control := data.get("control")):
        block = f" of {control['block_trs']} TRs" if control.get("kind") == "blocks" and "block_trs" in control else ""
        moved = f", moved by at least {control['min_shift_trs']} TRs" if control.get("min_shift_trs") else ""
        return f" ({control['kind']}{block}{moved})" if control.get("kind") else ""
    if regime in ("language_model", "large_speech_model"):
        source = data.get("language_model" if regime == "language_model" else "speech_model") or {}
        named = " ".join(str(source[key]) for key in ("family", "weights") if source.get(key))
        return f" ({named})" if named else ""
    return ""


def _window_said(window: Facts, about: Facts) -> str:
    whole = f"windows of {about['window_s']:g} s" if about.get("window_s") else ""
    if not window.get("n_trs"):
        return whole
    context = f" after {window['context_s']:g} s of context" if window.get("context_s") is not None else ""
    return f"{whole or 'windows'} ({count_said(window['n_trs'], 'TR')}{context})"


def _head_said(model: Facts, backbone: Facts) -> str:
    head, layer = model.get("head") or {}, model.get("layer")
    if head.get("kind") is None:
        return ""
    if layer is not None and layer < 0:
        layer = backbone["n_layers"] + 1 + layer if "n_layers" in backbone else None
    states = f"hidden state {layer}" if layer is not None else "the hidden states"
    how = (model.get("pooling") or {}).get("how")
    over = (
        {"tr": " over each TR", "window": " over the whole window"}.get(model["pooling"].get("over"), "") if how else ""
    )
    pooled = f", pooled ({how}){over}," if how else ""
    kind, rank = HEADS.get(head["kind"], ""), head.get("rank")
    if not kind or ("{rank}" in kind and rank is None):
        kind = f"a head of kind {head['kind']}"
    return f"Responses were predicted from {states}{pooled} by {kind.format(rank=rank)}"


def _loss_said(model: Facts) -> str:
    name = model["loss"]["name"]
    over = model["loss"].get("over_subjects")
    return LOSSES.get(name, str(name)) + (f", {over} over subjects" if over else "")


def _encoding(summary: Facts, settings: Facts) -> Iterator[str]:
    probe, run = summary["probe"], summary["run"]
    if not summary["scores"]:
        return
    when = "" if run.get("regime") == "pretrained" else ", before tuning and after it" * ("after" in summary["stages"])
    compared = f"; bands were compared on hidden state {probe['layer']}" if probe.get("layer") is not None else ""
    yield (
        f"Voxelwise encoding models predicted each response from the frozen model by banded ridge regression"
        f" ({RIDGE.short}){when}{compared}."
    )
    if bands := bands_said(probe) or _config_bands(settings):
        yield f"Bands: {bands}."
    if time := time_of_bands_said(probe):
        yield f"Features at the volumes: {time}."
    if probe.get("filter"):
        said = str(probe["filter"]).removesuffix(f": {_passed(run)}")  # said of the responses already
        yield f"{_first_upper(said)}."
    if probe.get("ridge"):
        yield f"Ridge: {str(probe['ridge']).translate(_NO_BRACES)}."
    if probe.get("n_fit_trs") and probe.get("n_score_trs") and not probe.get("folds"):
        yield f"They were fitted on {probe['n_fit_trs']} TRs and scored on {probe['n_score_trs']} others."
    if probe.get("thinned_words"):
        yield f"Left out to save time: {probe['thinned_words']}."


def _scores(summary: Facts) -> Iterator[str]:
    if not summary["scores"]:
        return
    yield f"Alignment is the {summary['formulas']['r_backbone']}."
    metrics, formulas = {row["metric"] for row in summary["scores"]}, summary["formulas"]
    if "low_level_share" in metrics:
        yield f"The low-level share is {formulas['low_level_share'].partition('; left out')[0]}."
    if "ceiling" in metrics:
        yield f"The noise ceiling is the {formulas['ceiling'].partition(': ')[2].partition(';')[0]}."
    if said := interval_said(summary["probe"]):
        yield f"{_first_upper(said)}."


def _software(run: Facts, provenance: Facts) -> Iterator[str]:
    versions, revision = provenance.get("versions") or {}, (provenance.get("git") or {}).get("revision")
    if own := versions.get("brainlit"):
        of = f" (revision {str(revision)[:10]})" if revision and str(revision) != "unknown" else ""
        others = [f"{label} {versions[name]}" for name, label in PACKAGES.items() if versions.get(name)]
        python = f" in Python {versions['python']}" if versions.get("python") else ""
        yield f"Everything ran in brainlit {own}{of} with {', '.join(others)}{python}.".replace(" with  in", " in")
    if run.get("seed") is not None:
        yield f"Seed {run['seed']}."


def _config_bands(settings: Facts) -> str | None:
    """From the configuration, where the probe's record says nothing."""
    for callback in (settings.get("trainer") or {}).get("callbacks") or ():
        arguments = callback.get("init_args") if isinstance(callback, dict) else None
        bands = ((arguments or {}).get("probe") or {}).get("bands")
        if bands:
            named = {
                name: ", ".join(spaces) if spaces else f"all {band_label(name)} features"
                for name, spaces in bands.items()
            }
            return "; ".join(["speech model", *named.values()])
    return None


def _store_of(run: Facts) -> str | None:
    """Name of the data set: what the data module said, else the first word about the data."""
    found = (run.get("data_module") or {}).get("store") or str(run.get("data") or "").partition(",")[0].strip()
    return str(found) if found else None


def _family_of(run: Facts) -> str | None:
    backbone = run.get("backbone") or {}
    return backbone.get("family") or str(run.get("model") or "").partition(" ")[0] or None


def _rate(model: Facts, training: str | None, name: str) -> str | None:
    """A learning rate as it was asked for, else as the run said that it chose it."""
    given = model.get(name)
    return f"{given:g}" if isinstance(given, int | float) else _search(rf"{name} ([\d.e+-]+)", training)


def _search(pattern: str, text: str | None) -> str | None:
    found = re.search(pattern, text or "")
    return found.group(1) if found else None


def _millions(n: int) -> str:
    return f"{n / 1e6:.2f} M"


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]
