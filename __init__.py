"""ComfyUI entry point of Trajectory Consistency Distillation. Nothing is imported until ComfyUI asks for the nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """The V3 extension with all nodes."""
    from .nodes import Extension

    return Extension()
