"""nodes/adapt.py with ComfyUI's own descriptions of other models: what they predict, and how their noise ends."""

from types import SimpleNamespace

import pytest
import torch
from host_process import adapt
from oracle import Gaussian

import tcd

pytestmark = pytest.mark.host


def sampling_of(schedule, prediction, *args, **named):
    """ComfyUI's model_sampling object of these two classes."""
    adapt()
    import comfy.model_sampling
    from comfy_extras import nodes_model_advanced

    classes = vars(nodes_model_advanced) | vars(comfy.model_sampling)
    return type("ModelSampling", (classes[schedule], classes[prediction]), {})(*args, **named)


class Host:
    """What ComfyUI hands to a sampler: a denoiser in its own units, around a network."""

    def __init__(self, sampling, net):
        self.sampling, self.net = sampling, net
        self.inner_model = SimpleNamespace(model_patcher=self)

    def get_model_object(self, name):
        return {"model_sampling": self.sampling}[name]

    def __call__(self, x, sigma, **extra_args):
        out = self.net(self.sampling.calculate_input(sigma, x), self.sampling.timestep(sigma).float())
        return self.sampling.calculate_denoised(sigma, out, x)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("prediction", "kind", "zsnr"),
    [("EPS", "eps", False), ("V_PREDICTION", "v", False), ("V_PREDICTION", "v", True), ("X0", "x0", True)],
)
def test_every_prediction_follows_the_path_of_the_package(prediction, kind, zsnr, gamma):
    sampling = sampling_of("ModelSamplingDiscrete", prediction, zsnr=zsnr)
    sched = tcd.DiscreteVP.from_sigmas(sampling.sigmas)
    net = Gaussian(sched).net(kind)
    host = Host(sampling, net)
    levels, times = adapt().sigmas_of(host, 4, 1.0, 20), tcd.timesteps(sched, 4)
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    noise = torch.Generator().manual_seed(5 + adapt().NOISE_SEED_OFFSET)
    path = list(tcd.sample(tcd.as_x0(net, sched, kind), sched, start, times, gamma, "1", noise))
    seen = []
    got = adapt().sample_tcd(
        host, start / sched.alpha(times[0]), levels, {"seed": 5}, seen.append, gamma=gamma, tcf="1"
    )
    for row, step in zip(seen, path, strict=True):
        torch.testing.assert_close(row["x"] * sched.alpha(step.t), step.x_t, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(row["denoised"], step.x0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got, path[-1].x_s, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "prediction"),
    [
        ("ModelSamplingDiscreteFlow", "CONST"),
        ("ModelSamplingFlux", "CONST"),
        ("ModelSamplingContinuousEDM", "EDM"),
        ("ModelSamplingDiscreteEDM", "EDM"),
        ("ModelSamplingDiscreteDistilled", "LCM"),
    ],
)
def test_a_model_without_discrete_timesteps_is_refused_by_name(schedule, prediction):
    host = Host(sampling_of(schedule, prediction), None)
    with pytest.raises(ValueError, match=rf"needs a model with discrete timesteps .* got {schedule} / {prediction}"):
        adapt().sigmas_of(host, 4, 1.0, 20)
    with pytest.raises(ValueError, match="needs a model with discrete timesteps"):
        adapt().sample_tcd(host, torch.ones(1, 4, 8, 8), torch.tensor([1.0, 0.0]), gamma=0.3, tcf="1")


def test_s_prime_is_the_floored_timestep_and_never_above_s():
    sampling = sampling_of("ModelSamplingDiscrete", "EPS")
    schedule = adapt().SigmaSchedule(sampling)
    for time, wanted in {759: 531, 499: 349, 259: 181}.items():
        assert torch.equal(schedule.s_prime(sampling.sigmas[time], 0.3), sampling.sigmas[wanted])
    between = (sampling.sigmas[0] * 0.99).clone()
    assert schedule.s_prime(between, 0.3) == between
    assert schedule.s_prime(torch.tensor(0.0), 0.3) == 0
