"""Pieces of HTML for notebooks. Pure: every text that is handed in comes out escaped, only what returns HTML is trusted.

All style stands in the elements: nothing that is shown changes the rest of the page. There are no colours but those of the
page and half-transparent greys, so that dark pages are served as well as light ones.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from storage.model.texts import shortened


class Html(str):
    """Text that is safe to be put into a page as it is. What is made of it by Python's own means is an ordinary text."""

    __slots__ = ()


TEXT_MAX = 120
"""So many characters of a name or a value are shown."""

_LINE = "1px solid rgba(128,128,128,.35)"
_BOX = f"border:{_LINE};border-radius:6px;padding:8px 12px;margin:2px 0;max-width:60em;overflow-x:auto;line-height:1.35"
_CELL = "padding:2px 14px 2px 0;border:0;text-align:left;vertical-align:middle;background:none;white-space:nowrap"
_MONO = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.92em"
_FAINT = "opacity:.65"


def text(value: object, most: int = TEXT_MAX) -> Html:
    """A value's text, escaped and cut to `most` characters."""
    return Html(html.escape(shortened(str(value), most)))


def code(value: object, most: int = TEXT_MAX) -> Html:
    """A name or a number, in the script of programs."""
    return Html(f'<span style="{_MONO}">{text(value, most)}</span>')


def faint(value: object, most: int = TEXT_MAX) -> Html:
    """A text that is not what one looks for first."""
    return Html(f'<span style="{_FAINT}">{text(value, most)}</span>')


def joined(*parts: Html) -> Html:
    """Pieces one after the other."""
    return Html("".join(parts))


def card(title: str, kind: str, *parts: Html) -> Html:
    """A box with a heading: a title and what it is the title of."""
    heading = f'<div style="margin-bottom:4px"><b>{text(title)}</b> <span style="{_FAINT}">{text(kind)}</span></div>'
    return Html(f'<div style="{_BOX}">{heading}{"".join(parts)}</div>')


def facts(rows: Iterable[tuple[str, object]]) -> Html:
    """Labels and values, a line for each pair."""
    lines = [f'<tr style="background:none"><td style="{_CELL};{_FAINT}">{text(label)}</td>{_cell(value)}</tr>'
             for label, value in rows]  # fmt: skip
    return _table(lines)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], more: str = "") -> Html:
    """A table, headed unless all heads are empty; cells that are not Html already are texts. `more` is a line below it."""
    lines = [f'<tr style="background:none">{"".join(map(_cell, row))}</tr>' for row in rows]
    if any(heads):
        cells = (
            f'<th style="{_CELL};{_FAINT};font-weight:normal;border-bottom:{_LINE}">{text(head)}</th>' for head in heads
        )
        lines.insert(0, f'<tr style="background:none">{"".join(cells)}</tr>')
    return joined(_table(lines), below(more))


def below(more: str) -> Html:
    """A faint line of its own; nothing for an empty text."""
    return Html(f'<div style="{_FAINT};padding-top:2px">{text(more)}</div>' if more else "")


NAME_WIDTH = 84
"""Pixels that a picture's name may take."""


def gallery(pictures: Iterable[tuple[str, tuple[str, int, int]]]) -> Html:
    """Pictures in a row, each (URI, width, height) above its name."""
    figures = [
        f'<span style="display:inline-block;margin:6px 10px 2px 0;text-align:center;vertical-align:bottom">'
        f'<img src="{html.escape(uri)}" width="{width}" height="{height}" alt="" '
        f'style="image-rendering:pixelated;display:block;margin:0 auto 2px;max-width:none">'
        f'<span style="{_MONO};{_FAINT};display:block;max-width:{NAME_WIDTH}px;overflow:hidden;text-overflow:ellipsis;'
        f'white-space:nowrap" title="{text(name)}">{text(name)}</span></span>'
        for name, (uri, width, height) in pictures
    ]
    return Html(f"<div>{''.join(figures)}</div>")


def lines(rows: Iterable[str]) -> Html:
    """Lines of text as on a terminal."""
    escaped = "\n".join(text(row, 2 * TEXT_MAX) for row in rows)
    return Html(f'<pre style="{_MONO};background:none;border:0;padding:0;margin:4px 0 0;color:inherit">{escaped}</pre>')


def _cell(value: object) -> str:
    return f'<td style="{_CELL}">{value if isinstance(value, Html) else text(value)}</td>'


def _table(lines: Sequence[str]) -> Html:
    return Html(
        f'<table style="border-collapse:collapse;border:0;margin:4px 0 0;font-size:inherit">{"".join(lines)}</table>'
    )
