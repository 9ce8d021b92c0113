"""MODELs of every kind that ComfyUI knows, without their weights: the tiny model with another network and schedule."""

from collections.abc import Callable
from typing import Any

import torch
from host_process import adapt
from torch import Tensor

# Name -> ComfyUI's two classes and their parameters.
KINDS: dict[str, tuple[str, str, dict]] = {
    "eps": ("ModelSamplingDiscrete", "EPS", {}),
    "v": ("ModelSamplingDiscrete", "V_PREDICTION", {}),
    "v_zsnr": ("ModelSamplingDiscrete", "V_PREDICTION", {"zsnr": True}),
    "x0": ("ModelSamplingDiscrete", "X0", {}),
    "lcm": ("ModelSamplingDiscreteDistilled", "LCM", {}),
    "flow": ("ModelSamplingDiscreteFlow", "CONST", {}),
    "sd3": ("ModelSamplingDiscreteFlow", "CONST", {"shift": 3.0}),
    "aura": ("ModelSamplingDiscreteFlow", "CONST", {"shift": 1.73, "multiplier": 1.0}),
    "flux": ("ModelSamplingFlux", "CONST", {"shift": 1.15}),
    "edm": ("ModelSamplingContinuousEDM", "EDM", {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5}),
    "discrete_edm": ("ModelSamplingDiscreteEDM", "EDM", {}),
    "continuous_v": (
        "ModelSamplingContinuousV",
        "V_PREDICTION",
        {"sigma_min": 0.03, "sigma_max": 500.0, "sigma_data": 1.0},
    ),
    "cascade": ("StableCascadeSampling", "EPS", {}),
    "cosmos": (
        "ModelSamplingCosmosRFlow",
        "COSMOS_RFLOW",
        {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 1.0},
    ),
}


def host_classes() -> dict[str, Any]:
    """ComfyUI's classes for the description of a model, by name."""
    adapt()
    import comfy.model_sampling
    from comfy_extras import nodes_model_advanced

    return vars(nodes_model_advanced) | vars(comfy.model_sampling)


def sampling_of(schedule: str, prediction: str, **parameters: Any) -> Any:
    """ComfyUI's model_sampling object of these two classes."""
    classes = host_classes()
    zsnr = {"zsnr": True} if parameters.pop("zsnr", False) else {}
    made = type("ModelSampling", (classes[schedule], classes[prediction]), {})(**zsnr)
    if parameters:
        made.set_parameters(**parameters)
    return made


MU, SPREAD = 0.4, 0.7  # of the data that the exact predictions are for


def levels(sampling: Any, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """alpha and sigma of states in ComfyUI's units at sigma [B], and the spread of noisy data there."""
    sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
    alpha = 1 - sigma if isinstance(sampling, host_classes()["CONST"]) else torch.ones_like(sigma)
    return alpha, sigma, (alpha**2 * SPREAD**2 + sigma**2).sqrt()


def exact_mean(sampling: Any, x: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x] for data N(MU, SPREAD^2): what a perfect teacher says."""
    alpha, _, std = levels(sampling, x, sigma)
    return MU + alpha * SPREAD**2 / std**2 * (x - alpha * MU)


def exact_end(sampling: Any, x: Tensor, sigma: Tensor) -> Tensor:
    """Where the path through x ends: what a perfect consistency model says."""
    alpha, _, std = levels(sampling, x, sigma)
    return MU + SPREAD / std * (x - alpha * MU)


def patched(model: Any, kind: str) -> Any:
    """The tiny MODEL as one of KINDS."""
    schedule, prediction, parameters = KINDS[kind]
    made = model.clone()
    made.add_object_patch("model_sampling", sampling_of(schedule, prediction, **parameters))
    return made


def exact_model(model: Any, kind: str, predict: Callable = exact_mean) -> Any:
    """The tiny MODEL as one of KINDS, with an exact prediction in place of its network."""
    made = patched(model, kind)
    sampling = made.get_model_object("model_sampling")
    made.set_model_unet_function_wrapper(lambda apply, args: predict(sampling, args["input"], args["timestep"]))
    return made


def model_of(model: Any, kind: str, net: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """The tiny MODEL as one of KINDS, with net(x, t) in place of its network; ComfyUI's units around it stay."""

    def denoised(sampling: Any, x: Tensor, sigma: Tensor) -> Tensor:
        output = net(sampling.calculate_input(sigma, x), sampling.timestep(sigma).float())
        return sampling.calculate_denoised(sigma, output, x)

    return exact_model(model, kind, denoised)
