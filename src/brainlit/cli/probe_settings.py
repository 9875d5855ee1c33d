"""The settings of a probe as options: what --probe.alphas means, in `brainlit probe` and for the probe of a fit.

A fit has its probe among trainer.callbacks, where no option of a command line reaches a setting of one of several; so
--probe.NAME there stands for that setting of every BandedRidgeProbe of the configuration.
"""

from __future__ import annotations

import inspect
import json
from argparse import HelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import yaml
from jsonargparse import set_parsing_settings

from brainlit.cli.errors import UsageError
from brainlit.cli.refusals import HintingParser
from brainlit.encoding.bootstrap import BLOCK_TRS
from brainlit.encoding.config import ProbeConfig
from brainlit.probing.engine import ProbeEngine

CALLBACK = "BandedRidgeProbe"
GROUP = "probe"
NESTED = ("solver", "response")
"""Settings of the probe that have settings of their own."""
_PRINT = "--print_config"


@dataclass(frozen=True)
class ProbeSettings(ProbeConfig):
    """What is probed, and how it is delayed, cross-validated and solved."""

    layers: Literal["all"] | list[int] = "all"
    """Hidden states of the layer curve; 0 is the input of the first layer, negative ones count from the end."""
    partition_layer: int = -1
    """Hidden state that is compared with the low-level and semantic features."""
    block_trs: int = BLOCK_TRS
    """Rows per block of the bootstrap over time."""
    n_bootstraps: int = 1000
    """Draws of the bootstrap; its seed is that of the gammas."""
    headline_region: str | None = None
    """Region that the report begins with; by default 'semantic' where there is one, else all voxels."""

    def engine(self) -> ProbeEngine:
        """The probe with these settings."""
        config = ProbeConfig(**{field.name: getattr(self, field.name) for field in fields(ProbeConfig)})
        bootstrap = {"block_trs": self.block_trs, "n_bootstraps": self.n_bootstraps, "seed": self.seed}
        return ProbeEngine(config, self.layers, self.partition_layer, bootstrap)


class FitParser(HintingParser):
    """The parser of fit, to which --probe.NAME is a setting of the probes among trainer.callbacks.

    A parser that has a group `probe` of its own, as that of `brainlit probe`, takes such options for it.
    """

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parse; --probe.NAME VALUE goes to the probes of the configuration that all other options give."""
        if args is None or f"{GROUP}.alphas" in super().known_keys():
            return super().parse_args(args, *more, **options)
        asked, others = _of_probe(args)
        if not asked:
            return super().parse_args(args, *more, **options)
        quiet = [option for option in others if not option.startswith(_PRINT)]
        found = super().parse_args(quiet, *more, **options)
        callbacks = yaml.safe_load(self.dump(found, skip_validation=True))["trainer"].get("callbacks")
        callbacks = with_settings(callbacks, typed_settings(asked))
        return super().parse_args([*others, f"--trainer.callbacks={json.dumps(callbacks)}"], *more, **options)

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """All options; those for the probe come last."""
        said = str(super().format_help(formatter))
        if f"{GROUP}.alphas" in super().known_keys():
            return said
        return (
            f"{said}\nSettings of the probes among trainer.callbacks, as `brainlit probe` takes them:\n{probe_help()}"
        )

    def known_keys(self) -> list[str]:
        """All dotted keys, those of the probe among them."""
        return sorted({*super().known_keys(), *(f"{GROUP}.{name}" for name in setting_names())})


def _of_probe(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of the probe with their values, and all others."""
    asked, others, goes_on = list[str](), list[str](), False
    for argument in map(str, arguments):
        is_option = argument.startswith("--")
        if is_option:
            goes_on = argument.startswith(f"--{GROUP}.")
        (asked if goes_on else others).append(argument)
        goes_on = goes_on and is_option and "=" not in argument
    return asked, others


def _settings_parser() -> HintingParser:
    parser = HintingParser(prog="brainlit fit", allow_abbrev=False, parser_mode="omegaconf+")
    parser.add_class_arguments(ProbeSettings, GROUP)
    return parser


@contextmanager
def words_of_fields() -> Iterator[None]:
    """Parsers that are made inside take the words below the fields of dataclasses for their help, which takes time."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    try:
        yield
    finally:
        set_parsing_settings(docstring_parse_attribute_docstrings=False)


def probe_help() -> str:
    """The list of the probe's settings, with their defaults."""
    lines = str(_settings_parser().format_help()).splitlines()
    return "\n".join(lines[next(k for k, line in enumerate(lines) if line.startswith(f"  --{GROUP}.")) :])


def setting_names() -> list[str]:
    """All settings of the probe, those inside others by dotted names."""
    known = flat({field.name: {} if field.name in NESTED else field.name for field in fields(ProbeSettings)})
    inside = [f"{name}.{own}" for name in NESTED for own in inspect.signature(_type_of(name)).parameters]
    return [*known, *inside]


def _type_of(name: str) -> Any:
    return type(getattr(ProbeConfig(), name))


def typed_settings(options: Sequence[str]) -> dict[str, Any]:
    """What options such as --probe.solver.name=primal say: dotted name -> checked plain value.

    Raises
    ------
    UsageError
        If there is no such setting, or a value cannot be.
    """
    parser = _settings_parser()
    parser.typed = list(options)
    found = yaml.safe_load(parser.dump(parser.parse_args(list(options)), skip_validation=True))[GROUP]
    names = dict.fromkeys(
        option.partition("=")[0].removeprefix(f"--{GROUP}.").rstrip("+")
        for option in options
        if option.startswith(f"--{GROUP}.")
    )
    typed = dict[str, Any]()
    for name in names:
        group, _, inner = name.partition(".")
        if group in NESTED:
            typed[name] = found.get(group, {}).get(inner)
        else:
            typed[group] = found.get(group)  # null is left out where settings are written
    return typed


def with_settings(callbacks: Any, settings: Mapping[str, Any]) -> list[Any]:
    """The callbacks of a configuration with these settings in all of its probes.

    Raises
    ------
    UsageError
        If it has no probe.
    """
    known = {field.name for field in fields(ProbeConfig)}
    own = {field.name for field in fields(ProbeSettings)} - known
    given = [dict(one) if isinstance(one, Mapping) else one for one in callbacks or []]
    probes = [one for one in given if isinstance(one, dict) and str(one.get("class_path")).endswith(f".{CALLBACK}")]
    if not probes:
        named = ", ".join(f"--{GROUP}.{name}" for name in settings)
        raise UsageError(
            f"{named} is for the probe of a run, and this configuration has none: there is no brainlit.callbacks."
            f"{CALLBACK} among trainer.callbacks. -c brain_tune has one."
        )
    for probe in probes:
        arguments = dict(probe.get("init_args") or {})
        inner = dict(arguments.get(GROUP) or {})
        for name, value in settings.items():
            group, _, nested = name.partition(".")
            if nested:
                inner[group] = {**(inner.get(group) or {}), nested: value}
            elif name in known:
                inner[name] = value
            if name in own or name == "seed":  # the seed of the mixtures and that of the bootstrap are one setting
                arguments[name] = value
        probe["init_args"] = {**arguments, GROUP: inner}
    return given


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of solver and response by dotted names, as options have them; what is not set is left out."""
    inside = {f"{group}.{name}": value for group in NESTED for name, value in (settings.get(group) or {}).items()}
    plain = {name: value for name, value in settings.items() if name not in NESTED}
    return {name: value for name, value in {**plain, **inside}.items() if value is not None}
