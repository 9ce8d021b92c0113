"""TCD_RecordTrajectory and TCD_ViewTrajectory: keep what a sampler did, and show it."""

from comfy_api.latest import io

from . import recorder, view
from .schema import schema

TrajectoryType = io.Custom("TCD_TRAJECTORY")


class RecordTrajectory(io.ComfyNode):
    """Gives a model that remembers its last sampling runs."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_RecordTrajectory",
            display_name="TCD Record Trajectory",
            search_aliases=["debug sampler", "watch sampling", "steps"],
            description="Records every step of any sampler that runs on this MODEL. Show it with TCD View Trajectory.",
            inputs=[
                io.Model.Input("model", tooltip="Connect it last, right before the guider or sampler."),
                io.Boolean.Input(
                    "reference",
                    default=False,
                    tooltip="Also walks the path without noise (gamma 0) from the same start, for comparison: as many "
                    "network evaluations again.",
                ),
            ],
            outputs=[io.Model.Output(), TrajectoryType.Output(display_name="trajectory")],
            not_idempotent=True,  # or ComfyUI's cache gives two nodes with the same inputs one recorder
        )

    @classmethod
    def execute(cls, model, reference=False):
        return io.NodeOutput(*recorder.recorded(model, reference))


class ViewTrajectory(io.ComfyNode):
    """Shows a recorded trajectory, step by step."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_ViewTrajectory",
            display_name="TCD View Trajectory",
            search_aliases=["plot", "sampling steps", "denoising steps", "noise level", "scrub"],
            description="Shows what the sampler did, step by step: pictures, the way of the noise level (the paper's "
            "figure 2b), the path, and measures. Drag the slider or press the arrow keys.",
            inputs=[
                TrajectoryType.Input("trajectory", tooltip="From TCD Record Trajectory or TCD KSampler."),
                io.Latent.Input("latent", tooltip="The sampled latent: it makes this node run after the sampler."),
                io.Int.Input(
                    "item", default=0, min=0, max=4095, tooltip="Which picture of the batch the outputs are of."
                ),
                io.Boolean.Input(
                    "save",
                    default=False,
                    tooltip="Keeps the data file, the animation and the pictures in ComfyUI's output folder; else they "
                    "are temporary.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the pictures; without it they are rough previews."),
                TrajectoryType.Input(
                    "compare", optional=True, tooltip="Another trajectory, to be shown beside this one."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="plot"),
                io.Image.Output(display_name="frames", tooltip="The clean prediction of every step."),
                io.Image.Output(display_name="noisy", tooltip="The state that every step started from."),
                io.String.Output(
                    display_name="file", tooltip="Path of the data file, for tcd.Trajectory.load and tcd.plot."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, trajectory, latent, item, save, vae=None, compare=None):
        shown, outputs = view.show(trajectory, latent["samples"], item, save, vae, compare)
        return io.NodeOutput(*outputs, ui={"tcd_view": [shown]})
