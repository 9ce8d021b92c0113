"""Pictures of the trajectory viewer in the real front end, for the README: docs/images/viewer*.png.

python -m demo.viewer_pictures
"""

import sys

from demo import server
from demo.workflows import WORKFLOWS, browser, kinds_of
from demo.workflows.ui_format import document

IMAGES = server.ROOT / "docs" / "images"
PICTURES = {"viewer": "tiny_tcd", "viewer_compare": "tiny_trajectories"}  # file -> the workflow that it shows
NODE = "TCD_ViewTrajectory"
SHOW = """([kind, width]) => {
    const [node] = app.graph.nodes.filter(node => node.type === kind)
    node.setSize([width, node.size[1]])
    app.canvas.ds.scale = 1.2
    app.canvas.ds.offset = [60 - node.pos[0], -60 - node.pos[1]] // its inputs are above the window
    app.canvas.setDirty(true, true) }"""


def main() -> None:
    chromium = browser.chromium_path()
    if chromium is None:
        sys.exit(f"none of {', '.join(browser.CHROMIUM)} is on PATH: install Chromium")
    with server.running_server() as url, browser.front_end(url, chromium) as page:
        for name, workflow in PICTURES.items():
            browser.open_workflow(page, document(WORKFLOWS[workflow](kinds_of(url))), vue=False)
            page.evaluate("app.queuePrompt(0)")
            viewer = page.locator(".tcd-view:not(.tcd-empty)")
            viewer.wait_for()
            page.evaluate(SHOW, [NODE, 640])
            viewer.get_by_role("slider").press("ArrowLeft")
            page.wait_for_timeout(1500)  # pictures load, and the canvas is drawn anew by a timer
            viewer.screenshot(path=IMAGES / f"{name}.png", style=browser.CLEAN)


if __name__ == "__main__":
    main()
