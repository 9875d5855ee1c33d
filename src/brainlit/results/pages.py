"""Self-contained HTML pages: the templates beside this module, escaped, in the colours of the figures."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from brainlit.results.style import PAGE_COLOURS, PAGE_COLOURS_AT_NIGHT

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(template: str, title: str, **values: Any) -> str:
    """A page as text.

    Parameters
    ----------
    template : str
        File name in results/templates/; it extends base.html.j2, which holds the style sheet.
    values
        What the template shows. Text is escaped; a name that the template asks for and nobody gave is an error.
    """
    return _environment().get_template(template).render(title=title, **values)


def render_part(template: str, **values: Any) -> str:
    """A part of a page, which a template shows as it is."""
    from markupsafe import Markup

    return Markup(_environment().get_template(template).render(**values))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("brainlit.results")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals |= {"colours": PAGE_COLOURS, "colours_at_night": PAGE_COLOURS_AT_NIGHT}
    made.filters |= {
        "spaced": lambda name: str(name).replace("_", " "),
        "slug": slug,
        "contents": contents,
        "with_code": with_code,
    }
    return made


def slug(title: str) -> str:
    """What a section is called in an address.

    >>> slug("What the run does not show: R²")
    'what-the-run-does-not-show-r'
    """
    return re.sub(r"[^a-z0-9]+", "-", str(title).lower()).strip("-") or "section"


def with_code(text: str) -> str:
    """Text as HTML, with what stands between backticks as code.

    >>> str(with_code("`brainlit fit -c DATA` makes r < 1"))
    '<code>brainlit fit -c DATA</code> makes r &lt; 1'
    """
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def contents(body: str) -> list[tuple[str, str]]:
    """Address and title of each section of a page, in their order.

    >>> contents('<details class="card" id="a" open><summary><h2>A &amp; B</h2></summary>...</details>')
    [('a', 'A & B')]
    """
    found = re.findall(r'<details class="card" id="([^"]+)"[^>]*><summary><h2>(.*?)</h2>', body)
    return [(name, html.unescape(title)) for name, title in found]
