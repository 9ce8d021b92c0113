"""What a user reads of the nodes: names, tooltips, help pages and their pictures, in English and in Chinese.

The English locale is what the schemas say. After a change there: UPDATE_LOCALES=1 python3 dev.py test tests/test_web.py
"""

import json
import os
import re
import urllib.request
from pathlib import Path

import pytest
from host_process import module, pack

from demo import node_pictures
from demo.workflows import browser

ROOT = Path(__file__).resolve().parent.parent
DOCS, LOCALES, SCRIPTS = ROOT / "web" / "docs", ROOT / "locales", sorted((ROOT / "web" / "js").rglob("*.*js"))
NODES = [
    "TCD_Sampler",
    "TCD_Scheduler",
    "TCD_GammaSchedule",
    "TCD_KSampler",
    "TCD_LoraLoader",
    "TCD_RecordTrajectory",
    "TCD_ViewTrajectory",
    "TCD_Compare",
    "TCD_TinyLoader",
]
PAGES = {node: {"en": DOCS / f"{node}.md", "zh": DOCS / node / "zh.md"} for node in NODES}  # as the front end asks
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
PAGE = pytest.mark.parametrize(
    "page", [page for both in PAGES.values() for page in both.values()], ids=lambda page: str(page.relative_to(DOCS))
)
KILOBYTES = 600  # of all pictures
STARTED = "app.extensionManager.workflow?.activeWorkflow && app.graph.nodes.length"  # the default workflow is there
# Puts a node where no panel of the front end covers it, and selects it as a click does.
SELECT = """kind => {
    app.graph.clear()
    const node = LiteGraph.createNode(kind)
    node.pos = [700, 300]
    app.graph.add(node)
    app.canvas.select(node)
    app.canvas.onSelectionChange(app.canvas.selected_nodes) }"""
LOADED = "[...document.querySelectorAll('.node-help-content img')].map(image => image.complete && image.naturalWidth)"


def read(language: str, name: str) -> dict:
    """A file of a locale."""
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def slot(name: str, tooltip: str | None) -> dict:
    return {"name": name, "tooltip": tooltip} if tooltip else {"name": name}


def entry(node) -> dict:
    """A node's part of nodeDefs.json: what ComfyUI shows without any locale."""
    schema = node.define_schema()
    outputs = [slot(one.display_name or one.get_io_type(), one.tooltip) for one in schema.outputs]
    return {
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": {one.id: slot(one.display_name or one.id, one.tooltip) for one in schema.inputs},
        "outputs": {str(i): one for i, one in enumerate(outputs)},
    }


def settings_of(script: str) -> tuple[dict, dict]:
    """The settings of a script of ours and the names of their categories, as the front end looks them up."""
    (setting,) = re.findall(r'^const SETTING = "([^"]+)"', script, re.MULTILINE)
    (categories,) = re.findall(r"category: \[([^\]]+)\]", script)
    found = re.findall(r'\bname: "([^"]+)",\s+tooltip: "([^"]+)"', script)
    shown = re.findall(r'"([^"]+)"', categories)[:-1]  # the last one is no heading
    names = {setting.replace(".", "_"): {"name": name, "tooltip": tooltip} for name, tooltip in found}
    return names, {"settingsCategories": {name: name for name in shown}}


def check_english(name: str, said: dict) -> None:
    """The English file says what the source says; rewritten first where the environment asks for it."""
    if os.environ.get("UPDATE_LOCALES"):
        text = json.dumps(said, indent=2) + "\n"
        (LOCALES / "en" / f"{name}.json").write_text(text, encoding="utf-8", newline="\n")
    assert read("en", name) == said


def leaves(value: dict | str, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """All texts of a locale's file, by their keys."""
    if isinstance(value, str):
        return {path: value}
    return {key: text for name, part in value.items() for key, text in leaves(part, (*path, name)).items()}


def tables(page: Path) -> list[list[str]]:
    """First cells of every table, without its heading."""
    parts = re.findall(r"(?:^\|.*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [[line.split("|")[1].strip() for line in part.splitlines()[2:]] for part in parts]


def both_names(name: str, shown: str) -> str:
    """How a page calls an input: as in workflows, and as the node shows it in that language."""
    return name if name == shown else f"{name} {shown}"


def pictures(page: Path) -> list[str]:
    return [link for _, link in PICTURE.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.host
def test_these_are_all_nodes():
    assert list(pack()) == NODES


@pytest.mark.host
@pytest.mark.parametrize("node", NODES)
def test_a_node_says_what_it_is_and_what_every_input_means(node):
    schema = pack()[node].define_schema()
    assert schema.display_name.startswith("TCD ")
    assert schema.description.endswith(".")
    assert [one.id for one in schema.inputs if not one.tooltip] == []


@pytest.mark.host
@pytest.mark.parametrize("node", NODES)
def test_a_node_is_found_by_other_words(node, monkeypatch):
    given = {}
    file = module(pack()[node].__module__.rsplit(".", 1)[1])
    monkeypatch.setattr(file, "schema", given.update)  # as hosts without search_aliases would leave them out
    pack()[node].define_schema()
    aliases = given["search_aliases"]
    assert len(aliases) > 1
    assert all(word == word.strip().lower() for word in aliases)


@pytest.mark.host
def test_english_names_are_those_of_the_schemas():
    check_english("nodeDefs", {node: entry(found) for node, found in pack().items()})


def test_english_settings_are_those_of_the_scripts():
    (script,) = (text for file in SCRIPTS if "const SETTING" in (text := file.read_text(encoding="utf-8")))
    settings, headings = settings_of(script)
    check_english("settings", settings)
    check_english("main", headings)


def test_locales_have_the_same_files():
    english, chinese = (sorted(file.name for file in (LOCALES / language).iterdir()) for language in ("en", "zh"))
    assert english == chinese == ["main.json", "nodeDefs.json", "settings.json"]


@pytest.mark.parametrize("name", ["main", "nodeDefs", "settings"])
def test_chinese_says_all_that_english_says(name):
    english, chinese = leaves(read("en", name)), leaves(read("zh", name))
    assert list(chinese) == list(english)
    for key, text in chinese.items():
        assert text.strip() == text != ""
        assert sorted(re.findall(r"\d[\d.,]*\d|\d", text)) == sorted(re.findall(r"\d[\d.,]*\d|\d", english[key])), key
    translated = [key for key, text in chinese.items() if not text.isascii()]
    assert {key for key in chinese if key[-1] in ("display_name", "description", "tooltip")} <= set(translated)


@pytest.mark.parametrize("name", ["main", "nodeDefs", "settings"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_taken_for_syntax_of_messages(name, language):
    assert [text for text in leaves(read(language, name)).values() if set(text) & set("{}@|")] == []


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("node", NODES)
def test_a_help_page_names_every_input_and_output(node, language):
    english, shown = read("en", "nodeDefs")[node], read(language, "nodeDefs")[node]
    inputs = {name: one["name"] for name, one in shown["inputs"].items()}
    outputs = {one["name"]: shown["outputs"][i]["name"] for i, one in english["outputs"].items()}
    both = [[both_names(*names) for names in part.items()] for part in (inputs, outputs) if part]
    assert tables(PAGES[node][language])[: len(both)] == both


def test_every_page_is_a_node_s():
    assert set(DOCS.rglob("*.md")) == {page for both in PAGES.values() for page in both.values()}


@pytest.mark.parametrize("node", NODES)
def test_both_pages_of_a_node_have_the_same_title_pictures_and_headings(node):
    english, chinese = PAGES[node].values()
    assert pictures(english) == pictures(chinese) != []
    for language, page in PAGES[node].items():
        assert page.read_text(encoding="utf-8").startswith(f"# {read(language, 'nodeDefs')[node]['display_name']}\n")
    counts = [page.read_text(encoding="utf-8").count("\n## ") for page in (english, chinese)]
    assert counts[0] == counts[1] > 0


@PAGE
def test_pictures_are_ours_and_described(page):
    text = page.read_text(encoding="utf-8")
    for words, link in PICTURE.findall(text):
        assert words
        assert (DOCS / link).is_file()  # the front end puts the folder of all pages before it, not the page's own
    assert "<" not in text  # no HTML: a picture in it would be missed here


def test_every_picture_is_made_shown_and_small():
    files = sorted((DOCS / "images").iterdir())
    assert {file.stem for file in files} == {make.__name__ for make in node_pictures.PICTURES}
    linked = {DOCS / link for both in PAGES.values() for page in both.values() for link in pictures(page)}
    assert linked == set(files)
    assert sum(file.stat().st_size for file in files) < KILOBYTES * 1000


@pytest.mark.host
def test_the_server_hands_the_locales_out(server):
    with urllib.request.urlopen(f"{server}/i18n") as answer:
        found = json.load(answer)
    for language in ("en", "zh"):
        settings, nodes = read(language, "settings"), read(language, "nodeDefs")
        wanted = {**read(language, "main"), "nodeDefs": nodes, "settings": settings}
        assert {key: found[language][key] for key in wanted} == wanted


@pytest.mark.host
@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_front_end_opens_the_help_of_every_node(server, chromium, language):
    browser.post(f"{server}/settings", {"Comfy.Locale": language, "Comfy.Canvas.SelectionToolbox": True})
    try:
        with browser.front_end(server, chromium) as page:
            page.wait_for_function(STARTED)
            for node, shown in read(language, "nodeDefs").items():
                page.evaluate(SELECT, node)
                page.get_by_test_id("info-button").click()
                page.locator(".node-help-content h1", has_text=re.compile(f"^{shown['display_name']}$")).wait_for()
                page.wait_for_function(f"{LOADED}.every(Boolean)")
                assert len(page.evaluate(LOADED)) == len(pictures(PAGES[node][language]))
    finally:
        browser.post(f"{server}/settings", {"Comfy.Locale": "en"})
