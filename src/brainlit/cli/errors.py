"""What is said when something goes wrong: one message for what the user can mend, a traceback for what is our fault."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from types import TracebackType

INTERRUPTED = 130
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "can't start new thread",
    "could not create a primitive",
    "bad_alloc",
)


class UsageError(ValueError):
    """A command that cannot be understood; the message says what was probably meant."""


def explained(action: Callable[[], int]) -> int:
    """Run the action; turn errors that the user can mend into one message on stderr and the status 2.

    Everything else is raised as it is, and so is every error where BRAINLIT_DEBUG is set.
    """
    try:
        return action()
    except KeyboardInterrupt:
        again = "the same command goes on where it was; training goes on from the last checkpoint, if there is one."
        print(f"\ninterrupted; {again}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("BRAINLIT_DEBUG") or not is_for_the_user(error):
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        return 2


def quieten(trains: bool = False) -> None:
    """Log our own messages plainly, and of other packages only warnings.

    Parameters
    ----------
    trains : bool
        Whether the command trains: which weights of a backbone are trained is no news to others.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("brainlit.backbones.trainable").setLevel(logging.NOTSET if trains else logging.WARNING)
    for name in ("httpx", "matplotlib", "fontTools", "filelock", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It lists nearly all layers of a model that nobody asked to be spread over devices.
    logging.getLogger("transformers.distributed.tensor_parallel").setLevel(logging.ERROR)


def is_for_the_user(error: BaseException) -> bool:
    """Whether the error speaks to the user: about files and disks, one of brainlit's own, or a value it refused.

    A ValueError counts only where brainlit's own code raised it: one from inside a library is a bug of ours.
    """
    module = type(error).__module__
    if isinstance(error, OSError) or is_out_of_memory(error) or module.partition(".")[0] in ("brainlit", "omegaconf"):
        return True
    if type(error).__name__ == "MisconfigurationException":
        return True
    return isinstance(error, ValueError) and _raised_in(error.__traceback__).partition(".")[0] == "brainlit"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine could not give memory or a thread, in the words of python, torch, oneDNN or CUDA."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)
    )


def message_of(error: BaseException) -> str:
    """The error's own words; for config interpolations and a machine without memory with the cure."""
    text = str(error) or type(error).__name__
    if is_out_of_memory(error):
        return (
            f"this machine had no memory, or no thread, left ({text.splitlines()[0]}). Take less at once:"
            " --data.batch_size, --data.window.n_trs, fewer --jobs; or ask for more where memory is limited (ulimit, a"
            " container, SLURM's --mem)."
        )
    if type(error).__module__.startswith("omegaconf"):
        key = getattr(error, "full_key", None)
        where = f" (in {key})" if key else ""
        cure = "Set the variable or write the key that is meant; ${oc.env:NAME,default} gives a default."
        return f"{text.splitlines()[0]}{where}. {cure}"
    return text


def _raised_in(traceback: TracebackType | None) -> str:
    module = ""
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return module
