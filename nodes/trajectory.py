"""TCD_RecordTrajectory and TCD_ViewTrajectory: keep what a sampler did, and show it."""

import torch
from comfy_api.latest import io, ui

from . import recorder
from .schema import schema

TrajectoryType = io.Custom("TCD_TRAJECTORY")


class RecordTrajectory(io.ComfyNode):
    """Gives a model that remembers its last sampling run."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_RecordTrajectory",
            display_name="TCD Record Trajectory",
            search_aliases=["debug sampler", "watch sampling", "steps"],
            description="Records every step of any sampler that runs on this MODEL. Show it with TCD View Trajectory.",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output(), TrajectoryType.Output(display_name="trajectory")],
        )

    @classmethod
    def execute(cls, model):
        return io.NodeOutput(*recorder.recorded(model))


class ViewTrajectory(io.ComfyNode):
    """Draws a recorded trajectory."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_ViewTrajectory",
            display_name="TCD View Trajectory",
            search_aliases=["plot", "sampling steps", "denoising steps", "noise level"],
            description="Shows how the noise level went down and up (the paper's figure 2b), and the clean prediction "
            "of every step.",
            inputs=[
                TrajectoryType.Input("trajectory", tooltip="From TCD Record Trajectory."),
                io.Latent.Input("latent", tooltip="The sampled latent: it makes this node run after the sampler."),
                io.Int.Input("item", default=0, min=0, max=4095, tooltip="Which picture of the batch."),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the frames; without it they are a rough preview."),
            ],
            outputs=[io.Image.Output(display_name="plot"), io.Image.Output(display_name="frames")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, trajectory, latent, item, vae=None):
        from ..tcd import plot

        record = trajectory.trajectory()
        if item >= record.x0.shape[1]:
            raise ValueError(f"item must be below the batch size {record.x0.shape[1]}, got {item}")
        frames = recorder.pixels(trajectory.latent_format, vae, record.x0[:, item])
        picture = torch.from_numpy(plot.to_array(plot.draw(record, frames.numpy())))[None]
        return io.NodeOutput(picture, frames, ui=ui.PreviewImage(picture, cls=cls))
