"""TCD_Sampler, TCD_Scheduler, TCD_GammaSchedule, and TCD_KSampler, which is all of them in one."""

from comfy.samplers import KSAMPLER
from comfy_api.latest import io
from comfy_extras.nodes_custom_sampler import SamplerCustom

from .. import tcd
from . import adapt, inputs
from .gammas import CURVES, Gammas, GammasType, values_of
from .recorder import recorded
from .sampler import ENDS, sample_tcd
from .schema import schema
from .trajectory import TrajectoryType


def sampler_of(gamma, order, last_step, noise_offset=0, gammas=None, settings=None) -> KSAMPLER:
    """The SAMPLER. ComfyUI 0.3.75 does not check the lists of V3 nodes, so it is done here. Raises ValueError."""
    if settings is not None:
        gamma, order = settings.gamma, settings.order
    tcd.check_gamma(gamma, 1)
    tcd.choose(tcd.TCF, "order", order)
    tcd.choose(dict.fromkeys(ENDS), "last_step", last_step)
    options = {"gamma": gammas or gamma, "tcf": order, "last_step": last_step, "noise_offset": noise_offset}
    return KSAMPLER(sample_tcd, options)


def sigmas_for(model, steps, denoise, grid):
    """The SIGMAS of a grid. Raises ValueError for an unknown one, and for a denoise that is no part."""
    inputs.check_number("denoise", denoise, 0, 1)
    return adapt.sigmas_of(adapt.schedule_of_model(model), steps, denoise, tcd.choose(inputs.GRIDS, "grid", grid))


class Sampler(io.ComfyNode):
    """Strategic stochastic sampling (Algorithm 4) with the chosen trajectory consistency function."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_Sampler",
            display_name="TCD Sampler",
            search_aliases=["trajectory consistency", "gamma", "eta", "few steps", "hyper-sd", "pcm", "lcm"],
            description="Samples a TCD-distilled model in 2-8 steps. Goes into SamplerCustom or SamplerCustomAdvanced.",
            inputs=[
                inputs.gamma(),
                inputs.order(),
                inputs.last_step(),
                io.Int.Input(
                    "noise_offset",
                    default=0,
                    min=0,
                    max=2**32 - 1,
                    tooltip="Another number puts other noise back for the same seed: variations of one picture.",
                ),
                inputs.gammas(),
                inputs.settings("gamma and order"),
            ],
            outputs=[io.Sampler.Output()],
        )

    @classmethod
    def execute(cls, gamma, order, last_step, noise_offset, gammas=None, settings=None):
        return io.NodeOutput(sampler_of(gamma, order, last_step, noise_offset, gammas, settings))


class Scheduler(io.ComfyNode):
    """The noise levels that the reference implementation uses."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_Scheduler",
            display_name="TCD Scheduler",
            search_aliases=["sigmas", "timesteps", "trajectory consistency", "few steps"],
            description="The noise levels a TCD model was distilled on, equal to diffusers' TCDScheduler.",
            inputs=[
                io.Model.Input("model", tooltip="The model to sample: its noise levels are used."),
                inputs.steps(),
                inputs.denoise(),
                inputs.grid(),
                io.String.Input(
                    "times",
                    default="",
                    tooltip="Your own timesteps, such as 999, 759, 499, 259: from 999 (pure noise) down. They replace "
                    "steps and grid; the first one says how much of the input latent is kept.",
                ),
                inputs.settings("steps"),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model, steps, denoise, grid, times, settings=None):
        if not times.strip():
            return io.NodeOutput(sigmas_for(model, settings.steps if settings else steps, denoise, grid))
        if denoise != 1:
            raise ValueError(f"denoise must be 1 with times of your own, got {denoise:g}: start them lower instead")
        return io.NodeOutput(adapt.sigmas_at(adapt.schedule_of_model(model), times))


class GammaSchedule(io.ComfyNode):
    """A gamma that changes along the trajectory."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_GammaSchedule",
            display_name="TCD Gamma Schedule",
            search_aliases=["eta", "gamma curve", "stochasticity"],
            description="Gamma that changes from noise to picture. Goes into TCD Sampler or TCD KSampler.",
            inputs=[
                io.Float.Input(
                    "start",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Gamma where there is nothing but noise yet.",
                ),
                io.Float.Input(
                    "end",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Gamma where the picture is nearly done.",
                ),
                io.Combo.Input(
                    "curve",
                    options=list(CURVES),
                    default="linear",
                    tooltip="How gamma goes from start to end: evenly, softly at both ends, mostly early or late.",
                ),
                io.String.Input(
                    "values",
                    default="",
                    tooltip="Gamma of every step, such as 0.5, 0.3, 0.2: replaces the curve. The last step puts no "
                    "noise back, so its value may be left out.",
                ),
            ],
            outputs=[GammasType.Output(display_name="gammas")],
        )

    @classmethod
    def execute(cls, start, end, curve, values):
        inputs.check_number("start", start, 0, 1)
        inputs.check_number("end", end, 0, 1)
        tcd.choose(CURVES, "curve", curve)
        return io.NodeOutput(Gammas(start, end, curve, values_of(values)))


class KSampler(io.ComfyNode):
    """TCD Sampler, TCD Scheduler, guidance and recording in one node, sampled by ComfyUI's own SamplerCustom."""

    @classmethod
    def define_schema(cls):
        return schema(
            node_id="TCD_KSampler",
            display_name="TCD KSampler",
            search_aliases=["ksampler", "trajectory consistency", "few steps", "hyper-sd", "pcm"],
            description="Samples a TCD-distilled model: the stock KSampler with gamma and order, and the trajectory.",
            inputs=[
                io.Model.Input("model", tooltip="The model to sample, with a TCD LoRA in it."),
                inputs.seed("Of all noise, at the start and on the way."),
                inputs.steps(),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="1 for TCD LoRAs: guidance is distilled into them, and the negative prompt does nothing "
                    "(diffusers' guidance_scale 0). Above 1 each step costs two evaluations.",
                ),
                inputs.gamma(),
                inputs.order(),
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show; without effect at cfg 1."),
                io.Latent.Input("latent", tooltip="An empty latent, or a picture's for image to image and inpainting."),
                inputs.denoise(),
                inputs.grid(),
                inputs.last_step(),
                inputs.gammas(),
                inputs.settings("steps, cfg, gamma and order"),
            ],
            outputs=[
                io.Latent.Output(display_name="latent"),
                io.Latent.Output(display_name="denoised"),
                TrajectoryType.Output(display_name="trajectory"),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        seed,
        steps,
        cfg,
        gamma,
        order,
        positive,
        negative,
        latent,
        denoise,
        grid,
        last_step,
        gammas=None,
        settings=None,
    ):
        if settings is not None:
            steps, cfg = settings.steps, settings.cfg
        inputs.check_number("cfg", cfg, 0, 100)
        sampler = sampler_of(gamma, order, last_step, gammas=gammas, settings=settings)
        sigmas = sigmas_for(model, steps, denoise, grid)
        model, recorder = recorded(model)
        sampled = SamplerCustom.execute(model, True, seed, cfg, positive, negative, sampler, sigmas, latent)
        return io.NodeOutput(*(sampled.result or ()), recorder)
