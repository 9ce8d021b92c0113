"""TCD_Sampler and TCD_Scheduler: what goes into SamplerCustom and SamplerCustomAdvanced."""

from comfy.samplers import KSAMPLER
from comfy_api.latest import io

from .. import tcd
from . import adapt

ORDERS = {name: tcd.TCF[name] for name in ("1", "2")}  # TCF(S+) needs a network that is told where it goes
GRIDS = {"distillation": 20, "dense": 1}  # name -> k, the spacing of the times that steps are chosen from


class Sampler(io.ComfyNode):
    """Strategic stochastic sampling (Algorithm 4) with the chosen trajectory consistency function."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TCD_Sampler",
            display_name="TCD Sampler",
            category=adapt.CATEGORY,
            description="Samples a TCD-distilled model in 2-8 steps. Goes into SamplerCustom or SamplerCustomAdvanced.",
            inputs=[
                io.Float.Input(
                    "gamma",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much noise is put back at each step (diffusers and Hyper-SD call it eta). "
                    "0 = deterministic, smoother; 0.2-0.5 = more detail; 1 = like LCM.",
                ),
                io.Combo.Input(
                    "order",
                    options=list(ORDERS),
                    default="1",
                    tooltip="Order of the trajectory consistency function. 2 costs twice the evaluations and scored "
                    "slightly worse in the paper (4 steps: FID 13.35 against 12.68).",
                ),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, gamma, order):
        tcd.check_gamma(gamma, 1)
        tcd.choose(ORDERS, "order", order)  # ComfyUI 0.3.75 does not check the lists of V3 nodes
        return io.NodeOutput(KSAMPLER(adapt.sample_tcd, {"gamma": gamma, "tcf": order}))


class Scheduler(io.ComfyNode):
    """The noise levels that the reference implementation uses."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TCD_Scheduler",
            display_name="TCD Scheduler",
            category=adapt.CATEGORY,
            description="The noise levels a TCD model was distilled on, equal to diffusers' TCDScheduler.",
            inputs=[
                io.Model.Input("model"),
                io.Int.Input("steps", default=4, min=1, max=1000, tooltip="Network evaluations at order 1: 2-8."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1, keeps that part of the input latent (image to image).",
                ),
                io.Combo.Input(
                    "grid",
                    options=list(GRIDS),
                    default="distillation",
                    tooltip="distillation: the 50 times of TCD and LCM LoRAs, up to 50 steps. dense: all 1,000.",
                ),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model, steps, denoise, grid):
        return io.NodeOutput(adapt.sigmas_of(model, steps, denoise, tcd.choose(GRIDS, "grid", grid)))
