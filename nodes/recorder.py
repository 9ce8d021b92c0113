"""What a recording MODEL remembers of its last sampling run, and its states as pictures."""

from dataclasses import replace

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from .. import tcd

RECORDER = "tcd_recorder"  # key in transformer_options


class Recorder:
    """Collects the last sampling run of a model: exactly from our sampler, from the callbacks of any other."""

    def __init__(self) -> None:
        self.rows: dict[int, tcd.Step] = {}
        self.observed: set[int] = set()  # steps of which only the callback is known
        self.latent_format = None

    def __deepcopy__(self, memo: dict) -> "Recorder":
        """Itself: ComfyUI before 0.14 copies a model's options deeply, also what is in them."""
        return self

    def exact(self, step: tcd.Step) -> None:
        self.rows[step.i] = step

    def observe(self, i: int, x: Tensor, x0: Tensor, sigmas: Tensor) -> None:
        """A step of any sampler, copied, as some change x in place later. The next step tells where it landed."""
        if i in self.rows or i + 1 >= len(sigmas):
            return
        x, x0 = (
            state.unbind()[0] if state.is_nested else state for state in (x, x0)
        )  # of picture and sound, the first
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
