"""The viewer in the real front end, on both renderers, with a view that was made up: what a person does with it."""

import pytest

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]

MARKERS = (
    "viewer => [...viewer.querySelectorAll('.marker')].map(one => [one.getAttribute('cx'), one.getAttribute('cy')])"
)
CONTRAST = """viewer => {
    const light = text => {
        const canvas = document.createElement('canvas').getContext('2d')
        canvas.fillStyle = text
        canvas.fillRect(0, 0, 1, 1)
        const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(part => part / 255)
        const linear = parts.map(part => part > 0.04 ? ((part + 0.055) / 1.055) ** 2.4 : part / 12.92)
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05 }
    const style = getComputedStyle(viewer)
    const [text, ground] = [light(style.color), light(style.backgroundColor)]
    return [ground, Math.max(text, ground) / Math.min(text, ground)] }"""
KEEP = """() => document.querySelectorAll('.tcd-view :is(img, svg, figure, section)').forEach(
    element => window.kept.push(new WeakRef(element)))"""
LEFT = (
    "window.kept.map(one => one.deref()).filter(one => one && !one.closest('.tcd-controls')).map(one => one.outerHTML)"
)


@pytest.fixture(scope="module")
def view(server, made_up) -> dict:
    return made_up.view(server)


@pytest.fixture(scope="module")
def pair(server, made_up) -> dict:
    """Two runs, of four and of seven steps."""
    return made_up.view(server, compare=7)


def markers(shown) -> list:
    return shown.element.first.evaluate(MARKERS)


def test_dragging_the_scrubber_changes_the_pictures_and_every_marker(shown, view):
    shown.add(view)
    place, before, marks = shown.place(), shown.element.screenshot(), markers(shown)
    assert "x0_3" in shown.picture()
    shown.drag(shown.range, 0.97, 0.03)
    assert shown.step() == 0
    assert "x0_0" in shown.picture()
    assert "x_t_0" in shown.picture("noisy")
    assert shown.element.screenshot() != before
    assert all(old != new for old, new in zip(marks, markers(shown), strict=True))
    assert shown.place() == place  # neither the node nor the canvas moved


@pytest.mark.parametrize("plot", ["levels", "measures"])
def test_dragging_in_a_plot_scrubs(shown, view, plot):
    shown.add(view)
    place = shown.place()
    shown.drag(shown.element.locator(f".{plot} svg"), 0.9, 0.1)
    assert shown.step() == 0
    assert shown.place() == place


def test_a_click_near_the_path_goes_to_that_state(shown, view):
    shown.add(view)
    mark = shown.element.locator(".plane .start").bounding_box()
    shown.page.mouse.click(mark["x"] + 3, mark["y"] + 3)
    assert shown.step() == 0


def test_a_press_on_the_picture_moves_nothing_and_gives_the_keys(shown, view):
    shown.add(view)
    place = shown.place()
    shown.drag(shown.element.locator(".clean img"), 0.3, 0.9)
    assert shown.place() == place
    shown.page.wait_for_function("document.activeElement?.type === 'range'")
    shown.page.keyboard.press("ArrowLeft")
    assert shown.step() == 2


def test_keys(shown, view):
    shown.add(view)
    place = shown.place()
    shown.range.focus()
    steps = []
    for key in ("Home", "ArrowRight", "ArrowUp", "End", "ArrowRight", "ArrowLeft", "ArrowDown"):
        shown.page.keyboard.press(key)
        steps.append(shown.step())
    assert steps == [0, 1, 2, 3, 3, 2, 1]
    assert shown.place() == place


def test_play_goes_round_and_pauses(shown, view):
    shown.add(view)
    shown.range.focus()
    shown.page.keyboard.press(" ")
    shown.element.get_by_role("button", name="Pause").wait_for()
    for step in (1, 2, 3, 0):  # it went to the start at once
        shown.page.wait_for_function("step => document.querySelector('.tcd-view input').value == step", arg=step)
    shown.element.get_by_role("button", name="Pause").click()
    stopped = shown.step()
    shown.page.wait_for_timeout(1000)
    assert shown.step() == stopped


def test_less_motion_plays_once(shown, view):
    shown.page.emulate_media(reduced_motion="reduce")
    shown.add(view)
    shown.element.get_by_role("button", name="Play").click()
    shown.page.wait_for_function("document.querySelector('.tcd-view input').value == 3")
    shown.element.get_by_role("button", name="Play").wait_for()
    shown.page.emulate_media(reduced_motion="no-preference")


def test_another_picture_of_the_batch(shown, view):
    shown.add(view)
    first, marks = shown.picture(), markers(shown)
    shown.element.get_by_role("combobox", name="Picture of the batch").select_option("picture 2")
    assert shown.picture() != first
    assert "_1_x0_3" in shown.picture()
    assert len(markers(shown)) == len(marks)


def test_two_runs_side_by_side(shown, pair):
    shown.add(pair)
    box = shown.element.bounding_box()
    left, right = (one.bounding_box() for one in shown.element.locator(".tcd-run").all())
    assert left["x"] + left["width"] < right["x"]
    assert left["y"] == pytest.approx(right["y"], abs=1)
    words = shown.element.locator(".tcd-words")
    assert [text.splitlines()[0] for text in words.all_inner_texts()] == ["Step 4 of 4", "Step 7 of 7"]
    shown.range.focus()
    for _ in range(3):
        shown.page.keyboard.press("ArrowLeft")
    assert [text.splitlines()[0] for text in words.all_inner_texts()] == ["Step 3 of 4", "Step 4 of 7"]
    shown.element.locator(".run-0 .tcd-strip button").first.click()
    assert [text.splitlines()[0] for text in words.all_inner_texts()] == ["Step 1 of 4", "Step 1 of 7"]
    assert shown.element.bounding_box() == box


def test_full_screen_and_back(shown, view):
    shown.add(view)
    place = shown.place()
    shown.element.get_by_role("button", name="Full screen").click()
    shown.page.wait_for_function("document.fullscreenElement?.matches('.tcd-view')")
    window = shown.page.evaluate("[innerWidth, innerHeight]")
    box = shown.element.bounding_box()
    assert [box["width"], box["height"]] == pytest.approx(window, abs=2)
    shown.page.keyboard.press("Home")
    assert shown.step() == 0
    shown.element.get_by_role("button", name="Full screen").click()
    shown.page.wait_for_function("!document.fullscreenElement")
    shown.settle()
    assert shown.place() == place


def test_a_screen_reader_hears_the_step(shown, view):
    shown.add(view)
    shown.element.get_by_role("slider", name="Step").press("Home")
    said = "Step 1 of 4: noise level 15 down to 2.5, up to 6.2"
    assert shown.range.get_attribute("aria-valuetext") == said
    assert shown.element.locator("[aria-live=polite]").inner_text() == said
    assert shown.page.get_by_role("group", name="Trajectory viewer").count() == 1
    assert shown.element.locator(".clean img").get_attribute("alt") == "Clean prediction at step 1"


@pytest.mark.parametrize("palette", ["dark", "light", "solarized"])
def test_text_is_readable_in_every_theme(shown, view, palette):
    set_palette = "name => app.extensionManager.setting.set('Comfy.ColorPalette', name)"
    shown.page.evaluate(set_palette, palette)
    try:
        shown.add(view)
        ground, contrast = shown.element.evaluate(CONTRAST)
        assert contrast > 4.5
        assert (ground > 0.25) == (palette == "light")
    finally:
        shown.page.evaluate(set_palette, "dark")


@pytest.mark.parametrize("size", [(320, 600), (420, 700), (560, 800), (1000, 900)], ids=str)
def test_nothing_overflows(shown, view, size):
    shown.add(view, size)
    wide = "viewer => [viewer.scrollWidth - viewer.clientWidth, viewer.scrollHeight - viewer.clientHeight]"
    assert shown.element.evaluate(wide) == [0, 0]
    node = shown.page.evaluate("(([node]) => [node.pos[0], node.pos[1], ...node.size])(app.graph.nodes)")
    box = shown.element.bounding_box()
    top = shown.page.evaluate("app.canvas.canvas.getBoundingClientRect().top")
    assert box["x"] >= node[0]
    assert box["x"] + box["width"] <= node[0] + node[2]
    assert box["y"] + box["height"] <= top + node[1] + node[3]


def test_a_new_node_says_what_to_do(shown):
    shown.add()
    assert "Run the workflow" in shown.element.inner_text()
    assert not shown.range.is_visible()


def test_an_empty_trajectory_is_said(shown, view):
    shown.add(view | {"runs": [view["runs"][0] | {"t": [], "items": []}], "files": {}})
    assert "no steps" in shown.element.inner_text()


def test_a_message_is_shown_as_text(shown, view):
    shown.add(view | {"message": "The VAE is <b>of another model</b>"})
    assert "<b>of another model</b>" in shown.element.locator(".tcd-message").inner_text()
    assert shown.element.locator("b").count() == 0


def test_pictures_that_are_gone_are_said(shown, made_up, server):
    lost = made_up.view(server, items=1)
    for ref in lost["runs"][0]["items"][0]["x0"]:
        ref["filename"] = f"gone_{ref['filename']}"
    shown.add(lost)
    shown.element.locator(".tcd-message", has_text="run the workflow again").wait_for()


def test_deleted_nodes_leave_nothing_behind(shown, view):
    shown.page.evaluate("window.kept = []")
    for _ in range(3):
        shown.add(view)
        shown.element.get_by_role("button", name="Play").click()
        shown.page.evaluate(KEEP)
    shown.page.evaluate("app.graph.clear()")
    shown.page.wait_for_function("document.querySelectorAll('.tcd-view').length === 0")
    collector = shown.page.context.new_cdp_session(shown.page)
    for _ in range(20):
        collector.send("HeapProfiler.collectGarbage")
        if not (left := shown.page.evaluate(LEFT)):
            break
        shown.page.wait_for_timeout(200)
    assert left == []
