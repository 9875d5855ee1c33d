"""Lightning for a command that trains nothing: without what it imports for its Trainer alone.

`import lightning` is most of what such a command takes before it does anything, and two thirds of it are two imports:
torchmetrics, which brings transformers, matplotlib and scipy.signal along, and torch's compiler. Lightning takes from
them a few classes, which only a Trainer at work uses. A process that makes no Trainer gets empty classes in their
place; whoever else imports the two in that process gets the real ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

SPARED = ("torchmetrics", "torch._dynamo")
SAYING = ("-h", "--help", "--help-all", "--print_config", "--dry-run")
"""Options of a command that says something and ends."""
WITHOUT_TRAINER = ("data", "reproduce", "sweep", "fractions", "submit")
"""Verbs whose own process runs no model; plans for many runs start other processes that do."""

_trains = True


def ends_without_training(arguments: Sequence[str]) -> bool:
    """Whether a command line surely needs no Trainer.

    >>> [ends_without_training(said.split()) for said in ("fit --print_config", "data info X", "fit -c X")]
    [True, True, False]
    """
    said = {argument.partition("=")[0] for argument in arguments}
    of_a_class = any(option.startswith("--") and option.endswith(".help") for option in said)
    return bool(said.intersection(SAYING)) or of_a_class or arguments[0] in WITHOUT_TRAINER


def expect(arguments: Sequence[str]) -> None:
    """Remember what this process was started for; not for one that goes on after its command.

    A later command that trains would lack the rest of Lightning.
    """
    global _trains
    _trains = not ends_without_training(arguments)


def import_lightning() -> None:
    """Import Lightning in part, where this process will not train; else whoever needs it imports it as a whole."""
    if _trains or "lightning" in sys.modules:
        return
    import torch  # noqa: F401 - as a whole, before anything of it has a stand-in

    try:
        with _stand_ins():
            import lightning.pytorch.cli  # noqa: F401
    except (ImportError, AttributeError, TypeError):  # this version needs more of the two: as a whole, then
        for name in [name for name in sys.modules if name.partition(".")[0] == "lightning"]:
            del sys.modules[name]


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Modules in place of the two, as far as they are not imported yet."""
    made = [name for name in SPARED if name not in sys.modules]
    sys.modules.update({name: _StandIn(name) for name in made})
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


class _StandIn(ModuleType):
    """A module in which every name is a class of its own without content."""

    __version__ = "999"  # Lightning asks whether torchmetrics is old

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {})
        setattr(self, name, made)
        return made

    @staticmethod
    def disable(function: Any = None, *_: Any, **__: Any) -> Any:
        """What torch.compiler.disable calls: where nothing is compiled, the function stays as it is."""
        return function if function is not None else lambda given: given
