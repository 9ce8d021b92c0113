"""demo/workflows/builder.py and ui_format.py, on nodes made up for it."""

import pytest

from demo.workflows.builder import Graph, height_of
from demo.workflows.ui_format import document

KINDS = {
    "Load": {
        "input": {"required": {"name": [["a.safetensors"], {"image_upload": True}]}},
        "output": ["MODEL", "FLOAT"],
        "output_name": ["MODEL", "cfg"],
        "display_name": "Loader",
    },
    "Use": {
        "input": {
            "required": {
                "seed": ["INT", {"default": 3, "control_after_generate": True}],
                "model": ["MODEL"],
                "cfg": ["FLOAT", {"default": 2.0}],
                "text": ["STRING", {"multiline": True}],
            },
            "optional": {"again": ["MODEL"]},
            "hidden": {"prompt": "PROMPT"},
        },
        "output": [],
        "output_name": [],
        "display_name": None,
    },
}


def graph(**given) -> Graph:
    made = Graph(KINDS, "Title", "What it is.", tries=("more",))
    made.column("One")
    loader = made.add("Load", name="a.safetensors")
    made.column("Two")
    made.add("Use", "Mine", model=loader["MODEL"], **given)
    made.add("Use", model=loader["MODEL"], cfg=loader["cfg"])
    return made


def test_the_prompt_has_values_defaults_and_links():
    prompt = graph(text="hello").prompt()
    assert prompt["1"] == {"inputs": {"name": "a.safetensors"}, "class_type": "Load", "_meta": {"title": "Loader"}}
    assert prompt["2"]["inputs"] == {"seed": 3, "cfg": 2, "text": "hello", "model": ["1", 0]}
    assert prompt["3"]["inputs"] == {"seed": 3, "cfg": ["1", 1], "text": "", "model": ["1", 0]}
    assert [prompt[number]["_meta"]["title"] for number in "23"] == ["Mine", "Use"]


def test_the_document_has_sockets_before_widgets_and_second_widgets():
    _, loader, use, other = document(graph())["nodes"]
    assert [entry["name"] for entry in use["inputs"]] == ["model", "again", "seed", "cfg", "text"]
    assert use["widgets_values"] == [3, "fixed", 2, ""]
    assert loader["widgets_values"] == ["a.safetensors", "image"]
    assert loader["outputs"][0]["links"] == [1, 2]
    assert loader["outputs"][1]["links"] == [other["inputs"][3]["link"]] == [3]


def test_links_name_both_ends():
    assert document(graph())["links"] == [
        [1, 1, 0, 2, 0, "MODEL"],
        [2, 1, 0, 3, 0, "MODEL"],
        [3, 1, 1, 3, 3, "FLOAT"],
    ]


def test_nodes_of_a_column_stand_below_each_other_and_columns_beside():
    first, second, third = graph().nodes
    assert second.pos[0] == third.pos[0] > first.pos[0] + first.size[0]
    assert third.pos[1] > second.pos[1] + second.size[1]
    made = Graph(KINDS, "", "")
    made.column("Rows", pitch=500)
    one, two = made.add("Load", name="a"), made.add("Load", name="b")
    assert two.pos[1] - one.pos[1] == 500


def test_a_box_holds_its_nodes():
    made = graph()
    for box, column in zip(document(made)["groups"], made.columns, strict=True):
        x, y, width, height = box["bounding"]
        for node in (one for one in made.nodes if one.pos[0] == column["x"]):
            assert x < node.pos[0] < node.pos[0] + node.size[0] < x + width
            assert y < node.pos[1] < node.pos[1] + node.size[1] < y + height


def test_more_inputs_need_more_room():
    assert height_of("Use", KINDS["Use"]) > height_of("Load", KINDS["Load"])


def test_what_is_wrong_is_named():
    made = graph()
    with pytest.raises(ValueError, match="the server has no node Lod"):
        made.add("Lod")
    with pytest.raises(ValueError, match="Load has no input nam"):
        made.add("Load", nam="a")
    with pytest.raises(KeyError, match=r"Load has no output LATENT: choose from MODEL, cfg"):
        made.nodes[0]["LATENT"]
    with pytest.raises(ValueError, match=r"Use: model must be an output of another node, got 'x'"):
        made.add("Use", model="x")
    with pytest.raises(ValueError, match=r"Use: model must be an output of another node, got None"):
        made.add("Use")
    made.add("Load")
    with pytest.raises(ValueError, match="Load: name is not given and has no default"):
        made.prompt()
