"""ComfyUI's front end in a headless Chromium, on either of its renderers: for the tests and the thumbnails."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "1.32.9",
    "Comfy.Release.Status": "skip",
    "Comfy.Graph.CanvasInfo": False,
}
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]
MILLISECONDS = 120_000  # a busy machine may need far more than the usual ten seconds
VUE = "Comfy.VueNodes.Enabled"  # the setting that tells the two renderers apart

# Rectangles of all nodes as they are drawn, in the graph's own units. LiteGraph's include no title, Vue's do.
RECTANGLES = {
    False: """() => app.graph.nodes.map(node => {
        const [x, y, w, h] = node.boundingRect; return [node.type, x, y, w, h] })""",
    True: """() => app.graph.nodes.map(node => {
        const scale = app.canvas.ds.scale, [left, top] = app.canvas.ds.offset
        const r = document.querySelector(`[data-node-id="${node.id}"]`).getBoundingClientRect()
        return [node.type, r.x / scale - left, r.y / scale - top, r.width / scale, r.height / scale] })""",
}


# Show all groups, and perhaps the note beside them, as large as the window allows. Returns their place in it.
FIT = """note => {
    const canvas = app.canvas.canvas.getBoundingClientRect()
    const notes = app.graph.nodes.filter(node => note && node.type === 'MarkdownNote').map(node => node.boundingRect)
    const boxes = [...notes, ...app.graph.groups.map(group => group._bounding)]
    const left = Math.min(...boxes.map(box => box[0])), right = Math.max(...boxes.map(box => box[0] + box[2]))
    const top = Math.min(...boxes.map(box => box[1])), bottom = Math.max(...boxes.map(box => box[1] + box[3]))
    const scale = Math.min(canvas.width / (right - left + 40), canvas.height / (bottom - top + 40))
    app.canvas.ds.scale = scale
    app.canvas.ds.offset = [20 - left, 20 - top]
    app.canvas.setDirty(true, true)
    return {x: canvas.x, y: canvas.y, width: (right - left + 40) * scale, height: (bottom - top + 40) * scale} }"""
NODES = "#graph-canvas, [data-node-id], [data-node-id] *, .dom-widget, .dom-widget *"
CLEAN = f"body * {{ visibility: hidden }} {NODES} {{ visibility: visible }}"  # no menus above the graph


def chromium_path() -> str | None:
    """The browser on PATH, if there is one."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def post(url: str, value: object) -> None:
    """Send JSON to the server."""
    header = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(value).encode(), header)).close()


@contextmanager
def front_end(base_url: str, chromium: str) -> Iterator[Any]:
    """A playwright page with the front end, ready, and with nothing on it but the graph."""
    from playwright.sync_api import sync_playwright

    post(f"{base_url}/settings", SETTINGS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(viewport={"width": 1700, "height": 1000})
        page.set_default_timeout(MILLISECONDS)
        page.goto(base_url)
        page.wait_for_function("window.app?.graph && window.app.extensionManager && document.querySelector('canvas')")
        page.wait_for_function("'TCD_ViewTrajectory' in LiteGraph.registered_node_types")
        yield page
        browser.close()


def open_workflow(page: Any, document: dict, vue: bool) -> None:
    """Open a workflow on the renderer that draws nodes with Vue, or on LiteGraph's canvas."""
    page.evaluate("([name, on]) => app.extensionManager.setting.set(name, on)", [VUE, vue])
    page.evaluate("graph => app.loadGraphData(graph)", document)
    if vue:
        page.wait_for_function("document.querySelectorAll('[data-node-id]').length === app.graph.nodes.length")


def picture(page: Any, note: bool) -> bytes:
    """The whole graph as a PNG, with or without its note, and without the menus around it."""
    place = page.evaluate(FIT, note)
    page.wait_for_timeout(500)  # the canvas is drawn anew by a timer
    return page.screenshot(style=CLEAN, clip=place)
