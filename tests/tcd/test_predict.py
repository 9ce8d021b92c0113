"""From every kind of network output to the clean prediction."""

import pytest
import torch
from oracle import OUTPUT, SCHEDULES, Gaussian
from torch import nn

import tcd
from tcd.predict import TO_X0

F64 = torch.float64


@pytest.mark.parametrize("kind", TO_X0)
@pytest.mark.parametrize("sched", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_every_kind_gives_the_clean_data_back(kind, sched, part):
    t = torch.tensor(part * sched.last, dtype=F64)
    alpha, sigma = sched.alpha(t), sched.sigma(t)
    x0, eps = torch.randn(2, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    x = alpha * x0 + sigma * eps
    predict = tcd.as_x0(lambda x, t: OUTPUT[kind](alpha, sigma, x0, eps), sched, kind)
    # sigma / alpha reaches 14 here, and 1e-15 of rounding is as much larger where eps is divided by alpha
    torch.testing.assert_close(predict(x, t), x0, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", TO_X0)
def test_the_same_student_in_every_kind_gives_the_same_samples(kind):
    sched = tcd.RectifiedFlow()
    data = Gaussian(sched)
    times = torch.tensor([0.9, 0.5, 0.2], dtype=F64)
    x = data.draw(times[0], (4, 2))
    *_, by_kind = tcd.sample(tcd.as_x0(data.net(kind), sched, kind), sched, x, times, gamma=0)
    *_, by_x0 = tcd.sample(data.x0, sched, x, times, gamma=0)
    torch.testing.assert_close(by_kind.x_s, by_x0.x_s, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["v", "x0"])
def test_v_and_x0_are_finite_where_the_signal_is_zero(kind):
    sched = SCHEDULES["zero_snr"]
    x = torch.randn(2, 3)
    assert torch.equal(tcd.as_x0(lambda x, t: -torch.ones_like(x), sched, kind)(x, 999.0).abs(), torch.ones(2, 3))


@pytest.mark.parametrize("sched", [SCHEDULES["zero_snr"], SCHEDULES["flow"]], ids=["zero_snr", "flow"])
def test_eps_is_refused_where_the_signal_is_zero(sched):
    with pytest.raises(ValueError, match=r"says nothing about x0 where alpha is 0.*kind='v'"):
        tcd.as_x0(lambda x, t: x, sched, "eps")(torch.randn(2, 3), sched.last)


def test_an_unknown_kind_is_named_before_any_call():
    with pytest.raises(ValueError, match="kind must be one of eps, v, x0, flow; got 'epsilon'"):
        tcd.as_x0(lambda x, t: x, tcd.RectifiedFlow(), "epsilon")


class Two(nn.Module):
    def forward(self, x, t):
        return x * t[:, None]


class Three(nn.Module):
    def forward(self, x, t, s):
        return x * (t - s)[:, None]


class Optional(nn.Module):
    """As ComfyUI's UNets: whatever follows the time is not asked of us."""

    def forward(self, x, timesteps, context=None, y=None):
        assert context is None
        return x * timesteps[:, None]


@pytest.mark.parametrize(
    ("net", "factor"),
    [
        (lambda x, t: x * t[:, None], 7.0),
        (lambda x, t, s: x * (t - s)[:, None], 4.0),
        (lambda x, t, s=None: x * t[:, None], 7.0),
        (lambda *args: args[0] * args[1][:, None], 7.0),
        (Two(), 7.0),
        (Three(), 4.0),
        (Optional(), 7.0),
    ],
    ids=["x t", "x t s", "x t s=None", "*args", "module x t", "module x t s", "module x t context=None"],
)
def test_the_target_time_goes_to_networks_that_ask_for_it(net, factor):
    x = torch.randn(2, 3)
    predict = tcd.as_x0(net, tcd.DiscreteVP.scaled_linear(), "x0")
    assert torch.equal(predict(x, 7.0, 3.0), factor * x)


def test_without_a_target_time_the_source_stands_in():
    predict = tcd.as_x0(Three(), tcd.DiscreteVP.scaled_linear(), "x0")
    assert torch.equal(predict(torch.ones(2, 3), 7.0), torch.zeros(2, 3))


@pytest.mark.parametrize("t", [7, 7.0, torch.tensor(7), torch.tensor([7.0, 7.0], dtype=torch.float16)], ids=repr)
def test_the_network_sees_one_float32_time_per_sample(t):
    seen = []
    tcd.as_x0(lambda x, t: seen.append(t) or x, tcd.DiscreteVP.scaled_linear(), "x0")(torch.randn(2, 3), t)
    assert (seen[0].tolist(), seen[0].dtype) == ([7.0, 7.0], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64], ids=str)
@pytest.mark.parametrize("kind", TO_X0)
def test_the_prediction_keeps_shape_and_dtype_of_x(kind, dtype):
    x = torch.randn(2, 3, 4, 4).to(dtype)
    out = tcd.as_x0(lambda x, t: 0.5 * x, tcd.DiscreteVP.scaled_linear(), kind)(x, torch.tensor([3.0, 700.0]))
    assert (out.shape, out.dtype) == (x.shape, dtype)


def test_guidance_is_one_plus_w_times_cond_minus_w_times_uncond():
    cond, uncond = torch.randn(2, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    for w in (7.0, torch.tensor(7.3, dtype=F64)):
        out = tcd.guided(lambda *_: cond, lambda *_: uncond, w)(cond, 5.0)
        torch.testing.assert_close(out, (1 + w) * cond - w * uncond, rtol=0, atol=1e-13)


def test_guidance_of_each_sample_is_its_own():
    cond, uncond, w = torch.ones(3, 2, 2), torch.zeros(3, 2, 2), torch.tensor([0.0, 2.0, 14.0])
    assert torch.equal(tcd.guided(lambda *_: cond, lambda *_: uncond, w)(cond, 5.0)[:, 0, 0], 1 + w)


def test_guidance_of_zero_is_the_conditional_prediction():
    cond, uncond = torch.randn(2, 3, 4)
    assert torch.equal(tcd.guided(lambda *_: cond, lambda *_: uncond, w=0.0)(cond, 5.0), cond)


def test_guidance_hands_both_times_on():
    seen = []
    tcd.guided(*[lambda x, t, s: seen.append((t, s)) or x] * 2, w=1.0)(torch.randn(2, 3), 7.0, 3.0)
    assert seen == [(7.0, 3.0)] * 2


@pytest.mark.parametrize("kind", TO_X0)
@pytest.mark.parametrize("sched", SCHEDULES.values(), ids=SCHEDULES)
def test_the_output_that_gives_a_prediction_gives_it(kind, sched):
    t = torch.tensor([0.1, 0.5, 0.9], dtype=F64) * sched.last
    x, x0 = torch.randn(2, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    output = tcd.output_from(x0, kind, sched, x, t)
    # sigma / alpha reaches 14 at the end, as above
    torch.testing.assert_close(tcd.as_x0(lambda x, t: output, sched, kind)(x, t), x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", OUTPUT)
def test_the_output_is_that_of_its_definition(kind):
    sched = SCHEDULES["flow"]
    data, t = Gaussian(sched), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    x = data.draw(0.5, (3, 4))
    torch.testing.assert_close(
        tcd.output_from(data.x0(x, t), kind, sched, x, t), data.net(kind)(x, t), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("kind", OUTPUT)
def test_pure_noise_has_an_output_too(kind):
    """Where alpha is 0, x is the noise alone; only the way back from it is closed to eps."""
    sched, (x, x0) = SCHEDULES["zero_snr"], torch.randn(2, 3, 4, dtype=F64)
    zero, one = torch.zeros((), dtype=F64), torch.ones((), dtype=F64)
    found = tcd.output_from(x0, kind, sched, x, torch.tensor(999.0, dtype=F64))
    torch.testing.assert_close(found, OUTPUT[kind](zero, one, x0, x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
def test_clean_data_has_no_output_to_give(kind):
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match=f"clean data does not tell the {kind} of its noise"):
        tcd.output_from(x, kind, tcd.RectifiedFlow(), x, 0.0)


class Conditioned(nn.Module):
    """Counts its calls, and says what its conditions are."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x, t, context, y=None):
        self.calls += 1
        return x * t[:, None] + context.mean(1)[:, None] + (0 if y is None else y)


def test_one_batched_call_guides_as_two_do():
    net, sched = Conditioned(), tcd.DiscreteVP.scaled_linear()
    x, t, w = torch.randn(3, 4, dtype=F64), torch.tensor([999.0, 500.0, 7.0]), torch.tensor([0.0, 2.0, 14.0])
    cond, uncond = {"context": torch.randn(3, 5, dtype=F64)}, {"context": torch.randn(1, 5, dtype=F64)}
    one, two = (tcd.as_x0(lambda x, t, c=c: net(x, t, c["context"].expand(3, -1)), sched) for c in (cond, uncond))
    wanted = tcd.guided(one, two, w)(x, t)
    assert net.calls == 2
    found = tcd.as_x0(tcd.guided_net(net, cond, uncond, w), sched)(x, t)
    assert net.calls == 3
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)  # eps is divided by alpha, up to 15, times w


def test_batched_guidance_hands_the_target_time_on():
    seen = []

    def net(x, t, s, context):
        seen.append((t.tolist(), s.tolist()))
        return x

    condition = {"context": torch.ones(1, 1)}
    predict = tcd.as_x0(tcd.guided_net(net, condition, condition, 2.0), tcd.DiscreteVP.scaled_linear(), "x0")
    predict(torch.ones(1, 2), 7.0, 3.0)
    assert seen == [([7.0, 7.0], [3.0, 3.0])]


def test_conditions_of_other_names_are_refused():
    with pytest.raises(ValueError, match=r"same names, got \['context', 'y'\] and \['context'\]"):
        tcd.guided_net(Conditioned(), {"context": torch.ones(1), "y": torch.ones(1)}, {"context": torch.ones(1)}, 2.0)


def test_conditions_may_be_lists_of_anything_for_each_sample():
    def net(x, t, texts):
        return x * torch.tensor([float(len(text)) for text in texts])[:, None]

    x, t = torch.ones(2, 1), torch.zeros(2)
    found = tcd.guided_net(net, {"texts": ["abc", "abcd"]}, {"texts": ["", "a"]}, 2.0)(x, t)
    assert found.flatten().tolist() == [9.0, 10.0]
