"""`brainlit completion`: a script with which bash and zsh complete verbs, options and names of experiments."""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress

from brainlit.cli.config_names import FOLDERS, names_in
from brainlit.cli.option_hints import OwnParser
from brainlit.cli.short_help import ALL

DESCRIPTION = """\
Print a script that completes verbs, options and, after -c, names of experiments in bash and zsh. It takes some seconds,
for it asks every verb for its options; write it down once:

  brainlit completion > ~/.brainlit-completion
  echo 'source ~/.brainlit-completion' >> ~/.bashrc     (or ~/.zshrc)"""
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")
_SCRIPT = """\
# Made by `brainlit completion`; make it anew after an update.
[ -n "${{ZSH_VERSION:-}}" ] && autoload -U +X bashcompinit && bashcompinit
_brainlit() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" options=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
    return
  fi
  if [ "$before" = -c ] || [ "$before" = --config ]; then
    COMPREPLY=($(compgen -W "{names}" -- "$word") $(compgen -f -- "$word"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$word" in -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;; esac
}}
complete -o default -F _brainlit brainlit
"""


def run_completion(arguments: Sequence[str]) -> int:
    """Print the script."""
    parser = OwnParser(
        prog="brainlit completion", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(list(arguments))
    from brainlit.cli import TRAINING, VERBS

    print(completion_script({verb: options_of(verb) for verb in (*TRAINING, *VERBS)}), end="")
    return 0


def completion_script(options: dict[str, list[str]]) -> str:
    """The script for verbs and the options of each."""
    names = sorted({name for folder in FOLDERS for name in names_in(folder)})
    cases = "\n".join(f'  {verb}) options="{" ".join(words)}" ;;' for verb, words in options.items())
    return _SCRIPT.format(verbs=" ".join(options), names=" ".join(names), cases=cases)


def options_of(verb: str) -> list[str]:
    """The options that the help of a verb names; of `data` those of its actions, of `plan` those of a fit, too."""
    from brainlit.cli import TRAINING
    from brainlit.cli.data import EXAMPLES

    how = ALL if verb in TRAINING else "--help"
    ways = [[verb, action, how] for action in EXAMPLES] if verb == "data" else [[verb, how]]
    ways += [["fit", ALL]] if verb == "plan" else []
    return sorted({option for way in ways for option in _OPTION.findall(_help(way))})


def _help(arguments: Sequence[str]) -> str:
    from brainlit.cli import main

    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        main(arguments)
    return said.getvalue()
