"""Text stays text in the front end: of whatever a file or a workflow says, no markup and no script comes."""

import re

import pytest
from packed import ROOT

from demo.workflows import browser

SCRIPTS = sorted((ROOT / "web").rglob("*.*js"))
MAKES_MARKUP = r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|document\.write|DOMParser|srcdoc"
MAKES_CODE = r"\beval\b|\bFunction\(|setAttribute\(\s*[\"'`]on|set(?:Timeout|Interval)\(\s*[\"'`]|\bimport\("
NAMESPACE = "http://www.w3.org/2000/svg"  # a name, not an address

HOSTILE = (
    "<img src=x onerror='window.hacked = 1'>",
    "\"'><script>window.hacked = 2</script>",
    "</title></text></svg><svg onload='window.hacked = 3'>",
    "javascript:window.hacked = 4",
    "{{constructor.constructor('window.hacked = 5')()}}${window.hacked = 6}",
)
SHOW = """([kind, output]) => {
    window.hacked = 0
    const node = LiteGraph.createNode(kind)
    node.pos = [150, 150]
    app.graph.add(node)
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [0, 0]
    node.onExecuted(output)
    app.canvas.setDirty(true, true) }"""
FAIL = """text => {
    const detail = { node_id: app.graph.nodes[0].id, exception_message: text }
    app.api.dispatchEvent(new CustomEvent('execution_error', { detail })) }"""
# Every element inside, with its attributes: {tag, attributes: [[name, value], ...]}.
ELEMENTS = """root => [...root.querySelectorAll('*')].map(one => ({
    tag: one.localName, attributes: [...one.attributes].map(each => [each.name, each.value]) }))"""
OURS = {
    "a",
    "button",
    "div",
    "figcaption",
    "figure",
    "h3",
    "img",
    "input",
    "option",
    "output",
    "p",
    "section",
    "select",
}
OURS |= {"circle", "g", "line", "path", "polyline", "rect", "svg", "text", "title", "tspan"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_make_no_code_and_no_markup_of_text_and_fetch_nothing_from_elsewhere(script):
    source = script.read_text(encoding="utf-8")
    assert re.findall(f"{MAKES_MARKUP}|{MAKES_CODE}", source) == []
    assert set(re.findall(r"(?:https?|wss?)://[^\s\"'`]+", source)) <= {NAMESPACE}


@pytest.fixture(scope="module")
def page(server, chromium):
    with browser.front_end(server, chromium) as page:
        yield page


@pytest.fixture(params=[False, True], ids=["litegraph", "vue"])
def graph(page, request):
    """The front end on each of its renderers."""
    page.evaluate("([name, on]) => app.extensionManager.setting.set(name, on)", [browser.VUE, request.param])
    return page


def file_of(text: str) -> dict[str, str]:
    return {"filename": text, "subfolder": text, "type": text}


def view_of(text: str) -> dict:
    """A view of two steps and two runs, with this text wherever one belongs."""
    plane = {"path": [[0, 0], [1, 1], [2, 0]], "reference": [[0, 0], [1, 0], [2, 0]], "explained": [0.7, 0.2]}
    measures = {"drift": [None, 1.0], "distance": [0.0, 1.0, 1.0], "detail": [0.1, 0.2], text: [1.0, 2.0]}
    item = {"x0": [file_of(text)] * 2, "x_t": [file_of(text)] * 2, "plane": plane, "measures": measures}
    run = {"name": text, "t": [2.0, 1.0], "s_prime": [0.5, 0.0], "s": [1.0, 0.0], "items": [item, item]}
    files = {"data": file_of(text), text: file_of(text)}
    return {"steps": 2, "unit": text, "held": text, "message": text, "runs": [run, run], "files": files}


def show(page, kind: str, output: dict) -> None:
    """Put a node into an empty graph, as if it had just run with this output."""
    page.evaluate("app.graph.clear()")
    page.wait_for_function("!document.querySelector('.tcd-view, .tcd-report')")  # drawn by a timer
    page.evaluate(SHOW, [kind, output])


def check_harmless(page, element) -> None:
    """No element that we do not make, no handler, no address but the server's own, and nothing has run."""
    page.wait_for_timeout(300)  # a picture that does not load would have run its handler by then
    for found in element.evaluate(ELEMENTS):
        assert found["tag"] in OURS
        for name, value in found["attributes"]:
            assert not name.startswith("on")
            if name in ("href", "src"):
                assert re.match(r"(/api)?/view\?", value.removeprefix(page.url.rstrip("/")))
    assert page.evaluate("window.hacked") == 0


@pytest.mark.host
@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
class TestShown:
    """What a person sees is the text itself."""

    def test_in_the_viewer(self, graph, text):
        show(graph, "TCD_ViewTrajectory", {"tcd_view": [view_of(text)]})
        viewer = graph.locator(".tcd-view")
        viewer.locator(".tcd-strip button").first.wait_for()
        assert [title.inner_text() for title in viewer.locator("h3").all()] == [text, text]
        assert text in viewer.locator(".tcd-foot").inner_text()
        viewer.get_by_role("slider", name="Step").press("Home")
        check_harmless(graph, viewer)

    def test_in_the_viewer_of_an_error(self, graph, text):
        show(graph, "TCD_ViewTrajectory", {})
        graph.locator(".tcd-view").wait_for()
        graph.evaluate(FAIL, text)
        assert graph.locator(".tcd-message").inner_text() == text
        check_harmless(graph, graph.locator(".tcd-view"))

    def test_in_the_report_on_a_lora(self, graph, text):
        show(graph, "TCD_LoraLoader", {"tcd_report": [text, text]})
        report = graph.locator(".tcd-report")
        report.wait_for()
        assert report.inner_text() == f"{text}\n{text}"
        assert report.evaluate(ELEMENTS) == []
        check_harmless(graph, report)
