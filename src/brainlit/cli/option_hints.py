"""Which option was probably meant: by a slip of one letter, by what it means, by its end, by its parts."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from brainlit.cli.config_names import experiment_names
from brainlit.cli.errors import UsageError
from brainlit.hints import MOST_LISTED, few, nearest

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "lr": ("model.backbone_lr", "model.head_lr"),
    "epochs": ("trainer.max_epochs",),
    "steps": ("trainer.max_steps",),
    "batch": ("data.batch_size",),
    "accumulate": ("trainer.accumulate_grad_batches",),
    "clip": ("trainer.gradient_clip_val",),
    "devices": ("trainer.devices", "trainer.accelerator"),
    "gpu": ("trainer.devices", "trainer.accelerator"),
    "precision": ("trainer.precision",),
    "seed": ("seed_everything", "seed", "seeds"),
    "workers": ("data.num_workers",),
    "subjects": ("data.subjects",),
    "stories": ("data.roles",),
    "store": ("data.store_dir", "store"),
    "data": ("config", "data.source", "data"),
    "model": ("model.backbone.family", "model"),
    "weights": ("model.backbone.weights", "weights"),
    "layer": ("model.layer", "probe.partition_layer"),
    "layers": ("probe.layers", "model.layer", "model.trainable.first_layer"),
    "freeze": ("model.trainable.first_layer", "model.trainable.upper_layers"),
    "lora": ("model.lora.rank",),
    "dropout": ("model.backbone.dropout", "model.head.dropout"),
    "loss": ("model.loss.name",),
    "window": ("data.window.n_trs", "data.window.context_s"),
    "delays": ("model.head.delays_trs", "probe.delays_trs"),
    "alphas": ("probe.alphas",),
    "bands": ("probe.bands",),
    "folds": ("probe.n_folds",),
    "features": ("data.features.low_level", "features"),
    "name": ("run.id", "wandb.name", "run.experiment", "name"),
    "project": ("wandb.project", "run.experiment", "experiment"),
    "output": ("run.root", "output", "root"),
    "resume": ("run.resume", "ckpt_path"),
    "checkpoint": ("ckpt_path", "checkpoint", "run.resume"),
    "wandb": ("run.wandb",),
    "config": ("config",),
    "task": ("task",),
}
"""A word for a setting -> the options that set it, likeliest first; the verb at hand has some of them."""
_SAME: Mapping[str, str] = {
    **dict.fromkeys(("learning_rate", "learningrate", "lrs", "backbone_learning_rate", "head_learning_rate"), "lr"),
    **dict.fromkeys(("base_lr", "encoder_lr", "eta", "step_size"), "lr"),
    **dict.fromkeys(("epoch", "n_epochs", "num_epochs", "num_train_epochs", "nepochs", "maxepochs"), "epochs"),
    **dict.fromkeys(("n_steps", "num_steps", "train_steps", "iterations"), "steps"),
    **dict.fromkeys(("bs", "batchsize", "batch_size", "train_batch_size", "per_device_train_batch_size"), "batch"),
    **dict.fromkeys(("gradient_accumulation_steps", "grad_accumulation", "accumulate_grad"), "accumulate"),
    **dict.fromkeys(("grad_clip", "clip_grad", "max_grad_norm", "gradient_clip"), "clip"),
    **dict.fromkeys(("gpus", "n_gpus", "num_gpus", "cuda", "cpu", "n_devices", "device"), "gpu"),
    **dict.fromkeys(("fp16", "bf16", "amp", "half", "mixed_precision"), "precision"),
    **dict.fromkeys(("random_seed", "rng", "seeds", "random_state", "manual_seed"), "seed"),
    **dict.fromkeys(("n_workers", "dataloader_num_workers", "jobs"), "workers"),
    **dict.fromkeys(("subject", "sub", "subs", "participant", "participants", "listener", "listeners"), "subjects"),
    **dict.fromkeys(("story", "runs", "split", "splits", "train_stories", "test_stories"), "stories"),
    **dict.fromkeys(("store_path", "cache"), "store"),
    **dict.fromkeys(("dataset", "data_set", "data_dir"), "data"),
    **dict.fromkeys(("family", "model_name", "architecture", "backbone", "encoder"), "model"),
    **dict.fromkeys(("size", "pretrained", "model_size", "checkpoint_name", "hub_id"), "weights"),
    **dict.fromkeys(("n_layers", "num_layers", "trainable_layers"), "layers"),
    **dict.fromkeys(("frozen", "freeze_layers", "unfreeze", "trainable"), "freeze"),
    **dict.fromkeys(("lora_rank", "rank", "use_lora", "peft", "adapter"), "lora"),
    **dict.fromkeys(("criterion", "loss_fn", "loss_function", "objective"), "loss"),
    **dict.fromkeys(("n_trs", "trs", "context", "window_size", "window_s", "chunk"), "window"),
    **dict.fromkeys(("fir", "hrf", "fir_delays", "delay"), "delays"),
    **dict.fromkeys(("alpha", "ridge_alphas", "ridge_alpha", "regularization"), "alphas"),
    **dict.fromkeys(("band", "feature_spaces"), "bands"),
    **dict.fromkeys(("cv", "n_folds", "k_folds", "cv_folds"), "folds"),
    **dict.fromkeys(("run_name", "exp_name", "experiment_name", "id", "run_id"), "name"),
    **dict.fromkeys(("wandb_project", "project_name", "group", "wandb_group"), "project"),
    **dict.fromkeys(("out", "out_dir", "output_dir", "output_folder", "save_dir", "log_dir", "logdir"), "output"),
    **dict.fromkeys(("continue", "restart", "resume_from_checkpoint"), "resume"),
    **dict.fromkeys(("ckpt", "checkpoint_path", "load", "load_from"), "checkpoint"),
    **dict.fromkeys(("no_wandb", "use_wandb", "log", "logger", "offline", "wandb_mode"), "wandb"),
    **dict.fromkeys(("cfg", "conf", "yaml", "config_file"), "config"),
    **dict.fromkeys(("tasks", "benchmark"), "task"),
}
"""Other words for the words above."""
MOST_ASKED = 4
_UNRECOGNISED = re.compile(r"unrecognized arguments: (.*)", re.DOTALL)
_INVALID_CHOICE = re.compile(r"argument (\S+): invalid choice: '([^']*)' \(choose from ([^)]*)\)")


def meant(key: str, known: Iterable[str], prefix: str) -> Iterable[str]:
    """What was probably meant by a key that is refused: a question, else what its group takes; never the key itself.

    Parameters
    ----------
    key : str
        What was typed, without dashes before it.
    known : iterable of str
        The dotted keys that exist.
    prefix : str
        Stands before every name: '--' for options, '' for keys of a file.
    """
    every = set(known) - {key}
    names = {name for name in every if not name.endswith("+")} - {key.rstrip("+")}
    lists = {name[:-1] for name in every if name.endswith("+")} if key.endswith("+") else set()
    plain = key.replace("+", "").replace("-", "_")
    if found := _asked(plain, names):
        asked = (f"{prefix}{name}{'+' * (name in lists)}" for name in found[:MOST_ASKED])
        yield f"Did you mean {' or '.join(asked)}?"
    elif group := _group(plain, names):
        yield f"{prefix}{group} takes {few(sorted(_below(group.split('.'), names)), MOST_LISTED)}."


def _asked(key: str, names: set[str]) -> list[str]:
    """The names that may be meant, likeliest first: by the first way that finds any."""
    same = {name.replace("-", "_").lower(): name for name in names}
    if key.lower() in same:
        return [same[key.lower()]]
    slips = sorted((name for name in names if is_one_slip(key, name.replace("-", "_"))), key=lambda name: -len(name))
    if slips:
        return slips if "." in key else list(dict.fromkeys([*slips, *_by_tail(key, names)]))
    whole = (_synonyms, _by_tail) if "." not in key else (_by_tail, _synonyms)
    ways = (_behind, *whole, _by_parts, _by_end)
    return next((found for way in ways if (found := way(key, names))), [])


def is_one_slip(typed: str, meant: str) -> bool:
    """Whether one letter is missing, too many, another one, or changed places with its neighbour.

    >>> [is_one_slip(typed, "seed") for typed in ("sed", "seeed", "sexd", "sede", "seed", "sd")]
    [True, True, True, True, False, False]
    """
    short, long = sorted((typed, meant), key=len)
    if len(long) - len(short) > 1 or typed == meant:
        return False
    k = next((k for k, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short))
    if len(short) < len(long):
        return short[k:] == long[k + 1 :]
    swapped = short[k : k + 2] == long[k : k + 2][::-1] and short[k + 2 :] == long[k + 2 :]
    return swapped or short[k + 1 :] == long[k + 1 :]


def _behind(key: str, names: set[str]) -> list[str]:
    """The longest name that stands at the end of the key: trainer.callbacks.probe.alphas for probe.alphas."""
    tails = [key.split(".", k)[-1] for k in range(1, key.count(".") + 1)]
    return [tail for tail in tails if "." in tail and tail in names][:1]


def _by_tail(key: str, names: set[str]) -> list[str]:
    """The names that end in the whole key, the shortest first: backbone.family for model.backbone.family."""
    return sorted((name for name in names if name.endswith(f".{key}")), key=lambda name: (name.count("."), name))


def _synonyms(key: str, names: set[str]) -> list[str]:
    """The options for what the last word of a key means, those of the key's own group if there are any."""
    group, _, word = key.lower().rpartition(".")
    if group and group not in _groups(names):
        group = ""
    word = word if word in SYNONYMS else _SAME.get(word, word)
    found = [name for name in SYNONYMS.get(word, ()) if name in names.difference(_groups(names))]
    return [name for name in found if name.startswith(f"{group}.")] if group else found


def _by_parts(key: str, names: set[str]) -> list[str]:
    """The name that is nearest part by part from the left.

    What lies below an option that is no group is kept: it belongs to a class or a mapping, which the parser knows.
    """
    parts, found = key.split("."), list[str]()
    for part in parts:
        below = _below(found, names)
        near = part if part in below else nearest(part, below)
        if near is None:
            break
        found.append(near)
    stem, below = ".".join(found), _below(found, names)
    rest = [] if found == parts[: len(found)] else parts[len(found) :]
    is_whole = stem in names and (len(found) == len(parts) or not below)
    return [".".join([stem, *rest])] if is_whole else []


def _by_end(key: str, names: set[str]) -> list[str]:
    """The names that end as the key does, from as far back as any; else those whose last part is like its own."""
    parts = key.split(".")
    for k in range(1, len(parts)):
        if same := _by_tail(".".join(parts[k:]), names):
            return same
    lasts = {name.rsplit(".", 1)[-1] for name in names}
    near = next((last for last in sorted(lasts) if is_one_slip(parts[-1], last)), None)
    if near is None and len(parts[-1]) > 3:
        near = nearest(parts[-1], lasts)
    if near is None or (len(parts) > 1 and _group(key, names)):
        return []
    return [near] if near in names else _by_tail(near, names)


def _groups(names: Iterable[str]) -> set[str]:
    return {name[: dot.start()] for name in names for dot in re.finditer(r"\.", name)}


def _group(key: str, names: set[str]) -> str:
    """The longest group of options that the key begins with, nearest names taken for its own; '' for none."""
    groups, found = _groups(names), list[str]()
    if key in groups:
        return key
    for part in key.split(".")[:-1]:
        below = {name.rsplit(".", 1)[-1] for name in groups if name.rpartition(".")[0] == ".".join(found)}
        near = part if part in below else nearest(part, below)
        if near is None:
            break
        found.append(near)
    return ".".join(found)


def _below(group: Sequence[str], names: Iterable[str]) -> set[str]:
    """The next parts of the names that begin with these parts."""
    split = (name.split(".") for name in names)
    return {parts[len(group)] for parts in split if parts[: len(group)] == list(group) and len(parts) > len(group)}


class OwnParser(argparse.ArgumentParser):
    """The parser of a verb that is not Lightning's: what it refuses comes with what was probably meant."""

    def error(self, message: str) -> NoReturn:
        """Raise the message with hints; the list of all options is left to --help."""
        lines = [message, *argument_hints(message, self.known_keys())]
        raise UsageError("\n  ".join([*lines, f"{self.prog} --help says which options there are."]))

    def known_keys(self) -> list[str]:
        """All options, without the dashes before them."""
        options = (option for action in self._actions for option in action.option_strings)
        return sorted(option[2:] for option in options if option.startswith("--"))


def argument_hints(message: str, keys: Iterable[str]) -> Iterable[str]:
    """What was probably meant by the options that argparse, or jsonargparse, does not know, and by a choice of few.

    Parameters
    ----------
    message : str
        What the parser says.
    keys : iterable of str
        The options that exist, without dashes before them.
    """
    known = list(keys)
    if match := _UNRECOGNISED.search(message):
        for token in match[1].split():
            if re.match(r"--?[A-Za-z]", token):
                yield from meant(token.lstrip("-").partition("=")[0], known, "--")
            elif "config" in known and (token.endswith((".yaml", ".yml")) or token in experiment_names()):
                yield f"Did you mean -c {token}?"
    if (match := _INVALID_CHOICE.search(message)) and (near := nearest(match[2], re.findall(r"[^\s',]+", match[3]))):
        yield f"Did you mean {match[1].split('/')[-1]} {near}?"
