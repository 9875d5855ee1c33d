"""`brainlit probe`: the whole probe of a checkpoint, an untuned model or features from a file; or two compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainlit.cli import lean
from brainlit.cli.errors import UsageError, quieten
from brainlit.cli.option_hints import OwnParser
from brainlit.cli.short_help import ALL, is_asked
from brainlit.files import BusyError, folder_to_fill
from brainlit.paths import link, next_command

if TYPE_CHECKING:
    from brainlit.cli.probe_options import ProbeCLI
    from brainlit.cli.probe_sources import Probed
    from brainlit.datamodules import StoryDataModule
    from brainlit.probing.engine import ProbeEngine
    from brainlit.probing.layer_fits import Features
    from brainlit.results.record import ProbeRecord
    from brainlit.results.run_directory import RunDirectory


HELP = """\
usage: brainlit probe RUN_OR_CHECKPOINT [options] [-c DATA.yaml] [--data.* ...]
       brainlit probe --model FAMILY [--weights WEIGHTS] -c DATA.yaml [options]
       brainlit probe --features FILE -c DATA.yaml [options]
       brainlit probe --compare A B [--region NAME] [--metric r|r2] [--hold_fits] [--output DIR]

Measure how well a speech model, or any features, predict the responses of listeners, layer by layer and beside
low-level and semantic features; write records, a table, figures and a page. Data, subjects and the probe's settings of
a run are those that it was started with, unless options say otherwise; with -c, the data are those of the file alone.

examples:
  brainlit probe runs/brain_tune/ID --checkpoint last --probe.layers [0,-1]
  brainlit probe --model wav2vec --weights base -c lebel2023 --data.subjects [UTS03]
  brainlit probe --features features.h5 -c demo
  brainlit probe --compare runs/brain_tune/ID/probe-best runs/probe/wav2vec-base

  --checkpoint NAME     of a run: best, last or a file [best, else last]
  --output DIR          folder to write [a new one beside what is probed]
  --probe.layers        layers of the curve, [0,-1] for the first and last [all]
  --probe.bands         feature spaces beside the backbone [all that are low-level, all that are semantic]
  --probe.alphas        strengths of the ridge [0.001 to 10000 in half decades]
  --data.subjects       [NAME,...] whom to probe [all of the data set]
  --shares true         also each region's parts as endless data would give them, with calibrated intervals
  --trust               of a run: take its configuration as it is, which may name code of your own (docs/security.md)
  --model FAMILY        wav2vec, whisper, ...: a model that was not tuned (any --model.backbone.* of brainlit fit)
  --weights WEIGHTS     tiny, a size such as base, a hub id ORG/NAME or ORG/NAME@REVISION, or a folder
                        (--model.backbone.weights)

brainlit probe --help-all lists all settings of the probe, brainlit fit --help-all those of data and model.
"""
COMPARE_HELP = """\
Test per region, and per voxel, whether the backbone of one probe predicts the same responses better than that of
another. What is drawn are minutes of the scored stories and, by a jackknife, fit stories; never another training run.
exit status: 0 compared, 2 they cannot be compared, or wrong use.
"""
_DRAWS = {
    "bootstrap_trs": "rows per block of the bootstrap that gives the intervals",
    "permutation_trs": "rows per block of the permutation that gives the p values",
    "n_bootstraps": "draws of the bootstrap",
    "n_permutations": "draws of the permutation",
    "seed": "seed of both",
}
SHORT = {"--model": "--model.backbone.family", "--weights": "--model.backbone.weights"}


def main(arguments: Sequence[str]) -> int:
    """Probe, or compare two probes; print the table and where everything is."""
    if "--compare" in arguments:
        return _compare(arguments)
    if not arguments or is_asked(arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    lean.import_lightning()
    if ALL in arguments:
        from brainlit.cli.probe_options import options_help

        print(f"{HELP}\n{options_help()}\n\nand all options of brainlit fit: brainlit fit {ALL}")
        return 0
    quieten()
    return _probe(arguments)


def _compare(arguments: Sequence[str]) -> int:
    from brainlit.comparison.two_probes import METRICS, CompareConfig, compare_probes, probes_table, write_comparison

    defaults = CompareConfig()
    parser = OwnParser(prog="brainlit probe", description=COMPARE_HELP, allow_abbrev=False)
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), required=True, help="probes or runs")
    parser.add_argument("--region", help="test this region only (default: all)")
    parser.add_argument("--metric", choices=METRICS, default=defaults.metric, help="what is compared (%(default)s)")
    parser.add_argument("--output", type=Path, help="folder for comparison.json and comparison.csv")
    parser.add_argument("--hold_fits", action="store_true", help="hold the fitted weights fixed: no jackknife")
    for name, words in _DRAWS.items():
        default = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{words} (default: %(default)s)")
    given = vars(parser.parse_args(list(arguments)))
    (a, b), region, output = (given.pop(name) for name in ("compare", "region", "output"))
    comparison = compare_probes(a, b, region, CompareConfig(**given))
    print(probes_table(comparison))
    if output is not None:
        file, table = write_comparison(comparison, output)
        print(f"\nNumbers: {file}\nTable: {table}")
    return 0


# --- Probing ---


def _probe(arguments: Sequence[str]) -> int:
    from brainlit.cli.probe_options import ProbeCLI, settings_of_run
    from brainlit.cli.reports import chosen_checkpoint
    from brainlit.cli.trust import config_argument, require_store, without_trust

    arguments, trust = without_trust(arguments)
    kind, named, options = _understood(arguments)
    run = _run_of(named) if named is not None else None
    names_config = any(option.partition("=")[0] in ("-c", "--config") for option in options)
    own_data = kind == "checkpoint" and not names_config
    if own_data and run is None:
        raise UsageError(f"{named} lies in no run's folder, so its data are not known. Say which: -c CONFIG.")
    before = config_argument(run.path, trust) if own_data and run is not None else []
    cli = ProbeCLI([*before, *options], settings_of_run(run) if run is not None else {})
    if before and run is not None and not trust:
        require_store(cli.resolved, run.path)
    if cli.config.checkpoint is not None and (named is None or named.is_file()):
        raise UsageError("--checkpoint chooses one of a run's checkpoints: name the run's folder before it.")
    if named is not None and run is not None and not named.is_file():
        named = chosen_checkpoint(run, cli.config.checkpoint or "best")
    return _measure(cli, kind, named, run)


def _measure(cli: ProbeCLI, kind: str, checkpoint: Path | None, run: RunDirectory | None) -> int:
    """Check everything that can be checked, then compute, then write."""
    from brainlit.cli.probe_sources import from_features, from_model
    from brainlit.probing.engine import ProbeContext

    settings, engine = cli.settings, cli.settings.engine()
    datamodule = _datamodule(cli.resolved["data"])
    if cli.config.shares and datamodule.roles.folds is not None:
        raise UsageError("--shares needs fixed rows to fit and to score: name data.roles.fit and score, not folds.")
    if kind == "features":
        probed = from_features(cli, datamodule, engine.spans(datamodule))
    else:
        probed = from_model(cli, datamodule, checkpoint, run)
        if probed.module is not None:
            engine.resolve_layers(probed.module)
    subjects = list(datamodule.probed_subjects)
    for subject in subjects:
        engine.subject_data(datamodule, subject)
    facts = {**probed.facts, "headline_region": settings.headline_region}
    stage = "after" if probed.step else "before"
    context = ProbeContext(stage, probed.epoch, probed.step, facts, heard=probed.heard)
    with new_folder(cli.config.output, probed.folder) as folder:
        features, features_s, compared = _features(probed, engine, datamodule)
        records = engine.measure_features(
            features, datamodule, subjects, folder / "probes", context, partition_layer=compared, features_s=features_s
        )
        page = _write(folder, records, probed, datamodule, settings.seed)
        if cli.config.run.wandb in ("online", "offline"):
            _to_wandb(folder, records, probed, cli)
        if cli.config.shares:
            from brainlit.probing.shares import measure_shares, shares_table, write_shares

            shares = measure_shares(engine, engine.as_bands(features, datamodule)[compared], datamodule, subjects)
            print(f"\n{shares_table(shares)}\nShares: {write_shares(shares, folder)}")
    print(f"Page: {link(page)}")
    if run is not None:
        print(next_command("probe", "--compare", run.path, folder))
    return 0


def _features(probed: Probed, engine: ProbeEngine, datamodule: StoryDataModule) -> tuple[Features, float, int]:
    """Features by layer, the seconds that they took, and the layer that is compared."""
    if probed.module is None:
        return probed.features or {}, 0.0, int(probed.partition_layer or 0)
    from brainlit.probing.inputs import borrowed_state

    with borrowed_state(probed.module):
        features, features_s = engine.features(probed.module, datamodule)
    return features, features_s, engine.resolve_layers(probed.module)[1]


def _write(
    folder: Path, records: Sequence[ProbeRecord], probed: Probed, datamodule: StoryDataModule, seed: int
) -> Path:
    """The table, the page with its figures, and what they rest on; the numbers to the screen. Returns the page."""
    from brainlit.results.record import write_table
    from brainlit.results.region_table import region_table
    from brainlit.results.report import write_report
    from brainlit.results.run_directory import RunDirectory, collect, read_json, write_json_atomic, write_provenance
    from brainlit.results.summary import RUN_FILE, SUMMARY_FILE

    truth = [bool(datamodule.store.subject(subject).truth) for subject in datamodule.probed_subjects]
    about = {
        "experiment": f"probe of {probed.source}",
        **probed.run,
        "simulated": all(truth),
        "data": f"{datamodule.store.name}, TR {datamodule.tr_s:g} s",
        "data_facts": dict(datamodule.store.facts),
        "data_module": {"held_out_subjects": list(datamodule.held_out_subjects)},
    }
    write_json_atomic(folder / RUN_FILE, about)
    write_provenance(folder, collect(seed=seed, store_path=datamodule.store.path))
    table = write_table(records, folder / "probe.csv")
    page = write_report(RunDirectory(folder), state="finished")
    print(region_table(read_json(folder / SUMMARY_FILE)))
    print(f"\nRecords: {folder / 'probes'}\nTable: {table}\nFigures: {folder / 'figures'}")
    return page


def _to_wandb(folder: Path, records: Sequence[ProbeRecord], probed: Probed, cli: ProbeCLI) -> None:
    """Numbers, table and page, as a run of their own."""
    from brainlit.results.record import table_rows
    from brainlit.results.run_directory import RunDirectory
    from brainlit.results.wandb_logger import WandbOptions, log_folder
    from brainlit.results.wandb_names import probe_scalars

    options = WandbOptions(**cli.config.wandb.as_dict())
    log_folder(
        RunDirectory(folder),
        "probe",
        probe_scalars(records),
        {"probe/table": table_rows(records)},
        cli.config.run.wandb,
        options,
        page=folder / "report.html",
        name=f"{folder.resolve().parent.name}-{folder.name}",
        group=probed.run.get("experiment", "probe"),
    )


@contextmanager
def new_folder(asked: str | None, default: Path) -> Iterator[Path]:
    """The folder to write into: the one that was asked for, or the default with a number that is free.

    One that a killed probe has left is filled anew; after an error it is gone.

    Raises
    ------
    FileExistsError
        If the folder that was asked for holds something.
    BusyError
        If another process is writing the folder that was asked for.
    """
    names = chain([default.name], (f"{default.name}-{number}" for number in count(2)))
    for folder in [Path(asked)] if asked is not None else map(default.with_name, names):
        with ExitStack() as stack:
            try:
                stack.enter_context(folder_to_fill(folder))
            except (FileExistsError, BusyError):
                if asked is not None:
                    raise
                continue
            yield folder
            return


# --- What is probed ---


def _understood(arguments: Sequence[str]) -> tuple[str, Path | None, list[str]]:
    """What is probed ('checkpoint', 'model' or 'features'), the run or checkpoint if one is named, and the options."""
    options = list(arguments)
    named = Path(options.pop(0)) if not options[0].startswith("-") else None
    keys = [option.partition("=")[0] for option in options]
    kinds = {
        "checkpoint": named is not None,
        "model": any(key in SHORT or key.startswith("--model.") for key in keys),
        "features": "--features" in keys,
    }
    chosen = [kind for kind, is_given in kinds.items() if is_given]
    if len(chosen) != 1:
        said = "nothing was named" if not chosen else f"a {' and '.join(chosen)} were named"
        raise UsageError(
            f"brainlit probe looks at one thing, and {said}. Give a run's folder or a checkpoint (before all options),"
            " or --model FAMILY, or --features FILE."
        )
    return chosen[0], named, [_spelled_out(option) for option in options]


def _spelled_out(option: str) -> str:
    """--model wav2vec stands for --model.backbone.family wav2vec."""
    key, equals, value = option.partition("=")
    return f"{SHORT.get(key, key)}{equals}{value}"


def _run_of(path: Path) -> RunDirectory | None:
    """The run of a folder, or that in whose checkpoints/ a file lies; None for a file elsewhere."""
    from brainlit.results.run_directory import STATUS_FILE, RunDirectory

    if not path.is_file():
        return RunDirectory.open(path)
    folder = path.absolute().parent.parent
    return RunDirectory.open(folder) if (folder / STATUS_FILE).is_file() else None


def _datamodule(data: Mapping[str, Any]) -> StoryDataModule:
    """The data module, ready to probe: without what only tuning needs.

    Raises
    ------
    UsageError
        If a role is missing.
    """
    from brainlit.cli.training import built
    from brainlit.datamodules import StoryDataModule

    untuned = {"regime": "pretrained", "tune_fraction": 1.0, "min_ceiling": None, "common_voxels": False}
    datamodule = built("data", StoryDataModule, {**data, **untuned})
    datamodule.only_probe()
    datamodule.prepare_data()
    datamodule.setup()
    for role in ("fit", "score"):
        if not datamodule.roles.spans(role):
            raise UsageError(
                f"the data have no stories to {role}; name some: --data.roles '{{fit: [STORY], score: [STORY]}}'"
            )
    return datamodule
