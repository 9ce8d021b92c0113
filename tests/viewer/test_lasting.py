"""What the viewer shows outlives undo, copies, tabs, subgraphs and reloads; and real runs, on both renderers."""

import itertools

import pytest

from demo.workflows import browser, kinds_of
from demo.workflows.builder import Graph
from demo.workflows.ui_format import document

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]

SEEDS = itertools.count()  # a run of its own each time: none comes out of the server's cache
COMMAND = "name => app.extensionManager.command.execute(name)"
TRACKER = "app.extensionManager.workflow.activeWorkflow.changeTracker"
PATH = "app.extensionManager.workflow.activeWorkflow?.path"
VIEWERS = "[...document.querySelectorAll('.tcd-view:not(.tcd-empty)')].filter(one => one.checkVisibility()).length"
RUN = """async () => {
    const ended = new Promise(resolve => { for (const kind of ['execution_success', 'execution_error'])
        app.api.addEventListener(kind, () => resolve(kind), {once: true}) })
    await app.queuePrompt(0)
    return ended }"""


def wait_for(shown, count: int) -> None:
    shown.page.wait_for_function(f"{VIEWERS} === {count}")


def noticed(shown, count: int) -> None:
    """The front end can undo what led to this many nodes; while it loads a workflow, it looks away."""
    shown.page.wait_for_function(f"{TRACKER}.checkState(), {TRACKER}.activeState.nodes.length === {count}")


def select(shown, number: int) -> None:
    """Select a node and leave the keys to the canvas."""
    shown.page.evaluate("id => app.canvas.selectNodes([app.graph.getNodeById(id)])", number)
    shown.page.evaluate("document.activeElement.blur()")


@pytest.fixture
def kept(shown, server, made_up) -> int:
    """The id of a node in a workflow of its own, which shows step 2 of picture 1."""
    before = shown.page.evaluate(PATH)
    shown.page.evaluate("app.loadGraphData({version: 0.4, nodes: [], links: [], last_node_id: 0, last_link_id: 0})")
    shown.page.wait_for_function(f"before => {PATH} !== before && {TRACKER}.activeState.nodes.length === 0", arg=before)
    number = shown.add(made_up.view(server, items=2))
    noticed(shown, 1)
    shown.range.press("ArrowLeft")
    shown.range.press("ArrowLeft")
    assert "x0_1" in shown.picture()
    shown.page.wait_for_timeout(300)  # newer front ends take changes that follow at once for the same one
    return number


def test_undo_brings_back_a_deleted_viewer_at_its_step(shown, kept):
    select(shown, kept)
    shown.page.evaluate(COMMAND, "Comfy.Canvas.DeleteSelectedItems")
    noticed(shown, 0)
    wait_for(shown, 0)
    shown.page.wait_for_timeout(300)
    shown.page.evaluate(COMMAND, "Comfy.Undo")
    wait_for(shown, 1)
    assert "x0_1" in shown.picture()


def test_undo_of_something_else_keeps_the_viewer(shown, kept):
    shown.page.evaluate("app.graph.add(LiteGraph.createNode('EmptyLatentImage'))")
    shown.settle()
    noticed(shown, 2)
    shown.page.evaluate(COMMAND, "Comfy.Undo")
    shown.page.wait_for_function("app.graph.nodes.length === 1")
    shown.page.wait_for_timeout(500)
    wait_for(shown, 1)
    assert shown.page.evaluate("app.graph.nodes[0].tcdViewer.element.isConnected")
    shown.drag(shown.range, 0.35, 0.97)
    assert "x0_3" in shown.picture()


def test_a_run_is_no_step_of_undo(shown, kept):
    before = shown.page.evaluate(f"{TRACKER}.undoQueue.length")
    view = shown.page.evaluate("app.graph.nodes[0].tcdViewer.view")
    view["files"]["data"]["filename"] = "another"
    shown.page.evaluate("view => app.graph.nodes[0].onExecuted({tcd_view: [view]})", view)
    shown.page.evaluate(f"{TRACKER}.checkState()")
    assert shown.page.evaluate(f"{TRACKER}.undoQueue.length") == before


def test_a_copy_shows_the_same_and_moves_by_itself(shown, kept):
    select(shown, kept)
    shown.page.keyboard.press("Control+c")
    shown.page.mouse.move(1200, 300)
    shown.page.keyboard.press("Control+v")
    wait_for(shown, 2)
    pictures = sorted(shown.picture(viewer=i) for i in range(2))
    assert pictures[0] == pictures[1]
    shown.page.evaluate("app.graph.nodes[1].tcdViewer.element.querySelector('input').focus()")
    shown.page.keyboard.press("End")
    pictures = sorted(shown.picture(viewer=i) for i in range(2))
    assert ["x0_1" in pictures[0], "x0_3" in pictures[1]] == [True, True]
    shown.page.evaluate("app.graph.nodes[0].tcdViewer.element.querySelector('input').focus()")
    shown.page.keyboard.press("ArrowRight")
    assert sorted(shown.picture(viewer=i)[-8:] for i in range(2)) == ["x0_2.png", "x0_3.png"]


def test_another_tab_and_back(shown, kept):
    path, title = shown.page.evaluate(f"[{PATH}, app.extensionManager.workflow.activeWorkflow.filename]")
    shown.page.evaluate(COMMAND, "Comfy.NewBlankWorkflow")
    shown.page.wait_for_function(f"path => {PATH} !== path", arg=path)
    wait_for(shown, 0)
    shown.page.get_by_text(title, exact=True).first.click()
    shown.page.wait_for_function(f"path => {PATH} === path", arg=path)
    wait_for(shown, 1)
    assert "x0_1" in shown.picture()


def test_inside_a_subgraph_and_out_again(shown, kept):
    select(shown, kept)
    shown.page.evaluate("app.canvas.graph.convertToSubgraph(app.canvas.selectedItems)")
    shown.page.evaluate("app.canvas.openSubgraph(app.graph.nodes[0].subgraph, app.graph.nodes[0])")
    wait_for(shown, 1)
    shown.page.evaluate("app.canvas.ds.offset = [0, 0]")
    assert "x0_1" in shown.picture()
    shown.range.press("End")
    assert "x0_3" in shown.picture()
    shown.page.evaluate("app.canvas.setGraph(app.graph)")
    wait_for(shown, 0)
    shown.page.evaluate("app.graph.unpackSubgraph(app.graph.nodes[0])")
    wait_for(shown, 1)
    assert "x0_3" in shown.picture()


@pytest.fixture(scope="module")
def kinds(server) -> dict:
    return kinds_of(server)


def workflow(kinds: dict, seed: int, item: int = 0, steps: tuple[int, ...] = (4,), decoded: bool = True) -> Graph:
    """The tiny model's pictures and their trajectory; perhaps beside that of a second run."""
    graph = Graph(kinds, "Viewer", "")
    graph.column("Model")
    loader = graph.add("TCD_TinyLoader")
    text = graph.add("CLIPTextEncode", clip=loader["CLIP"], text="red heart")["CONDITIONING"]
    empty = graph.add("EmptyLatentImage", width=64, height=64, batch_size=2)["LATENT"]
    graph.column("Sample")
    given = {"model": loader["MODEL"], "positive": text, "negative": text, "latent": empty, "seed": seed}
    runs = [graph.add("TCD_KSampler", **given, steps=count, gamma=0.5) for count in steps]
    graph.column("View", width=520)
    given = {"compare": runs[1]["trajectory"]} if len(runs) > 1 else {}
    if decoded:
        given["vae"] = loader["VAE"]
    first = {"trajectory": runs[0]["trajectory"], "latent": runs[0]["latent"]}
    graph.add("TCD_ViewTrajectory", **first, item=item, **given)
    return graph


def run(shown, graph: Graph) -> str:
    """Open and run a workflow, with the viewer in the middle of the window. Returns how it ended."""
    vue = shown.page.evaluate("name => app.extensionManager.setting.get(name)", browser.VUE)
    browser.open_workflow(shown.page, document(graph), vue)
    centre(shown)
    return shown.page.evaluate(RUN)


def centre(shown) -> None:
    shown.page.evaluate("""() => {
        const node = app.graph.nodes.find(node => node.type === 'TCD_ViewTrajectory')
        app.canvas.ds.scale = 0.75  // below menus, above the question which renderer one likes
        app.canvas.ds.offset = [200 - node.pos[0], 150 - node.pos[1]]
        app.canvas.setDirty(true, true) }""")


def loaded(shown) -> None:
    """Every picture arrived."""
    wait_for(shown, 1)
    shown.page.wait_for_function("[...document.querySelectorAll('.tcd-view img')].every(one => one.naturalWidth > 0)")
    shown.settle()


def test_a_real_run_is_shown_and_shown_again_after_a_reload(shown, kinds):
    assert run(shown, workflow(kinds, next(SEEDS))) == "execution_success"
    loaded(shown)
    before, first = shown.picture(), shown.element.locator(".clean").screenshot()
    shown.drag(shown.range, 0.97, 0.03)
    assert shown.element.locator(".clean").screenshot() != first
    assert "Recorded" in shown.element.inner_text()
    shown.page.wait_for_timeout(1500)  # the front end keeps the workflow by a timer
    shown.page.reload()
    shown.page.wait_for_function("window.app?.graph?.nodes?.some(node => node.type === 'TCD_ViewTrajectory')")
    centre(shown)
    loaded(shown)
    assert shown.picture() == before


def test_two_real_runs_side_by_side(shown, kinds):
    assert run(shown, workflow(kinds, next(SEEDS), steps=(4, 3))) == "execution_success"
    loaded(shown)
    words = shown.element.locator(".tcd-words").all_inner_texts()
    assert [text.splitlines()[0] for text in words] == ["Step 4 of 4", "Step 3 of 3"]


def test_a_missing_vae_is_said_above_the_previews(shown, kinds):
    assert run(shown, workflow(kinds, next(SEEDS), decoded=False)) == "execution_success"
    loaded(shown)
    assert "No VAE is connected" in shown.element.locator(".tcd-message").inner_text()


def test_an_error_is_said_in_the_node(shown, kinds):
    assert run(shown, workflow(kinds, next(SEEDS), item=7)) == "execution_error"
    shown.page.keyboard.press("Escape")
    shown.element.locator(".tcd-message", has_text="item must be below").wait_for()
