"""The report in TCD LoRA Loader."""

import pytest

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]

REPLACE = """text => {
    app.graph.clear()
    const node = LiteGraph.createNode('TCD_LoraLoader')
    node.pos = [150, 150]
    app.graph.add(node)
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [0, 0]
    node.onExecuted({tcd_report: [text]})
    return node.id }"""


def test_a_node_that_gets_the_id_of_another_shows_its_own_report(shown):
    report = shown.page.locator(".tcd-report")
    ids = []
    for text in ("the first", "the second"):
        ids.append(shown.page.evaluate(REPLACE, text))
        report.get_by_text(text, exact=True).wait_for()
        shown.page.wait_for_timeout(300)
        assert report.all_inner_texts() == [text]
    assert ids[0] == ids[1]
