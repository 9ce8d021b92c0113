"""A node for ComfyUI that tests put into a graph: it logs the evaluations of a MODEL's network, and lets one fail."""

from pathlib import Path
from typing import Any

import comfy.model_management as management
import torch
from comfy.patcher_extension import WrappersMP


class Probe:
    """Writes a letter to the file `log` for each evaluation that begins: c if Cancel was pressed before it, else a dot.

    Evaluation number `fails_at`, counted from 1, runs out of memory.
    """

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "probe", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "log": ("STRING", {}), "fails_at": ("INT", {"default": 0})}}

    def probe(self, model: Any, log: str, fails_at: int) -> tuple[Any]:
        path, model = Path(log), model.clone()

        def count(executor: Any, *args: Any, **named: Any) -> Any:
            with path.open("a") as file:
                file.write("c" if management.processing_interrupted() else ".")
            if path.stat().st_size == fails_at:
                raise torch.OutOfMemoryError("the test's memory is full")
            return executor(*args, **named)

        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "probe", count)
        return (model,)


NODE_CLASS_MAPPINGS = {"TEST_Probe": Probe}
