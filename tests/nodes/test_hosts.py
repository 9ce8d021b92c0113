"""Hosts that lack what later ones have, faked: features are looked for on the host, its version is never asked."""

import asyncio
import sys
from dataclasses import dataclass, field

import pytest
from host_process import module, pack

pytestmark = pytest.mark.host


@dataclass
class OlderSchema:
    """As io.Schema before it knew aliases."""

    node_id: str
    category: str
    inputs: list = field(default_factory=list)


def test_a_schema_leaves_out_what_an_older_host_does_not_know(monkeypatch):
    schema = module("schema")
    monkeypatch.setattr(schema, "io", type("io", (), {"Schema": OlderSchema}))
    made = schema.schema(node_id="TCD_Sampler", search_aliases=["lcm"], essentials_category="Sampling")
    assert made == OlderSchema("TCD_Sampler", schema.CATEGORY)


def test_a_keyword_that_no_host_knows_is_not_left_out(monkeypatch):
    schema = module("schema")
    monkeypatch.setattr(schema, "io", type("io", (), {"Schema": OlderSchema}))
    with pytest.raises(TypeError, match="search_alias"):
        schema.schema(node_id="TCD_Sampler", search_alias=["lcm"])


def test_a_host_that_is_too_old_is_told_so_as_it_starts(monkeypatch):
    ours = sys.modules[pack()["TCD_Sampler"].__module__.rsplit(".", 1)[0]]
    monkeypatch.setattr(ours, "SamplerCustom", type("SamplerCustom", (), {}))
    with pytest.raises(RuntimeError, match=r"the TCD nodes need ComfyUI 0\.3\.75 or later"):
        asyncio.run(ours.Extension().get_node_list())
