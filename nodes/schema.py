"""A node's schema, on every host: what an older one does not know yet is left out."""

from typing import Any

from comfy_api.latest import io

CATEGORY = "sampling/TCD"
NEWER = ("search_aliases", "essentials_category")  # keywords that came after ComfyUI 0.3.75


def schema(**named: Any) -> io.Schema:
    """io.Schema in this pack's category, without those of NEWER that this host does not have."""
    known = io.Schema.__dataclass_fields__
    fitting = {name: value for name, value in named.items() if name in known or name not in NEWER}
    return io.Schema(category=CATEGORY, **fitting)
