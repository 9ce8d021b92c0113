"""Every workflow in the real front end, on both of its renderers; and the tiny one run there by a click."""

import pytest

from demo.workflows import WORKFLOWS, browser
from demo.workflows.sd15 import IP_ADAPTER_PACK
from demo.workflows.ui_format import document

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]

MISSING = """() => app.graph.nodes.filter(node => node.has_errors || !(node.type in LiteGraph.registered_node_types))
    .map(node => node.type)"""
BROKEN = """() => [...app.graph.links.values()].filter(link => {
    const from = app.graph.getNodeById(link.origin_id)?.outputs[link.origin_slot]
    const to = app.graph.getNodeById(link.target_id)?.inputs[link.target_slot]
    return to?.link !== link.id || !from?.links.includes(link.id) || !LiteGraph.isValidConnection(from.type, to.type)
}).map(link => link.id)"""
WATCH = """() => { for (const kind of ['execution_success', 'execution_error'])
    app.api.addEventListener(kind, event => { window.ended = [kind, event.detail] }) }"""
SHOWING = ("SaveImage", "TCD_ViewTrajectory")
RENDERERS = pytest.mark.parametrize("vue", [False, True], ids=["litegraph", "vue"])


@pytest.fixture(scope="module")
def page(host, chromium):
    with browser.front_end(host.url, chromium) as page:
        yield page


def said(page) -> list[str]:
    """The words of every toast and dialog, but for the question which renderer one likes better."""
    words = page.locator(".p-toast-message, .p-dialog, .comfy-missing-nodes").all_inner_texts()
    return [text for text in words if "legacy design" not in text]


def overlapping(rectangles: list[list]) -> list[tuple[str, str]]:
    """Pairs of nodes that cover each other by more than a pixel."""
    return [
        (one, other)
        for i, (one, x, y, w, h) in enumerate(rectangles)
        for other, left, top, width, height in rectangles[i + 1 :]
        if min(x + w, left + width) - max(x, left) > 1 and min(y + h, top + height) - max(y, top) > 1
    ]


@RENDERERS
@pytest.mark.parametrize("name", WORKFLOWS)
def test_nothing_is_missing_broken_or_covered(page, kinds, name, vue):
    graph = WORKFLOWS[name](kinds)
    if any(node.name not in kinds for node in graph.nodes):
        pytest.skip(f"{IP_ADAPTER_PACK} is not in this host's custom_nodes")
    opened = document(graph)
    browser.open_workflow(page, opened, vue)
    assert page.evaluate(MISSING) == []
    assert page.evaluate(BROKEN) == []
    assert page.evaluate("app.graph.links.size") == len(opened["links"])
    assert overlapping(page.evaluate(browser.RECTANGLES[vue])) == []
    assert said(page) == []
    assert page.evaluate("async () => (await app.graphToPrompt()).output") == graph.prompt()


@RENDERERS
def test_a_click_runs_the_tiny_workflow(page, kinds, vue):
    graph = WORKFLOWS["tiny_tcd"](kinds)
    (loader,) = (node for node in graph.nodes if node.name == "TCD_LoraLoader")
    loader.given["strength"] = 0.99 if vue else 1.0  # or the second run would find all of it in the server's cache
    browser.open_workflow(page, document(graph), vue)
    page.evaluate("delete window.ended")
    page.evaluate(WATCH)
    page.get_by_test_id("queue-button").get_by_role("button").first.click()
    page.wait_for_function("window.ended")
    kind, detail = page.evaluate("window.ended")
    assert kind == "execution_success", detail
    saved, viewer = (next(node.id for node in graph.nodes if node.name == name) for name in SHOWING)
    page.wait_for_function(f"app.nodeOutputs[{saved}]?.images?.length === 4")
    page.wait_for_function(f"app.nodeOutputs[{viewer}]?.tcd_view?.length === 1")
    if not vue:  # there the pictures are elements, not the node's own
        images = f"app.graph.getNodeById({saved}).imgs"
        page.wait_for_function(f"{images}?.length === 4 && {images}.every(image => image.naturalWidth > 0)")
    page.locator(".tcd-report", has_text="132 of 132 modules matched").wait_for()
    assert said(page) == []
