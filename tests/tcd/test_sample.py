"""Strategic stochastic sampling: the marginals it keeps, the algorithms it contains, and parity with the reference."""

import math
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import SCHEDULES, Gaussian

import tcd
from tcd.sample import Gamma, diffuse

F64 = torch.float64
SD = tcd.DiscreteVP.scaled_linear()
FLOAT = [torch.float16, torch.bfloat16, torch.float32, F64]
TIMES = [0.95, 0.7, 0.4, 0.15]  # parts of the schedule

every_schedule = pytest.mark.parametrize("sched", SCHEDULES.values(), ids=SCHEDULES)
every_tcf = pytest.mark.parametrize("tcf", tcd.TCF)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def times_of(sched: tcd.Schedule) -> torch.Tensor:
    """Four times of the schedule, in float64; whole steps of a discrete one."""
    times = torch.tensor(TIMES, dtype=F64) * sched.last
    return times.round() if isinstance(sched, tcd.DiscreteVP) else times


def never(*_) -> torch.Tensor:
    raise AssertionError("the prediction was evaluated")


# --- what is kept -----------------------------------------------------------------------------------------------------


@every_schedule
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_with_the_exact_student_a_step_keeps_the_marginal(sched, gamma):
    """Whatever gamma: the samples at s have the mean and standard deviation of noised data."""
    data, (t, s) = Gaussian(sched, 0.4, 0.7), times_of(sched)[1:3]
    x = data.draw(t, (200_000, 1))
    noise = torch.randn(x.shape, dtype=F64, generator=seeded(1))
    landed = tcd.sss_step(data.student, sched, x, t, s, gamma, noise)
    alpha, _, std = data.at(s, x)
    # The standard errors of 200,000 samples are .16% and .22% of the standard deviation: thrice and four times those
    assert landed.std().item() == pytest.approx(std.item(), rel=5e-3)
    assert abs(landed.mean() - alpha * 0.4).item() < 9e-3 * std.item()


@every_schedule
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.3, 0.7, 1.0])
def test_the_variance_after_denoising_and_diffusing_is_the_marginal_s(sched, gamma):
    """The same without chance: (alpha_s / alpha_s')^2 std_s'^2 + noise^2 = std_s^2."""
    data, s = Gaussian(sched), times_of(sched)[1]
    s_prime = sched.s_prime(s, gamma)
    one = torch.ones(1, 1, dtype=F64)
    (_, _, std_s), (_, _, std_s_prime) = data.at(s, one), data.at(s_prime, one)
    ratio, noise = diffuse(sched, one, s_prime, s, 0 * one), diffuse(sched, 0 * one, s_prime, s, one)
    torch.testing.assert_close(ratio**2 * std_s_prime**2 + noise**2, std_s**2, rtol=1e-13, atol=0)


@pytest.mark.parametrize("sched", [s for s in SCHEDULES.values() if isinstance(s, tcd.DiscreteVP)])
@pytest.mark.parametrize("gamma", [0.1, 0.3, 1.0])
def test_for_a_variance_preserving_schedule_the_noise_is_the_paper_s(sched, gamma):
    """Eq. 35: sqrt(1 - alpha_s^2 / alpha_s'^2)."""
    t, s = times_of(sched)[:2]
    x, z = torch.randn(2, 1, 3, dtype=F64, generator=seeded())
    with_noise, without = (tcd.sss_step(lambda x, *_: 0 * x, sched, x, t, s, gamma, noise) for noise in (z, 0 * z))
    std = (1 - sched.alpha(s) ** 2 / sched.alpha(sched.s_prime(s, gamma)) ** 2).sqrt()
    torch.testing.assert_close(with_noise - without, std * z, rtol=0, atol=1e-14)


# --- what is contained ------------------------------------------------------------------------------------------------


@every_tcf
@every_schedule
def test_gamma_0_is_the_trajectory_function_alone(sched, tcf):
    data = Gaussian(sched)
    t, s = times_of(sched)[:2]
    x = data.draw(t, (4, 2))
    assert torch.equal(tcd.sss_step(data.x0, sched, x, t, s, 0.0, tcf=tcf), tcd.TCF[tcf](data.x0, sched, x, t, s))


@every_tcf
@every_schedule
def test_gamma_0_leaves_the_generator_alone(sched, tcf):
    data, generator = Gaussian(sched), seeded()
    before = generator.get_state()
    times = times_of(sched)
    list(tcd.sample(data.x0, sched, data.draw(times[0], (4, 2)), times, 0.0, tcf, generator))
    assert torch.equal(generator.get_state(), before)


@given(
    times=st.lists(st.floats(0, 999, width=32), min_size=1, max_size=6, unique=True),
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    dtype=st.sampled_from(FLOAT),
    tcf=st.sampled_from(list(tcd.TCF)),
)
@settings(deadline=None, derandomize=True, database=None, max_examples=40)
def test_gamma_0_is_deterministic_at_any_times_shape_and_dtype(times, shape, dtype, tcf):
    x = torch.randn(shape, generator=seeded()).to(dtype)
    times = torch.tensor(sorted(times, reverse=True))
    net = tcd.as_x0(lambda x, t: 0.9 * x, SD)
    runs = [list(tcd.sample(net, SD, x, times, 0.0, tcf, seeded(seed))) for seed in (1, 2)]
    assert torch.equal(runs[0][-1].x_s, runs[1][-1].x_s)
    assert (runs[0][-1].x_s.shape, runs[0][-1].x_s.dtype) == (x.shape, dtype)


@pytest.mark.parametrize("sched", [SCHEDULES["flow"], SCHEDULES["flow_shift_3"]], ids=["flow", "flow_shift_3"])
def test_gamma_1_is_multistep_consistency_sampling(sched):
    """Algorithm 3, written out: denoise to clean data, diffuse to the next time."""
    data, times, generator = Gaussian(sched), times_of(sched), seeded(3)
    x = start = data.draw(times[0], (4, 2))
    for t, s in pairwise(times):
        x = sched.alpha(s) * data.x0(x, t) + sched.sigma(s) * torch.randn(x.shape, dtype=F64, generator=generator)
    *_, last = tcd.sample(data.x0, sched, start, times, 1.0, generator=seeded(3))
    torch.testing.assert_close(last.x_s, data.x0(x, times[-1]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["scaled_linear", "linear", "cosine"])
def test_gamma_1_of_a_discrete_schedule_denoises_to_its_first_step(name):
    """Algorithm 3 where time 0 is the first, still slightly noisy, step: eq. 35 with s' = 0."""
    sched = SCHEDULES[name]
    data, times, generator = Gaussian(sched), times_of(sched), seeded(3)
    x = start = data.draw(times[0], (4, 2))
    alpha_0, sigma_0 = sched.alpha(torch.zeros((), dtype=F64)), sched.sigma(torch.zeros((), dtype=F64))
    for t, s in pairwise(times):
        x0 = data.x0(x, t)
        x = alpha_0 * x0 + sigma_0 * (x - sched.alpha(t) * x0) / sched.sigma(t)
        ratio = sched.alpha(s) / alpha_0
        x = ratio * x + (1 - ratio**2).sqrt() * torch.randn(x.shape, dtype=F64, generator=generator)
    *_, last = tcd.sample(data.x0, sched, start, times, 1.0, generator=seeded(3))
    torch.testing.assert_close(last.x_s, data.x0(x, times[-1]), rtol=0, atol=1e-12)


@every_tcf
@every_schedule
def test_the_loop_is_single_steps_with_the_generator_s_noise(sched, tcf):
    data, times, gammas, noise = Gaussian(sched), times_of(sched), [0.0, 0.3, 1.0, 0.0], seeded(5)
    x = data.draw(times[0], (4, 2))
    steps = list(tcd.sample(data.x0, sched, x, times, gammas, tcf, seeded(5)))
    for step, gamma in zip(steps, gammas, strict=True):
        z = torch.randn(x.shape, dtype=F64, generator=noise) if gamma else None
        x = tcd.sss_step(data.x0, sched, x, step.t, step.s, gamma, z, tcf)
        assert torch.equal(step.x_s, x)


def test_a_batch_of_times_is_a_loop_over_samples():
    data = Gaussian(SD)
    t, s = torch.tensor([999.0, 759.0, 500.0], dtype=F64), torch.tensor([500.0, 259.0, 0.0], dtype=F64)
    x, z = torch.randn(2, 3, 4, 2, dtype=F64, generator=seeded())
    together = tcd.sss_step(data.x0, SD, x, t, s, 0.3, z)
    alone = [tcd.sss_step(data.x0, SD, x[i : i + 1], t[i], s[i], 0.3, z[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-14)


# --- the loop ---------------------------------------------------------------------------------------------------------


@every_tcf
def test_the_steps_form_one_chain(tcf):
    data, times, seen = Gaussian(SD), tcd.timesteps(SD, 4), []
    x = data.draw(999, (2, 3)).float()
    steps = list(tcd.sample(lambda *a: seen.append(data.x0(*a).float()) or seen[-1], SD, x, times, 0.3, tcf, seeded()))
    assert [step.i for step in steps] == [0, 1, 2, 3]
    assert [step.t.item() for step in steps] == [999, 759, 499, 259]
    assert [step.s.item() for step in steps] == [759, 499, 259, -1]
    assert [step.s_prime.item() for step in steps] == [531, 349, 181, -1]
    assert torch.equal(steps[0].x_t, x)
    for before, after in pairwise(steps):
        assert torch.equal(before.x_s, after.x_t)
    per_step = len(seen) // 4
    for step in steps:
        assert torch.equal(step.x0, seen[(step.i + 1) * per_step - 1])  # the last evaluation is the one that is used
        assert torch.equal(step.x_s, step.x_s_prime) == (step.i == 3)


@pytest.mark.parametrize(("tcf", "evaluations"), [("1", 1), ("2", 2)])
def test_nothing_is_evaluated_before_it_is_asked_for(tcf, evaluations):
    calls = []
    steps = tcd.sample(lambda x, t, s: calls.append(t) or x, SD, torch.ones(1, 2), tcd.timesteps(SD, 4), 0.0, tcf)
    for i in range(4):
        assert len(calls) == i * evaluations
        next(steps)
    assert len(calls) == 4 * evaluations
    assert next(steps, None) is None


def run(gamma: Gamma = 0.3, seed: int = 0, x: torch.Tensor | None = None, tcf: str = "1") -> torch.Tensor:
    """The sample of a smooth network."""
    x = torch.randn(2, 3, 4, generator=seeded()) if x is None else x
    predict = tcd.as_x0(lambda x, t: 0.9 * x, SD)
    *_, last = tcd.sample(predict, SD, x, tcd.timesteps(SD, 4), gamma, tcf, seeded(seed))
    return last.x_s


@every_tcf
def test_the_same_seed_gives_the_same_bits_and_another_seed_another_sample(tcf):
    assert torch.equal(run(seed=1, tcf=tcf), run(seed=1, tcf=tcf))
    assert not torch.allclose(run(seed=1, tcf=tcf), run(seed=2, tcf=tcf), atol=0.1)


def test_without_a_generator_the_noise_is_torch_s_own():
    x, net = torch.randn(2, 3), tcd.as_x0(lambda x, t: 0.9 * x, SD)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        *_, last = tcd.sample(net, SD, x, tcd.timesteps(SD, 4))
    assert torch.equal(last.x_s, run(seed=11, x=x))


@pytest.mark.parametrize("gamma", [[0.3] * 4, (0.3, 0.3, 0.3, 0.3), torch.full((4,), 0.3), torch.tensor(0.3)], ids=repr)
def test_one_gamma_for_all_is_the_same_gamma_for_each(gamma):
    torch.testing.assert_close(run(gamma), run(0.3), rtol=0, atol=1e-6)  # a float32 tensor's 0.3 is 0.30000001


def test_the_last_gamma_changes_nothing():
    assert torch.equal(run([0.3, 0.3, 0.3, 1.0]), run([0.3, 0.3, 0.3, 0.0]))


def test_a_list_of_gammas_is_not_written_to():
    gammas = [0.3, 0.3, 0.3, 1.0]
    run(gammas)
    assert gammas == [0.3, 0.3, 0.3, 1.0]


@pytest.mark.parametrize(("end", "lands"), [("x0", -1.0), ("t0", 0.0), (100, 100.0), (torch.tensor(7.0), 7.0)])
def test_the_end_says_where_the_last_step_lands(end, lands):
    data = Gaussian(SD)
    x = data.draw(999, (4, 2))
    *_, last = tcd.sample(data.student, SD, x, tcd.timesteps(SD, 4), 0.0, end=end)
    assert last.s == last.s_prime == lands
    # The times are float32, and their alpha and sigma are rounded to it
    torch.testing.assert_close(last.x_s, data.path(x, 999, lands), rtol=0, atol=2e-6)


@pytest.mark.parametrize("gamma", [1.0, [1.0, 1.0]], ids=str)
def test_no_noise_is_added_on_the_last_step(gamma):
    """Also where it lands on the smallest noise level, above clean data."""
    flow, x, generator = SCHEDULES["flow"], torch.ones(1, 2), seeded()
    *_, last = tcd.sample(lambda x, t, s: 0.5 * x, flow, x, torch.tensor([0.9, 0.5]), gamma, "1", generator, end="t0")
    assert last.s_prime == last.s == torch.tensor(flow.first)
    once = seeded()
    torch.randn(x.shape, generator=once)
    assert torch.equal(generator.get_state(), once.get_state())


def test_the_clean_end_of_flow_is_its_zero():
    flow = tcd.RectifiedFlow()
    *_, last = tcd.sample(lambda x, t, s: 0.5 * x, flow, torch.ones(1, 2), torch.tensor([1.0, 0.5]), 0.0)
    assert last.s == 0
    assert torch.equal(last.x_s, last.x0)


@every_tcf
@pytest.mark.parametrize("dtype", FLOAT, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 4, 8, 8), (1, 4, 3, 6, 6)], ids=str)
def test_shape_and_dtype_are_kept_in_every_state(shape, dtype, tcf):
    x, net = torch.randn(shape, generator=seeded()).to(dtype), tcd.as_x0(lambda x, t: 0.9 * x, SD)
    for step in tcd.sample(net, SD, x, tcd.timesteps(SD, 4), 0.3, tcf, seeded()):
        for state in (step.x_t, step.x0, step.x_s_prime, step.x_s):
            assert (state.shape, state.dtype) == (x.shape, dtype)
        assert step.x_s.isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("generator_device", ["cpu", "cuda"])
def test_the_device_is_kept_wherever_times_and_generator_live(generator_device):
    x, net = torch.randn(2, 3, device="cuda"), tcd.as_x0(lambda x, t: 0.9 * x, SD)
    generator = torch.Generator(generator_device).manual_seed(0)
    *_, last = tcd.sample(net, SD, x, tcd.timesteps(SD, 4), 0.3, "2", generator)
    assert last.x_s.device == x.device


@every_tcf
def test_nothing_of_the_caller_s_is_written_to(tcf):
    x, noise, said = torch.randn(3, 1, 2, 3, generator=seeded())
    times = tcd.timesteps(SD, 4)
    theirs = [x, noise, said, times]
    before = [tensor.clone() for tensor in theirs]
    list(tcd.sample(lambda *_: said, SD, x, times, 0.3, tcf, seeded()))
    tcd.sss_step(lambda *_: said, SD, x, 999.0, 759.0, 0.3, noise, tcf)
    assert all(map(torch.equal, theirs, before))


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma": 1.7}, r"gamma must be in \[0, 1\], got 1.7"),
        ({"gamma": [0.3, -0.1, 0.3, 0.3]}, r"gamma must be in \[0, 1\], got -0.1"),
        ({"gamma": math.nan}, r"gamma must be in \[0, 1\], got nan"),
        ({"gamma": [0.3, 0.3]}, "one for each of the 4 steps, got 2"),
        ({"tcf": "3"}, "tcf must be one of 1, 2.*; got '3'"),
        ({"end": "t1"}, "end must be x0, t0 or a time; got 't1'"),
        ({"end": 300.0}, r"times must decrease down to the end, got \[999.0, 759.0, 499.0, 259.0\] and then 300"),
        ({"times": torch.tensor([499.0, 999.0])}, r"times must decrease .* got \[499.0, 999.0\] and then -1"),
        ({"times": torch.tensor([499.0, 499.0])}, r"times must decrease"),
        ({"times": torch.tensor([math.nan])}, r"times must decrease .* got \[nan\]"),
        ({"times": torch.tensor([])}, r"times must decrease .* got \[\]"),
        ({"times": torch.tensor([1000.0, 5.0])}, r"times must be in \[-1, 999\], got 1000"),
        ({"end": -2.0}, r"times must be in \[-1, 999\], got -2"),
        ({"rule": "edm"}, "rule must be one of sss, ctm; got 'edm'"),
        ({"x": torch.ones(3)}, r"x must be a float tensor \[B, C, ...\], got torch.float32 of shape \(3,\)"),
        ({"x": torch.ones(1, 2).long()}, r"x must be a float tensor \[B, C, ...\], got torch.int64"),
    ],
    ids=str,
)
def test_bad_values_are_named_before_the_first_evaluation(wrong, message):
    given = {"x": torch.ones(1, 2), "times": tcd.timesteps(SD, 4), **wrong}
    with pytest.raises(ValueError, match=message):
        tcd.sample(never, SD, **given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma": 1.7}, r"gamma must be in \[0, 1\], got 1.7"),
        ({"gamma": [0.3, 0.3]}, "gamma must be one number"),
        ({"tcf": "3"}, "tcf must be one of"),
        ({"noise": torch.ones(2, 2)}, r"noise must have the shape of x, \(1, 2\); got \(2, 2\)"),
        ({"s": -3.0}, r"times must be in \[-1, 999\], got -3"),
    ],
    ids=str,
)
def test_a_single_step_names_bad_values_too(wrong, message):
    with pytest.raises(ValueError, match=message):
        tcd.sss_step(never, SD, torch.ones(1, 2), **{"t": 999.0, "s": 759.0, **wrong})


def test_noise_that_is_needed_must_be_given():
    with pytest.raises(ValueError, match=r"gamma 0.3 adds noise: pass `noise` of the shape of x, \(1, 2\)"):
        tcd.sss_step(lambda x, *_: x, SD, torch.ones(1, 2), 999.0, 759.0, gamma=0.3)


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_a_prediction_that_is_not_finite_is_named_with_its_step(value):
    x, seen = torch.ones(1, 2), []
    steps = tcd.sample(lambda x, t, s: x * (value if t < 500 else 1), SD, x, tcd.timesteps(SD, 4), 0.0)
    with pytest.raises(ValueError, match="step 2: the network's prediction at t = 499 is not finite"):
        seen.extend(steps)
    with pytest.raises(ValueError, match="step 2"):
        list(tcd.sample(lambda x, t, s: x * (value if t < 500 else 1), SD, x, tcd.timesteps(SD, 4), 0.0))


def test_a_prediction_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"the prediction must have the shape of x, \(1, 2\); got \(1, 1\)"):
        list(tcd.sample(lambda x, t, s: x[:, :1], SD, torch.ones(1, 2), tcd.timesteps(SD, 4)))


# --- CTM's gamma-sampling ---------------------------------------------------------------------------------------------


@every_schedule
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_gamma_sampling_adds_gamma_of_the_noise(sched, gamma):
    """Kim et al. 2023, in exploding units: denoise to sqrt(1 - gamma^2) sigma, add gamma sigma of noise."""
    t, s = times_of(sched)[:2]
    one, zero = torch.ones(1, 1, dtype=F64), torch.zeros(1, 1, dtype=F64)
    (step,) = tcd.sample(lambda x, *_: x, sched, one, t[None], gamma, "1", seeded(), end=s, rule="ctm")
    ratio = (sched.sigma(step.s_prime) / sched.alpha(step.s_prime)) / (sched.sigma(s) / sched.alpha(s))
    assert ratio.item() == pytest.approx((1 - gamma**2) ** 0.5, abs=1e-6)
    added = diffuse(sched, zero, step.s_prime, s, one) / sched.sigma(s)
    assert added.item() == pytest.approx(gamma, abs=1e-6)


@every_schedule
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_gamma_sampling_keeps_the_marginal(sched, gamma):
    data, (t, s) = Gaussian(sched, 0.4, 0.7), times_of(sched)[1:3]
    x = data.draw(t, (200_000, 1))
    *_, last = tcd.sample(data.student, sched, x, t[None], gamma, "1", seeded(1), end=s, rule="ctm")
    std = data.at(s, x)[2]
    assert last.x_s.std().item() == pytest.approx(std.item(), rel=5e-3)  # thrice the standard error, as above


@every_schedule
def test_at_gamma_0_and_1_both_rules_are_one(sched):
    data, times = Gaussian(sched), times_of(sched)
    x = data.draw(times[0], (4, 2))
    sss, ctm = (
        [step.x_s for step in tcd.sample(data.x0, sched, x, times, 0.0, "1", seeded(3), rule=rule)]
        for rule in ("sss", "ctm")
    )
    assert all(map(torch.equal, sss, ctm))


# --- torch.compile ----------------------------------------------------------------------------------------------------


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


STEPS = {**tcd.TCF, **tcd.SOLVERS}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*STEPS, "sss"])
@pytest.mark.parametrize(
    "sched", [SD, SCHEDULES["flow"], SCHEDULES["exploding"]], ids=["discrete", "flow", "exploding"]
)
def test_every_step_function_is_one_graph(name, sched):
    x, noise = torch.randn(2, 2, 4, generator=seeded())
    t, s = torch.tensor([0.9, 0.8]) * sched.last, torch.tensor([0.5, 0.2]) * sched.last

    def step(x, t, s):
        predict = lambda x, t, s: 0.9 * x  # noqa: E731
        if name == "sss":
            return tcd.sss_step(predict, sched, x, t, s, 0.3, noise)
        return STEPS[name](predict, sched, x, t, s)

    torch.testing.assert_close(compiled(step)(x, t, s), step(x, t, s), rtol=0, atol=1e-5 * float(x.abs().max()))


def peak_bytes(run) -> int:
    """The most memory that was allocated at once while `run` ran, as torch's profiler saw it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = run()
    now, most, inner = 0, 0, cast(Any, profiler.profiler)
    for event in inner.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    del kept
    return most


@every_tcf
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_a_step_needs_no_more_than_two_states_above_those_that_it_gives(gamma, tcf):
    x = torch.randn(4, 4, 64, 64, generator=seeded())
    predict = tcd.as_x0(lambda x, t: x, SD)
    steps = tcd.sample(predict, SD, x, tcd.timesteps(SD, 4), gamma, tcf, seeded())
    next(steps)  # what is looked up once is there
    given = 3 if gamma else 2  # x0 and x_s, and x_s_prime where it is not x_s
    assert peak_bytes(lambda: next(steps)) <= (given + 2) * x.numel() * 4 + 10_000  # and some times and coefficients


# --- the grid of times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "k", "wanted"),
    [
        (1, 20, [999]),
        (2, 20, [999, 499]),
        (4, 20, [999, 759, 499, 259]),
        (8, 20, [999, 879, 759, 639, 499, 379, 259, 139]),
        (4, 1, [999, 749, 499, 249]),
        (3, 500, None),
    ],
)
def test_times_are_the_reference_s(n, k, wanted):
    if wanted is None:
        with pytest.raises(ValueError, match=r"n must be in \[1, 2\] on a grid of 1000 // 500 times, got 3"):
            tcd.timesteps(SD, n, k)
    else:
        assert tcd.timesteps(SD, n, k).tolist() == wanted


@pytest.mark.parametrize(("n", "k", "named"), [(0, 20, 0), (51, 20, 51), (1, 0, 0), (1, 1001, 1001)])
def test_a_grid_that_is_not_there_is_refused(n, k, named):
    with pytest.raises(ValueError, match=rf"must be in \[1, .* got {named}$"):
        tcd.timesteps(SD, n, k)


@given(steps=st.integers(1, 200), data=st.data())
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
def test_times_decrease_strictly_from_the_last_of_the_grid(steps, data):
    sched = tcd.DiscreteVP.linear(steps)
    k = data.draw(st.integers(1, steps))
    n = data.draw(st.integers(1, steps // k))
    times = tcd.timesteps(sched, n, k)
    assert times[0] == steps // k * k - 1
    assert (times.diff() < 0).all()
    assert ((times + 1) % k == 0).all()
    assert len(times) == n


# --- the reference implementation -------------------------------------------------------------------------------------

GOLDEN = [  # n = 4, gamma = 0.3: t, s', s, then alpha_t, sigma_t, alpha_s', sigma_s', ratio, noise
    (999, 531, 759, 0.068265, 0.997667, 0.486409, 0.873731, 0.469772, 0.882788),
    (759, 349, 499, 0.228501, 0.973544, 0.712851, 0.701315, 0.739206, 0.673480),
    (499, 181, 259, 0.526944, 0.849900, 0.884677, 0.466204, 0.917592, 0.397524),
    (259, 0, 0, 0.811773, 0.583973, 0.999575, 0.029155, 1.0, 0.0),
]


def test_the_coefficients_are_those_of_the_golden_table():
    times = tcd.timesteps(SD, 4)
    steps = tcd.sample(lambda x, t, s: x, SD, torch.ones(1, 2), times, 0.3, generator=seeded(), end="t0")
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    for step, row in zip(steps, GOLDEN, strict=True):
        t, s_prime, s = step.t, step.s_prime, step.s
        ratio, noise = diffuse(SD, one, s_prime, s, zero), diffuse(SD, zero, s_prime, s, one)
        got = [t, s_prime, s, SD.alpha(t), SD.sigma(t), SD.alpha(s_prime), SD.sigma(s_prime), ratio, noise]
        assert [float(v) for v in got] == pytest.approx(row, abs=1e-6)  # the table has six digits


@pytest.mark.parametrize(("n", "total"), [(1, 29.8715), (10, 181.2040)])
def test_the_sums_of_the_reference_s_own_test_come_out(n, total):
    x = (torch.arange(768.0) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)
    net = tcd.as_x0(lambda x, t: x * (t / (t + 1)).reshape(-1, 1, 1, 1), SD)
    *_, last = tcd.sample(net, SD, x, tcd.timesteps(SD, n), 0.0, end="t0")
    # At n = 1 the noise is all but 0.3% of x, so that float32 leaves some 1e-5 of the rest
    assert last.x_s.abs().sum().item() == pytest.approx(total, rel=2e-5)


KIND = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


@pytest.fixture(scope="module")
def scheduler():
    return pytest.importorskip("diffusers").TCDScheduler


def reference(scheduler, net, x, n, gamma, generator) -> torch.Tensor:
    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t), t, x, eta=gamma, generator=generator, return_dict=False)[0]
    return x


@pytest.mark.parametrize("n", [1, 2, 4, 8, 20])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("prediction_type", KIND)
def test_samples_are_those_of_the_reference(scheduler, n, gamma, prediction_type):
    data = Gaussian(SD)
    net = data.net(KIND[prediction_type])
    x = data.draw(999, (2, 4, 8, 8)).float()
    wanted = reference(scheduler(prediction_type=prediction_type), net, x, n, gamma, seeded(7))
    predict = tcd.as_x0(net, SD, KIND[prediction_type])
    *_, last = tcd.sample(predict, SD, x, tcd.timesteps(SD, n), gamma, generator=seeded(7), end="t0")
    # Float32 states of order 1; 1 / alpha is 15 at first, and noise was subtracted there
    torch.testing.assert_close(last.x_s, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_samples_at_zero_terminal_snr_are_those_of_the_reference(scheduler, gamma):
    sched = tcd.DiscreteVP.scaled_linear(zero_terminal_snr=True)
    data = Gaussian(sched)
    x = data.draw(999, (2, 4, 8, 8)).float()
    theirs = scheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    wanted = reference(theirs, data.net("v"), x, 4, gamma, seeded(7))
    predict = tcd.as_x0(data.net("v"), sched, "v")
    *_, last = tcd.sample(predict, sched, x, tcd.timesteps(sched, 4), gamma, generator=seeded(7), end="t0")
    torch.testing.assert_close(last.x_s, wanted, rtol=0, atol=1e-5)


def test_times_are_those_of_the_reference_for_every_n(scheduler):
    theirs = scheduler()
    for n in range(1, 51):
        theirs.set_timesteps(n)
        assert tcd.timesteps(SD, n).tolist() == theirs.timesteps.tolist()


@pytest.mark.parametrize("n", [1, 3, 4, 7, 50])
def test_the_dense_grid_is_the_reference_s_with_original_steps(scheduler, n):
    theirs = scheduler()
    theirs.set_timesteps(n, original_inference_steps=50)
    assert tcd.timesteps(SD, n, k=1).tolist() == theirs.timesteps.tolist()


@given(
    n=st.integers(1, 50),
    gamma=st.floats(0, 1, width=32),
    prediction_type=st.sampled_from(list(KIND)),
    dtype=st.sampled_from([torch.float32, F64]),
    strength=st.none() | st.floats(0.1, 1),
    times=st.none() | st.lists(st.integers(0, 999), min_size=1, max_size=12, unique=True),
)
@settings(deadline=None, derandomize=True, database=None, max_examples=80)
def test_all_that_the_reference_can_do_comes_out_alike(scheduler, n, gamma, prediction_type, dtype, strength, times):
    data, theirs = Gaussian(SD), scheduler(prediction_type=prediction_type)
    net = data.net(KIND[prediction_type])
    if times is not None:
        ours = torch.tensor(sorted(times, reverse=True), dtype=torch.float32)
        theirs.set_timesteps(timesteps=sorted(times, reverse=True))
    else:
        strength = strength or 1.0
        n = min(n, int(50 * strength))
        ours = tcd.timesteps(SD, n, strength=strength)
        theirs.set_timesteps(n, strength=strength)
    assert ours.tolist() == theirs.timesteps.tolist()
    if ours[-1] == 0:
        return  # they stay at 0 for one step more; we refuse to go nowhere
    x, generator = data.draw(ours[0], (2, 4, 4, 4)).to(dtype), seeded(7)
    wanted = x
    for t in theirs.timesteps:
        wanted = theirs.step(net(wanted, t), t, wanted, eta=gamma, generator=generator, return_dict=False)[0]
    *_, last = tcd.sample(tcd.as_x0(net, SD, KIND[prediction_type]), SD, x, ours, gamma, "1", seeded(7), end="t0")
    torch.testing.assert_close(last.x_s, wanted.to(dtype), rtol=0, atol=1e-5)


def test_strength_cuts_the_grid_to_its_lower_part():
    assert tcd.timesteps(SD, 4, strength=0.5).tolist() == [499, 379, 259, 139]
    for strength in (0.0, 1.2, math.nan):
        with pytest.raises(ValueError, match=rf"strength must be in \(0, 1\], got {strength:g}"):
            tcd.timesteps(SD, 4, strength=strength)
    with pytest.raises(ValueError, match=r"n must be in \[1, 5\] on the lower 0.1 of a grid"):
        tcd.timesteps(SD, 6, strength=0.1)


def test_continuous_schedules_have_the_same_grid():
    assert tcd.timesteps(tcd.RectifiedFlow(3.0), 4).tolist() == pytest.approx([1.0, 0.76, 0.5, 0.26], abs=1e-6)
    exploding = tcd.VarianceExploding()
    assert torch.equal(tcd.timesteps(exploding, 4), exploding.time_at(torch.tensor([999.0, 759.0, 499.0, 259.0])))


def test_a_run_that_is_split_at_a_time_equals_the_whole_one():
    sched = tcd.DiscreteVP.scaled_linear()
    predict = tcd.as_x0(lambda x, t: 0.3 * x, sched)
    x, times = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), tcd.timesteps(sched, 4)
    *_, whole = tcd.sample(predict, sched, x, times, 0.3, generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    *_, half = tcd.sample(predict, sched, x, times[:2], 0.3, generator=generator, end=times[2])
    *_, rest = tcd.sample(predict, sched, half.x_s, times[2:], 0.3, generator=generator)
    assert torch.equal(rest.x_s, whole.x_s)


def test_noise_of_ones_own_is_asked_for_every_level_that_has_some():
    x, asked = torch.randn(2, 3, generator=seeded()), []

    def noise(s):
        asked.append(s.item())
        return torch.randn(x.shape, generator=seeded(int(s)))

    predict, times = Gaussian(SD).x0, tcd.timesteps(SD, 4)
    *_, last = tcd.sample(predict, SD, x, times, 0.3, noise=noise)
    assert asked == [759.0, 499.0, 259.0]
    state = x
    for t, s in pairwise(times):
        state = tcd.sss_step(predict, SD, state, t, s, 0.3, torch.randn(x.shape, generator=seeded(int(s))))
    assert torch.equal(last.x_t, state)


def test_noise_of_another_shape_is_named_with_both():
    with pytest.raises(ValueError, match=r"the noise must have the shape of x, \(2, 3\); got \(2, 4\)"):
        list(tcd.sample(Gaussian(SD).x0, SD, torch.ones(2, 3), tcd.timesteps(SD, 4), noise=lambda s: torch.ones(2, 4)))
