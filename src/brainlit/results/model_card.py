"""The card of an exported model: what it was tuned on and how, what came out, how sure that is, and what it is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import yaml

from brainlit import __version__
from brainlit.results.citations import METHOD
from brainlit.results.summary import find_score, regions_of
from brainlit.results.tables import score_said

BASE_LICENCES = {
    "facebook/wav2vec2": "apache-2.0",
    "facebook/hubert": "apache-2.0",
    "facebook/data2vec-audio": "apache-2.0",
    "facebook/w2v-bert": "mit",
    "openai/whisper": "apache-2.0",
    "microsoft/speecht5": "mit",
}
"""Licences that the publishers of the base weights give on the model hub, by the start of the hub id."""

USE = """\
For research on speech representations and on how they relate to the brain. What was tuned is an encoder: it turns sound
into hidden states, and decodes no thoughts. Few people heard few stories in one language; nothing is shown about other
people, languages or kinds of sound, and nothing about any clinical use. Neither the head that predicts voxels nor any
brain data is part of this folder."""


@dataclass(frozen=True)
class CardFacts:
    """What a card says; whatever a run has not written is empty.

    Parameters
    ----------
    checkpoint : mapping
        name, step, epoch, sha256 and data (what the data module says) of the exported checkpoint.
    backbone : mapping
        SpeechBackbone.describe().
    settings : mapping
        Hyperparameters of BrainTuning.
    layer : int
        Hidden state that was read out.
    auto_class : str
        Class of transformers that loads the folder.
    run_id, state : str or None
        <experiment>/<id>, and 'finished', 'running' or 'killed'.
    run, provenance, summary : mappings
        run.json, provenance.json and summary.json.
    """

    checkpoint: Mapping[str, Any]
    backbone: Mapping[str, Any]
    settings: Mapping[str, Any]
    layer: int
    auto_class: str = "AutoModel"
    run_id: str | None = None
    state: str | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def regime(self) -> str:
        """What the model learned to predict."""
        return str(self.run.get("regime") or self.checkpoint["data"].get("regime") or "unknown")

    @property
    def data(self) -> Mapping[str, Any]:
        """What the data module said of itself."""
        found: Mapping[str, Any] = self.run.get("data_module") or {}
        return found


def model_card(facts: CardFacts) -> str:
    """README.md: a YAML header that the model hub understands, then the card in words."""
    sections = {
        None: _introduction(facts),
        "How to load it": _loading(facts),
        "What it was tuned on": _table(_data_rows(facts)),
        "How it was tuned": _table(_training_rows(facts)),
        "What came out": _scores(facts),
        "Use and limits": _limits(facts),
        "Licences": _table(_licence_rows(facts)),
        "Citation": _citation(facts),
    }
    body = [f"## {title}\n\n{text}" if title else text for title, text in sections.items()]
    header = yaml.safe_dump(_header(facts), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n" + "\n\n".join(body) + "\n"


def base_model(backbone: Mapping[str, Any]) -> str | None:
    """Hub id of the weights that tuning started from; None where they are not from the hub."""
    found = backbone["origin"].get("hub_id", backbone["weights"])
    published = backbone["origin"].get("kind") == "pretrained" and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", found)
    return str(found) if published else None


def base_licence(backbone: Mapping[str, Any]) -> str:
    """Licence of these weights as the model hub writes it, 'unknown' where it is not known here."""
    name = base_model(backbone) or ""
    return next((licence for start, licence in BASE_LICENCES.items() if name.startswith(start)), "unknown")


def _header(facts: CardFacts) -> dict[str, Any]:
    base, store = base_model(facts.backbone), facts.data.get("store")
    measured = [] if facts.run.get("simulated") else ["fmri"]
    tags = ["brainlit", "brain-tuning", *measured, "speech", facts.backbone["family"], f"regime:{facts.regime}"]
    if facts.run.get("simulated"):
        tags.append("simulated-data")
    return {
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "license": base_licence(facts.backbone),
        **({"base_model": base} if base else {}),
        **({"datasets": [store]} if store else {}),
        "tags": tags,
    }


def _introduction(facts: CardFacts) -> str:
    words = facts.run.get("regime_words") or facts.regime
    name, version = weights_words(facts.backbone), facts.provenance.get("versions", {}).get("brainlit", __version__)
    simulated = bool(facts.run.get("simulated"))
    whose = "responses of simulated listeners" if simulated else "the fMRI of people who listened"
    lines = [f"# {facts.backbone['family']} ({name}) after {'simulated ' * simulated}brain-tuning"]
    if simulated:
        lines.append("**The listeners are simulated.** No brain was measured: this model shows that a method works.")
    lines.append(
        f"A speech model from an experiment with {whose} to stories. Regime: {words}. Made with brainlit {version}."
    )
    if facts.run.get("control"):
        lines.append("**This is a control.** Its targets were shuffled in time, so it must not have learned from them.")
    if facts.state not in (None, "finished"):
        lines.append("**The run had not finished** when this was exported; numbers below are of the run so far.")
    return "\n\n".join(lines)


def _loading(facts: CardFacts) -> str:
    layer, last = facts.layer, facts.backbone["n_layers"]
    above = "" if layer == last else f" The layers above it ({layer + 1} to {last}) were not trained through it."
    alone = " Give it one clip at a time: it was made without an attention mask, and padding changes what it hears."
    padding = "" if facts.backbone.get("attention_mask", True) else alone
    positions, below_s = facts.backbone.get("positions"), facts.backbone.get("silence_added_below_s")
    if positions in ("truncated", "auto"):
        whole = f"windows of {below_s:g} s and more" if below_s else "the window"
        padding = (
            f" **Here it hears 30 s, and in tuning it heard {whole} alone** (`positions: {positions}`): the silence"
            " after shorter sound is attended to, and the states differ from those that were tuned. Use"
            " `brainlit.tuning.load_tuned` for those, or tune with `--model.backbone.positions padded`."
        )
    return (
        "```python\n" + load_snippet(facts) + "\n```\n\n"
        f"Hidden state {layer} of 0 to {last} is what the voxels were predicted from.{above}"
        f" {facts.backbone['frame_rate_hz']:g} frames per second.{padding}"
    )


def load_snippet(facts: CardFacts, folder: str = ".") -> str:
    """Python that loads the exported folder with transformers alone; its last line makes `states`."""
    kind = facts.backbone["architecture"].get("model_type")
    rate = facts.backbone["sample_rate_hz"]
    called = "model(**inputs"
    if kind in ("whisper", "speecht5"):
        called = f"model.get_encoder()(inputs.{'input_features' if kind == 'whisper' else 'input_values'}"
    return (
        "import numpy as np\nimport torch\n"
        f"from transformers import AutoFeatureExtractor, {facts.auto_class}\n\n"
        f'folder = "{folder}"  # this folder, or its name on the model hub\n'
        "extractor = AutoFeatureExtractor.from_pretrained(folder)\n"
        f"model = {facts.auto_class}.from_pretrained(folder).eval()\n"
        f"sound = np.random.default_rng(0).standard_normal(2 * {rate})  # two seconds, mono, {rate} Hz\n"
        f'inputs = extractor(sound, sampling_rate={rate}, return_tensors="pt")\n'
        f"with torch.no_grad():\n    states = {called}, output_hidden_states=True).hidden_states"
    )


def _data_rows(facts: CardFacts) -> Iterable[tuple[str, Any]]:
    data, said = facts.data, facts.run.get("data_facts", {})
    if not data:
        yield "data", "not known: this was exported from a checkpoint without its run"
    yield "data set", facts.run.get("data")
    yield "regime", facts.run.get("regime_words") or facts.regime
    yield "subjects", ", ".join(_subject_words(name, data) for name in data.get("subjects", []))
    for role, spans in data.get("roles", {}).items():
        yield f"stories that {role}", f"{', '.join(spans)}: {data['hours'][role]:.2f} h" if spans else None
    yield "windows", _counted(data)
    yield "targets", ", ".join(f"{n} of {name}" for name, n in data.get("n_targets", {}).items())
    if data:
        yield "choice of voxels", _ceiling_rule(data)
    for key, words in said.items():
        if key not in ("licence", "citation"):
            yield key, words


def _subject_words(name: str, data: Mapping[str, Any]) -> str:
    n_members = sorted(set((data.get("members") or {}).get(name, {}).values()))
    return f"{name} (mean of {' to '.join(map(str, n_members[:1] + n_members[1:][-1:]))} people)" if n_members else name


def _counted(data: Mapping[str, Any]) -> str | None:
    if "n_train_windows" not in data:
        return None
    return f"{data['n_train_windows']} of {data['window_s']:g} s per epoch, {data['n_train_rows']} TRs"


def _ceiling_rule(data: Mapping[str, Any]) -> str:
    if data.get("min_ceiling") is None:
        return "all voxels with finite responses that vary; no noise ceiling was asked for"
    return (
        f"noise ceiling above {data['min_ceiling']:g} ({str(data.get('ceiling_method')).replace('_', ' ')}), on the"
        " repeats of the stories that choose"
    )


def _training_rows(facts: CardFacts) -> Iterable[tuple[str, Any]]:
    checkpoint, versions = facts.checkpoint, facts.provenance.get("versions", {})
    yield "base weights", weights_words(facts.backbone)
    yield "architecture", facts.run.get("model")
    yield "training", facts.run.get("training")
    yield from _setting_rows({key: value for key, value in facts.settings.items() if key != "backbone"})
    for key in ("dropout", "layerdrop", "spec_augment"):
        yield f"backbone {key.replace('_', ' ')}", facts.backbone.get(key)
    yield "exported checkpoint", f"{checkpoint['name']}, after {checkpoint['step']} steps (epoch {checkpoint['epoch']})"
    yield "run", facts.run_id
    yield "source revision", facts.provenance.get("git", {}).get("revision")
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items())
    yield "SHA-256 of the data store's index", facts.provenance.get("store", {}).get("sha256")


def _setting_rows(settings: Mapping[str, Any], group: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _setting_rows(value, f"{group}{key} ")
        else:
            yield f"{group}{key}".replace("_", " "), value


def _scores(facts: CardFacts) -> str:
    summary = facts.summary
    if not summary.get("scores"):
        return "No probe of this run is at hand, so nothing can be said about its alignment with the brain."
    after = summary["stages"].get("after")
    parts = [*summary["headline"], _whose(facts, after)]
    for metric, title in (("r_backbone", "alignment r"), ("low_level_share", "low-level share")):
        rows = [(name, find_score(summary, name, metric)) for name in regions_of(summary)]
        table = _score_table(title, [(name, row) for name, row in rows if row is not None])
        if table:
            parts.append(f"{table}\n\n{title}: {summary['formulas'][metric]}. In brackets: 95 % interval.")
    return "\n\n".join(parts)


def _whose(facts: CardFacts, after: Mapping[str, Any] | None) -> str:
    """Whether the numbers are of the weights in this folder."""
    if after is None:
        return "The only probe is from before tuning: these numbers are of the weights that tuning started from."
    if after["step"] == facts.checkpoint["step"]:
        return f"'After' is of the weights in this folder (step {after['step']})."
    return (
        f"**'After' is of other weights of the same run:** they were probed after step {after['step']}, and this folder"
        f" holds those after step {facts.checkpoint['step']}, which were not probed."
    )


def _score_table(title: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    if not rows:
        return ""
    lines = [f"| {title} | voxels | subjects | before | after | difference |", "| --- " * 6 + "|"]
    for name, row in rows:
        signs = {"before": "", "after": "", "difference": "+"}
        scores = [score_said(row.get(name), f"{sign}.3f", "not defined") for name, sign in signs.items()]
        cells = [name.replace("_", " "), str(row["n_voxels"]), str(row["n_subjects"]), *scores]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _limits(facts: CardFacts) -> str:
    sentences = [f"- {sentence}" for sentence in facts.summary.get("limits", [])]
    if lacks := facts.backbone["origin"].get("lacks"):
        sentences.append(
            f"- Not for recognition: the weights that tuning started from had no {' and '.join(lacks)}, so in this"
            " folder it is random. Take that part from the published model."
        )
    return "\n\n".join([USE, *(["\n".join(sentences)] if sentences else [])])


def _licence_rows(facts: CardFacts) -> Iterable[tuple[str, Any]]:
    licence, kind = base_licence(facts.backbone), facts.backbone["origin"].get("kind")
    if licence != "unknown":
        yield "base weights", f"{licence}, says the publisher of {base_model(facts.backbone)}"
    elif kind == "pretrained":
        yield "base weights", "not known here; ask whoever published them: their terms apply to this folder too"
    else:
        yield "base weights", f"nobody's: they were made here ({weights_words(facts.backbone)})"
    yield "data", facts.run.get("data_facts", {}).get("licence", "not stated by the data set")
    yield "brainlit", "apache-2.0"


def _citation(facts: CardFacts) -> str:
    own = facts.run.get("data_facts", {}).get("citation")
    return f"```bibtex\n{METHOD.bibtex()}\n```" + (f"\n\nThe data: {own}" if own else "")


def weights_words(backbone: Mapping[str, Any]) -> str:
    """Hub id with its revision, or the name alone: where a folder lies on somebody's disk is no one's business."""
    weights, origin = str(backbone["weights"]), backbone["origin"]
    name = base_model(backbone)
    if name is None:
        kind, _, folder = weights.rpartition(":")
        place = PurePath(folder)
        local = "local folder " if len(place.parts) > 1 else ""
        name = f"{kind + ':' if kind else ''}{local}{place.name}"
    else:
        name = ", ".join([name, *_revision_words(origin)])
    if adapter := origin.get("adapter"):
        name += f", with the LoRA adapter {', '.join([adapter['name'], *_revision_words(adapter)])}"
    return name


def _revision_words(origin: Mapping[str, Any]) -> Iterable[str]:
    """Commit, what was asked for where that is another word for it, and subfolder."""
    asked, commit = origin.get("revision"), origin.get("commit")
    if commit is not None:
        yield f"revision {commit}" + (f" ({asked})" if asked not in (None, commit) else "")
    elif asked is not None:
        yield f"revision {asked}"
    if "subfolder" in origin:
        yield f"subfolder {origin['subfolder']}"


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    """Two columns; what is not known is left out."""
    cells = [(key, " ".join(str(value).split()).replace("|", "\\|")) for key, value in rows if value not in (None, "")]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in cells)])
