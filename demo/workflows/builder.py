"""A workflow as a few lines of Python: what the front end opens, and what the server runs, from one description.

    graph = Graph(kinds, "Title", "What it shows.")
    graph.column("Model")
    loader = graph.add("CheckpointLoaderSimple", ckpt_name="model.safetensors")
    graph.column("Prompt")
    graph.add("CLIPTextEncode", clip=loader["CLIP"], text="a red heart")
    graph.prompt()  # in API format; document(graph) is what the front end opens

Nodes stand below each other in columns, left to right, each column with a box and a title around it. `kinds` is what
the server's /object_info says: which inputs a node has, in which order, and what it gives.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}  # types that are typed or chosen in the node itself
TITLE, GAP, PADDING, TOP = 30, 26, 16, 70  # pixels: a node's title, the space below a node, in a box, above all
ROW, WIDTH, NOTE_WIDTH = 26, 340, 400  # a socket or widget; a column; the note
HEIGHTS = {  # of nodes that hold more than rows
    "CLIPTextEncode": 150,
    "LoadImage": 440,
    "PreviewImage": 400,
    "SaveImage": 490,
    "TCD_ViewTrajectory": 710,
    "TCD_Compare": 900,
}
REPORT = {"TCD_LoraLoader": 60}  # and of what a node shows below its rows, once it ran


class Output(NamedTuple):
    """One output of a node: what a link begins with."""

    node: "Node"
    slot: int


class Input(NamedTuple):
    """One input as /object_info describes it."""

    name: str
    type: str
    options: dict
    optional: bool

    @property
    def is_widget(self) -> bool:
        return self.type in WIDGETS


def inputs_of(kind: dict) -> Iterator[Input]:
    """The inputs of a node, in its own order; lists of choices are called COMBO, as in newer nodes."""
    for part in ("required", "optional"):
        for name, (what, *options) in kind["input"].get(part, {}).items():
            wanted = "COMBO" if isinstance(what, list) else what
            yield Input(name, wanted, options[0] if options else {}, part == "optional")


@dataclass
class Node:
    """A node in a graph: its class, what it is given, and where it stands."""

    id: int
    name: str
    kind: dict
    given: dict[str, Any]
    title: str
    pos: tuple[int, int]
    size: tuple[int, int]

    def __getitem__(self, output: str) -> Output:
        """An output by its name. Raises KeyError with the names that there are."""
        if output not in self.kind["output_name"]:
            raise KeyError(f"{self.name} has no output {output}: choose from {', '.join(self.kind['output_name'])}")
        return Output(self, self.kind["output_name"].index(output))

    @property
    def sockets(self) -> list[Input]:
        """The inputs in the order that the front end shows: plain sockets first, then the widgets."""
        return sorted(inputs_of(self.kind), key=lambda one: one.is_widget)

    def value(self, one: Input) -> Any:
        """What a widget holds. Raises ValueError where neither the graph nor the node says it."""
        given = self.given.get(one.name)
        if given is not None and not isinstance(given, Output):
            return given
        if "default" in one.options:
            return one.options["default"]
        if one.type == "STRING":
            return ""
        raise ValueError(f"{self.name}: {one.name} is not given and has no default")

    def widget_values(self) -> Iterator[Any]:
        """The values as the front end keeps them: some inputs have a second widget."""
        for one in inputs_of(self.kind):
            if one.is_widget:
                yield plain(self.value(one))
                if one.options.get("control_after_generate"):
                    yield "fixed"
                if one.options.get("image_upload"):
                    yield "image"

    def prompt(self) -> dict:
        """The node in API format."""
        inputs: dict[str, Any] = {one.name: plain(self.value(one)) for one in inputs_of(self.kind) if one.is_widget}
        for name, given in self.given.items():
            if isinstance(given, Output):
                inputs[name] = [str(given.node.id), given.slot]
        title = self.title or self.kind.get("display_name") or self.name
        return {"inputs": inputs, "class_type": self.name, "_meta": {"title": title}}


def plain(value: Any) -> Any:
    """A whole float as JavaScript writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def height_of(name: str, kind: dict) -> int:
    """Pixels that a node needs, without its title."""
    sockets = list(inputs_of(kind))
    plain_rows = max(sum(not one.is_widget for one in sockets), len(kind["output"]))
    second = sum(bool(one.options.get("control_after_generate")) for one in sockets)
    rows = plain_rows + sum(one.is_widget for one in sockets) + second
    return HEIGHTS.get(name, 14 + rows * ROW) + REPORT.get(name, 0)


def check_links(name: str, kind: dict, given: dict[str, Any]) -> None:
    """Raise ValueError unless the node has all that is given, and is given all links that it needs."""
    known = {one.name: one for one in inputs_of(kind)}
    if unknown := set(given) - set(known):
        raise ValueError(f"{name} has no input {', '.join(sorted(unknown))}")
    for one in known.values():
        needed = not one.is_widget and (not one.optional or one.name in given)
        if needed and not isinstance(given.get(one.name), Output):
            raise ValueError(f"{name}: {one.name} must be an output of another node, got {given.get(one.name)!r}")


@dataclass
class Graph:
    """A workflow: nodes in columns, and a note that explains it. `kinds` is the server's /object_info.

    `tries` is what the note proposes to try; `also` are files that are needed though no node names them.
    """

    kinds: dict[str, dict]
    title: str
    about: str
    tries: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    columns: list[dict] = field(default_factory=list)

    def column(self, title: str, width: int = WIDTH, pitch: int = 0, space: int = 60) -> None:
        """Begin a new column, `space` pixels to the right; its nodes are `pitch` apart, or as close as they can be."""
        right = self.columns[-1]["x"] + self.columns[-1]["width"] if self.columns else NOTE_WIDTH
        self.columns.append({"title": title, "width": width, "pitch": pitch, "y": TOP, "x": right + space})

    def add(self, name: str, title: str = "", /, **given: Any) -> Node:
        """A new node at the end of the last column; `given` are its inputs: values, or outputs of other nodes.

        Raises ValueError for a class or an input that there is not, and for a link that has to be there.
        """
        if name not in self.kinds:
            raise ValueError(f"the server has no node {name}")
        kind, column = self.kinds[name], self.columns[-1]
        check_links(name, kind, given)
        height = height_of(name, kind)
        size, pos = (column["width"], height), (column["x"], column["y"])
        column["y"] += max(height + TITLE + GAP, column["pitch"])
        node = Node(len(self.nodes) + 1, name, kind, given, title, pos, size)
        self.nodes.append(node)
        return node

    def fitting(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """Those of `given` that are inputs of this class of node."""
        known = {one.name for one in inputs_of(self.kinds[name])}
        return {key: value for key, value in given.items() if key in known}

    def prompt(self) -> dict[str, dict]:
        """The workflow in API format, as the front end would send it."""
        return {str(node.id): node.prompt() for node in self.nodes}
