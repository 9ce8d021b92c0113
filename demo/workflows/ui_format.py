"""A Graph as the JSON document that the front end saves and opens (schema 0.4), with boxes around the columns."""

import math

from demo.workflows import files
from demo.workflows.builder import GAP, NOTE_WIDTH, PADDING, TITLE, TOP, Graph, Node, Output

OPTIONAL = 7  # the front end's number for a round socket
OURS, NOTE = ("#223", "#335"), ("#432", "#653")  # colours of title and body
LINE, LETTERS = 17, 54  # of the note's text: pixels a line, letters in a line


def links_of(graph: Graph) -> list[list]:
    """[id, from node, its slot, to node, its slot, type] of every link."""
    ends = [
        (given, node, slot, one.type)
        for node in graph.nodes
        for slot, one in enumerate(node.sockets)
        if isinstance(given := node.given.get(one.name), Output)
    ]
    return [
        [number, given.node.id, given.slot, node.id, slot, kind]
        for number, (given, node, slot, kind) in enumerate(ends, 1)
    ]


def inputs_of_entry(node: Node, links: list[list]) -> list[dict]:
    """A node's inputs, each with the link that ends there."""
    into = {slot: number for number, _, _, target, slot, _ in links if target == node.id}
    return [
        {"name": one.name, "type": one.type}
        | ({"widget": {"name": one.name}} if one.is_widget else {"shape": OPTIONAL} if one.optional else {})
        | {"link": into.get(slot)}
        for slot, one in enumerate(node.sockets)
    ]


def outputs_of_entry(node: Node, links: list[list]) -> list[dict]:
    """A node's outputs, each with the links that begin there."""
    kinds = zip(node.kind["output_name"], node.kind["output"], strict=True)
    return [
        {
            "name": name,
            "type": kind,
            "links": [number for number, source, place, *_ in links if (source, place) == (node.id, slot)] or None,
        }
        for slot, (name, kind) in enumerate(kinds)
    ]


def node_entry(node: Node, order: int, links: list[list]) -> dict:
    """A node as the front end saves it."""
    entry = {
        "id": node.id,
        "type": node.name,
        "pos": list(node.pos),
        "size": list(node.size),
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": inputs_of_entry(node, links),
        "outputs": outputs_of_entry(node, links),
        "properties": {"Node name for S&R": node.name} | node.kind.get("properties", {}),
        "widgets_values": list(node.widget_values()),
    }
    if node.title:
        entry["title"] = node.title
    if node.name.startswith("TCD_"):
        entry |= {"color": OURS[0], "bgcolor": OURS[1]}
    return entry


def note_text(graph: Graph) -> str:
    """What the workflow shows, which files it needs and where they go, and what to try."""
    parts = [f"## {graph.title}", graph.about, "### Files", *files.lines(graph)]
    if graph.tries:
        parts += ["### Try", *(f"- {one}" for one in graph.tries)]
    return "\n\n".join(parts)


def note_entry(graph: Graph, text: str, number: int) -> dict:
    """The note, left of everything."""
    lines = sum(math.ceil(max(len(line), 1) / LETTERS) for line in text.splitlines())
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": [0, TOP],
        "size": [NOTE_WIDTH, 40 + lines * LINE],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "Read me",
        "properties": {},
        "widgets_values": [text],
        "color": NOTE[0],
        "bgcolor": NOTE[1],
    }


def box(number: int, column: dict) -> dict:
    """The box around one column."""
    height = column["y"] - GAP - TITLE - TOP
    return {
        "id": number,
        "title": column["title"],
        "bounding": [
            column["x"] - PADDING,
            0,
            column["width"] + 2 * PADDING,
            TOP + height + PADDING,
        ],
        "color": "#8aa6b8",
        "font_size": 22,
        "flags": {},
    }


def document(graph: Graph) -> dict:
    """The whole workflow as the front end saves it. Nothing in it changes from one run to the next."""
    links = links_of(graph)
    entries = [node_entry(node, order, links) for order, node in enumerate(graph.nodes, 1)]
    note = note_entry(graph, note_text(graph), len(entries) + 1)
    return {
        "id": "00000000-0000-0000-0000-000000000000",
        "revision": 0,
        "last_node_id": note["id"],
        "last_link_id": len(links),
        "nodes": [note, *entries],
        "links": links,
        "groups": [box(number, column) for number, column in enumerate(graph.columns, 1)],
        "config": {},
        "extra": {"ds": {"scale": 0.7, "offset": [110, 170]}},
        "version": 0.4,
    }
