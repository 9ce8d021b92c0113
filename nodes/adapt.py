"""Between ComfyUI's units and tcd's: the only file that knows what a sigma, a model_sampling or a callback is.

ComfyUI's eps, v and x0 models live in variance-exploding units, x = x0 + sigma noise. So the schedule here has
alpha = 1 and takes sigma itself for the time: ComfyUI's tensors go to `tcd` and back without any conversion.
"""

from dataclasses import replace

import comfy.model_sampling
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .. import tcd

CATEGORY = "sampling/TCD"
NOISE_SEED_OFFSET = 0x7CD  # ComfyUI draws the initial noise from the same seed: ours must be another stream
RECORDER = "tcd_recorder"  # key in transformer_options


def model_sampling_of(model):
    """The model's sampling description, with every patch on it. Raises ValueError for a kind that TCD cannot serve."""
    sampling = model.get_model_object("model_sampling")
    # Subclasses that count time otherwise (EDM, the distilled one of 50 steps) redefine `timestep`.
    if getattr(type(sampling), "timestep", None) is not comfy.model_sampling.ModelSamplingDiscrete.timestep:
        kind = " / ".join(base.__name__ for base in type(sampling).__bases__)
        raise ValueError(f"TCD sampling needs a model with discrete timesteps (SD 1.x, 2.x, SDXL), got {kind}")
    return sampling


class SigmaSchedule(tcd.VarianceExploding):
    """ComfyUI's variance-exploding units: alpha = 1, and the time is sigma."""

    def __init__(self, sampling):
        super().__init__(float(sampling.sigma_min), float(sampling.sigma_max))
        self.sampling = sampling

    def s_prime(self, s: Tensor, gamma: float) -> Tensor:
        """(1 - gamma) of the model's timestep, floored as the reference does, back as a sigma; never above s."""
        if gamma == 0 or float(s) == 0:
            return s
        timestep = self.sampling.timestep(s).float()
        return torch.minimum(s, self.sampling.sigma(torch.floor((1 - gamma) * timestep)).to(s))


def sigmas_of(model, steps: int, denoise: float, k: int) -> Tensor:
    """TCD's noise levels [steps + 1], from the distillation grid (k = 20) or the dense one (k = 1), down to 0.

    denoise < 1 takes the last `steps` of int(steps / denoise), as ComfyUI's own schedulers do.
    """
    if denoise <= 0:
        return torch.zeros(0)
    sampling = model_sampling_of(model)
    try:
        times = tcd.timesteps(tcd.DiscreteVP.from_sigmas(sampling.sigmas), max(steps, int(steps / denoise)), k)
    except ValueError as error:
        raise ValueError(f"{steps} steps at denoise {denoise:g}: {error}; take fewer, or the dense grid") from None
    return torch.cat([sampling.sigma(times[-steps:]), torch.zeros(1)])


def sample_tcd(model, x: Tensor, sigmas: Tensor, extra_args=None, callback=None, disable=None, *, gamma, tcf) -> Tensor:
    """ComfyUI's sampler function: strategic stochastic sampling over any sigmas, split or whole. Keeps no state."""
    extra_args = extra_args or {}
    if len(sigmas) < 2:
        return x
    patcher = model.inner_model.model_patcher
    generator = torch.Generator("cpu").manual_seed(((extra_args.get("seed") or 0) + NOISE_SEED_OFFSET) % 2**63)
    record = extra_args.get("model_options", {}).get("transformer_options", {}).get(RECORDER)

    def predict(x: Tensor, sigma: Tensor, target: Tensor | None = None) -> Tensor:
        return model(x, sigma * x.new_ones(x.shape[0]), **extra_args)

    schedule = SigmaSchedule(model_sampling_of(patcher))
    for step in tcd.sample(predict, schedule, x, sigmas[:-1], gamma, tcf, generator, end=sigmas[-1]):
        if record is not None:
            record.exact(step)
        if callback is not None:
            callback({"x": step.x_t, "i": step.i, "sigma": step.t, "sigma_hat": step.t, "denoised": step.x0})
        x = step.x_s
    return x


class Recorder:
    """Collects the last sampling run of a model: exactly from our sampler, from the callbacks of any other."""

    def __init__(self) -> None:
        self.rows: dict[int, tcd.Step] = {}
        self.observed: set[int] = set()  # steps of which only the callback is known
        self.latent_format = None

    def exact(self, step: tcd.Step) -> None:
        self.rows[step.i] = step

    def observe(self, i: int, x: Tensor, x0: Tensor, sigmas: Tensor) -> None:
        """A step of any sampler, copied, as some change x in place later. The next step tells where it landed."""
        if i in self.rows or i + 1 >= len(sigmas):
            return
        x, x0 = x.detach().cpu().clone(), x0.detach().cpu().clone()
        self.rows[i] = tcd.Step(i, sigmas[i], sigmas[i + 1], sigmas[i + 1], x, x0, x0, x0)
        self.observed.add(i)

    def landed(self, i: int) -> tcd.Step:
        """Step i, with the next step's start as the landing of a step that was only observed."""
        step, after = self.rows[i], self.rows.get(i + 1)
        if i not in self.observed or after is None:
            return step
        return replace(step, x_s_prime=after.x_t, x_s=after.x_t)

    def trajectory(self) -> tcd.Trajectory:
        """What was recorded. Raises ValueError before anything was sampled."""
        if not self.rows:
            raise ValueError("the trajectory is empty: sample with the MODEL that TCD_RecordTrajectory gives")
        return tcd.Trajectory.record((self.landed(i) for i in sorted(self.rows)), unit="sigma")

    def __call__(self, executor, noise, latent_image, sampler, sigmas, denoise_mask, callback, *rest, **named):
        """ComfyUI's OUTER_SAMPLE wrapper: forget the run before, watch this one."""
        self.rows.clear()
        self.observed.clear()

        def watch(i: int, x0: Tensor, x: Tensor, total: int) -> None:
            self.observe(i, x, x0, sigmas)
            if callback is not None:
                callback(i, x0, x, total)

        return executor(noise, latent_image, sampler, sigmas, denoise_mask, watch, *rest, **named)


def recorded(model) -> tuple[object, Recorder]:
    """(a clone of the model that records its sampling, the recorder)."""
    model, recorder = model.clone(), Recorder()
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, RECORDER, recorder)
    model.model_options["transformer_options"][RECORDER] = recorder
    recorder.latent_format = model.get_model_object("latent_format")
    return model, recorder


def preview_pixels(latent_format, x: Tensor) -> Tensor:
    """Fast RGB preview [B, H, W, 3] in [0, 1] of a model-space state, by the format's own linear colours."""
    factors = latent_format.latent_rgb_factors
    if factors is None:
        raise ValueError("this model has no latent preview colours: connect its VAE to see the frames")
    bias = latent_format.latent_rgb_factors_bias or [0.0, 0.0, 0.0]
    rgb = x.float().movedim(1, -1) @ torch.tensor(factors) + torch.tensor(bias)
    return (rgb / 2 + 0.5).clamp(0, 1)


def pixels(latent_format, vae, x: Tensor) -> Tensor:
    """Model-space states [B, C, ...] as pictures [B, H, W, 3]: by the VAE, or the fast preview without one."""
    if vae is None:
        return preview_pixels(latent_format, x)
    return vae.decode(latent_format.process_out(x)).flatten(0, -4).cpu().float()
