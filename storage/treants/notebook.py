"""How Treants and bundles look in a notebook. What cannot be read is said in its place."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from storage import html
from storage.errors import ArborError
from storage.html import Html

if TYPE_CHECKING:
    from storage.treants.bundles import Bundle
    from storage.treants.state import State
    from storage.treants.treant import Treant

LISTED = 20
"""So many members, handles or categories are shown."""


def treant_html(treant: Treant) -> Html:
    """A Treant: where it is, how it is labelled, what data it has."""
    try:
        state = treant.state
        handles = list(islice(treant.data, LISTED + 1))
    except ArborError as error:
        return html.card(treant.name, f"Arborfs {treant.treanttype}", html.facts([("Unreadable", error)]))
    facts = [("Path", treant.abspath), ("Tags", _tags(state)), ("UUID", state.uuid)]
    parts = [html.facts(facts)]
    if state.categories:
        rows = list(islice(state.categories.items(), LISTED))
        cells = [(html.code(name), html.code(value)) for name, value in rows]
        parts.append(html.table(("Category", "Value"), cells, _more(len(state.categories))))
    if handles:
        parts.append(html.table(("Data",), [(html.code(handle),) for handle in handles[:LISTED]],
                                "… and more" if len(handles) > LISTED else ""))  # fmt: skip
    if state.members:
        parts.append(html.facts([("Members", f"{len(state.members):,}")]))
    return html.card(treant.name, f"Arborfs {state.kind}", *parts)


def bundle_html(bundle: Bundle) -> Html:
    """A bundle: its first members with their labels. It costs no more for many members than for few."""
    first = bundle[:LISTED]
    rows = [(html.code(name), *_labels(first, at)) for at, name in enumerate(first.names)]
    table = html.table(("Treant", "Tags", "Categories"), rows, _more(len(bundle)) if rows else "no members")
    return html.card("Bundle", f"{len(bundle):,} Treants", table)


def _labels(bundle: Bundle, at: int) -> tuple[object, object]:
    try:
        state = bundle[at].state
    except ArborError as error:
        return html.faint(error), ""
    return _tags(state), html.text(", ".join(f"{name}: {value}" for name, value in state.categories.items()))


def _tags(state: State) -> Html:
    return html.text(", ".join(state.tags))


def _more(count: int) -> str:
    return f"… and {count - LISTED:,} more" if count > LISTED else ""
