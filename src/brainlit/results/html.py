"""Small pieces of a page that needs nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from brainlit.results.look import Figure

DASH = "\N{EN DASH}"
CSS = """
:root{--ink:#1F2733;--faint:#667080;--rule:#E3E6EB;--paper:#fff;--ground:#F5F6F8;--after:#C8385A;--before:#A3A9B3}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);line-height:1.55;font-size:15.5px;
 font-family:Inter,-apple-system,"Segoe UI","Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 24px 64px}
header.card{background:linear-gradient(135deg,#1F2733,#2C3A52);color:#fff;border-radius:14px;padding:28px 32px}
header h1{font-size:24px;margin:0 0 4px;letter-spacing:-.01em}
header .meta{color:#B9C2D0;font-size:13.5px}
header .headline{margin:18px 0 0;padding:0;list-style:none;font-size:16.5px}
header .headline li{margin:8px 0}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin-top:20px}
.tile{background:rgba(255,255,255,.09);border-radius:10px;padding:12px 16px;min-width:170px;flex:1}
.tile .what{font-size:12px;color:#B9C2D0;text-transform:uppercase;letter-spacing:.05em}
.tile .number{font-size:25px;font-weight:650;white-space:nowrap;font-variant-numeric:tabular-nums}
.tile .small{font-size:12.5px;color:#D4DAE4}
.badge{display:inline-block;border-radius:99px;padding:2px 11px;font-size:12.5px;font-weight:600;margin-right:6px}
.badge.control{background:#F4C95D;color:#3b2f05}.badge.plain{background:rgba(255,255,255,.16);color:#fff}
section.card{background:var(--paper);border:1px solid var(--rule);border-radius:14px;padding:22px 28px;margin-top:18px}
h2{font-size:18.5px;margin:0 0 10px;letter-spacing:-.01em}h3{font-size:15px;margin:18px 0 6px}
figure{margin:10px 0 4px}figure img{max-width:100%;height:auto;display:block;margin:0 auto}
figcaption,.note{color:var(--faint);font-size:13px;margin-top:8px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:13.5px;width:100%;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--faint);font-weight:600;border-bottom:2px solid var(--rule);padding:6px 10px 6px 0}
td{border-bottom:1px solid var(--rule);padding:5px 10px 5px 0;vertical-align:top}
th.num,td.num{text-align:right}.ci{color:var(--faint);font-size:12px;white-space:nowrap}
tr.focus td{background:#FBF1F3;font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0;font-size:14px}
dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}
details summary{cursor:pointer;color:var(--faint);font-size:13.5px;margin-top:8px}
pre{background:var(--ground);padding:12px;border-radius:8px;font-size:12px;overflow:auto;max-height:380px}
.limits li{margin:6px 0}
@media print{body{background:#fff}section.card,header.card{break-inside:avoid}}
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page with its style inside."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A titled card; empty parts are left out."""
    return f'<section class="card"><h2>{escape(title)}</h2>\n' + "\n".join(p for p in parts if p) + "\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def bullets(texts: Iterable[str], kind: str = "") -> str:
    """A list of plain texts."""
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def figure_tag(figure: Figure) -> str:
    """The picture inside the page, with its words."""
    kind, data = ("svg+xml", figure.svg) if figure.svg is not None else ("png", figure.png)
    address = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<figure><img src="{address}" alt="{escape(figure.alt, quote=True)}">'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def facts(pairs: Mapping[str, Any]) -> str:
    """Names and values; None and empty ones are left out."""
    shown = {name: value for name, value in pairs.items() if value not in (None, "", [], {})}
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in shown.items()) + "</dl>"


def table(heads: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]], n_text: int = 1) -> str:
    """A table; the first n_text columns are text, the rest numbers (cells are HTML). True marks a row as the focus."""
    head = "".join(f'<th class="{"" if k < n_text else "num"}">{escape(h)}</th>' for k, h in enumerate(heads))
    body = "".join(
        f'<tr class="{"focus" if focus else ""}">'
        + "".join(f'<td class="{"" if k < n_text else "num"}">{cell}</td>' for k, cell in enumerate(cells))
        + "</tr>"
        for cells, focus in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def number(score: Mapping[str, Any] | None, signed: bool = False, digits: int = 3) -> str:
    """A value with its interval in small type; a dash where it is not defined."""
    if not score or score.get("value") is None:
        return DASH
    sign = "+" if signed else ""
    text = f"{score['value']:{sign}.{digits}f}"
    if score.get("low") is None:
        return text
    return f'{text} <span class="ci">[{score["low"]:{sign}.{digits}f}, {score["high"]:{sign}.{digits}f}]</span>'
