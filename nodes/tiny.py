"""TCD_TinyLoader: the embedded tiny text-to-image model."""

from comfy_api.latest import io

from .schema import schema


class TinyLoader(io.ComfyNode):
    """MODEL, CLIP and VAE of the emoji model that ships with the pack."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_TinyLoader",
            display_name="TCD Tiny Model Loader",
            search_aliases=["emoji", "demo model", "test model", "checkpoint"],
            description="A miniature of Stable Diffusion that draws 128x128 emoji on any computer. No download.",
            inputs=[],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls):
        from ..demo import tiny

        return io.NodeOutput(*tiny.load())
