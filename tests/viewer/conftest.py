"""The front end with one TCD View Trajectory in it, on either renderer."""

import importlib.util
import uuid
from pathlib import Path

import pytest

from demo.workflows import browser

ADD = """([view, size]) => {
    const node = LiteGraph.createNode('TCD_ViewTrajectory')
    node.pos = [150, 150]
    app.graph.add(node)
    if (size) node.setSize(size)
    if (view) node.onExecuted({tcd_view: [view]})
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [0, 0]
    app.canvas.setDirty(true, true)
    return node.id }"""
PLACE = """() => [app.canvas.ds.scale, ...app.canvas.ds.offset,
    ...app.graph.nodes.flatMap(node => [node.id, ...node.pos, ...node.size])]"""


def load(name: str):
    """A module that stands beside the tests; this folder is not on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Shown:
    """A viewer as a person meets it."""

    def __init__(self, page, url: str):
        self.page, self.url = page, url
        self.element = page.locator(".tcd-view")
        self.range = self.element.get_by_role("slider")

    def add(self, view: dict | None = None, size: tuple | None = None) -> int:
        """Put a node with this view into an empty graph, as if it had just run. Returns its id."""
        if view and view["files"]:  # a run of its own: what was done to another is not remembered for this one
            view = view | {"files": view["files"] | {"data": view["files"]["data"] | {"filename": uuid.uuid4().hex}}}
        self.page.evaluate("app.graph.clear()")
        self.page.wait_for_function("document.querySelectorAll('.tcd-view').length === 0")  # drawn by a timer
        number = self.page.evaluate(ADD, [view, size])
        self.element.wait_for()
        self.settle()
        return number

    def settle(self) -> None:
        """Wait until nothing moves any more: Nodes 2.0 measures a new node and then sets its size."""
        before = None
        while before != (before := (self.place(), self.element.first.bounding_box())):
            self.page.wait_for_timeout(300)

    def picture(self, kind: str = "clean", viewer: int = 0) -> str:
        """The file that is shown large, or beside it."""
        address = self.element.nth(viewer).locator(f".{kind} img").first.get_attribute("src")
        return address.split("filename=")[1].split("&")[0]

    def step(self) -> int:
        return int(self.range.first.input_value())

    def place(self) -> list[float]:
        """Where the canvas and its nodes are, and how large."""
        return self.page.evaluate(PLACE)

    def drag(self, locator, start: float, end: float) -> None:
        """Press at a fraction of an element's width, move to another, and let go."""
        box = locator.bounding_box()
        height = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + start * box["width"], height)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + end * box["width"], height + 3, steps=6)
        self.page.mouse.up()


@pytest.fixture(scope="module")
def page(server, chromium):
    with browser.front_end(server, chromium) as page:
        page.set_default_timeout(30_000)
        yield page


@pytest.fixture(params=[False, True], ids=["litegraph", "vue"])
def shown(page, server, request) -> Shown:
    """A viewer on each of the renderers; nothing is shown yet."""
    page.evaluate("([name, on]) => app.extensionManager.setting.set(name, on)", [browser.VUE, request.param])
    return Shown(page, server)


@pytest.fixture(scope="session")
def made_up():
    """Makes views without sampling."""
    return load("made_up")
