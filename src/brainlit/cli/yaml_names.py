"""Names that YAML takes for something else (010, no, 1e3): what to type instead, and text that stays as it was."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

_KEY = re.compile(r'[Pp]arser key "([\w.]+)"')
_NO_TEXT = re.compile(r"Expected a <class 'str'>\. Got value: (True|False|None|-?\d\S*)")
_NO_LIST = re.compile(r"Expected a <class 'list'>.*Given value type: <class '(?:str|int|float|bool)'>", re.DOTALL)


def quotes_hints(message: str, arguments: Sequence[str]) -> Iterable[str]:
    """What to type where YAML made a number or a truth value of a name, or a list was needed; else nothing.

    Parameters
    ----------
    message : str
        What jsonargparse says.
    arguments : sequence of str
        The command line, as far as it is known.
    """
    made, keys = _NO_TEXT.search(message), _KEY.findall(message)
    if not keys or not (made or _NO_LIST.search(message)):
        return
    said = [f"{option} {quoted(text, 'list' in message)}" for option, text in _typed(keys[0], arguments)]
    if made:
        cure = said[0] if said else "'010'"
        say = f"YAML makes {made[1]} of a name without quotes; 010, no, 1e3 and 1:20 are such names."
        yield f"{say} Put it in quotes: {cure}"
    elif said:
        yield f"Names stand in a list: {said[0]}"


def _typed(key: str, arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options of a command line that are a key or lie below it, and what was given to them."""
    for argument, then in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, text = argument.partition("=")
        if option == f"--{key}" or option.startswith(f"--{key}."):
            yield option, text if equals else then


def quoted(text: str, is_list: bool = True) -> str:
    """Names as they are typed on a command line, with quotes round those that YAML would not read as text.

    >>> print(quoted("[sub-1, 010, 1e3, 'no']"), quoted("010"), quoted("no", is_list=False))
    "[sub-1, '010', '1e3', 'no']" "['010']" "'no'"
    """

    def in_quotes(match: re.Match[str]) -> str:
        return match[0] if match[0][0] in "'\"" or _is_text(match[0]) else f"'{match[0]}'"

    found = re.sub(r"""'[^']*'|"[^"]*"|[^\[\]{},\s'"]*[^\[\]{},\s'":]""", in_quotes, text)
    listed = f"[{found}]" if is_list and not found.lstrip().startswith(("[", "{")) else found
    return shlex.quote(listed) if set(listed) & set('"$`\\!') else f'"{listed}"'


def _is_text(name: str) -> bool:
    try:
        float(name)  # YAML 1.2 also takes 1e3 for a number
    except ValueError:
        try:
            return isinstance(yaml.safe_load(name), str)
        except yaml.YAMLError:
            return True
    return False


# --- Configurations as text ---


class _Dumper(yaml.SafeDumper):
    """Quotes texts such as 1e3, which YAML 1.2 and so jsonargparse and OmegaConf read as numbers."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9._]+(?:[eE][-+]?[0-9]+)?$"), None)


def dump_yaml(data: Any) -> str:
    """YAML that reads as it was, whoever reads it; jsonargparse writes and reads where ${...} is filled in."""
    return str(yaml.dump(data, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False))
