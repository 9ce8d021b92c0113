"""Schedules: alpha, sigma and lam against their tables and definitions, and time_of as the inverse of lam."""

import math

import pytest
import torch
from oracle import SCHEDULES

import tcd

DISCRETE = {name: sched for name, sched in SCHEDULES.items() if isinstance(sched, tcd.DiscreteVP)}
FLOW = {name: sched for name, sched in SCHEDULES.items() if isinstance(sched, tcd.RectifiedFlow)}
F64 = torch.float64

every_schedule = pytest.mark.parametrize("sched", SCHEDULES.values(), ids=SCHEDULES)
every_discrete = pytest.mark.parametrize("sched", DISCRETE.values(), ids=DISCRETE)
every_flow = pytest.mark.parametrize("sched", FLOW.values(), ids=FLOW)


def whole_range(sched: tcd.Schedule, dtype: torch.dtype, n: int = 4001) -> torch.Tensor:
    return torch.linspace(sched.clean, sched.last, n, dtype=dtype)


def test_integer_times_read_the_cumprod_table():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    table = torch.cumprod(1 - betas, 0)
    sched, steps = tcd.DiscreteVP.scaled_linear(), torch.arange(1000)
    assert torch.equal(sched.alpha(steps), table.double().sqrt().float())
    assert torch.equal(sched.sigma(steps), (1 - table.double()).sqrt().float())


@pytest.mark.parametrize(
    ("t", "alpha_bar"),
    [(0, 0.99914998), (19, 0.98224396), (259, 0.65897524), (499, 0.27766943), (759, 0.05221289), (999, 0.00466010)],
)
def test_stable_diffusion_has_its_known_values(t, alpha_bar):
    assert tcd.DiscreteVP.scaled_linear().alpha(t).item() ** 2 == pytest.approx(alpha_bar, abs=1e-7)


def test_ddpm_betas_are_linear():
    betas = torch.linspace(1e-4, 0.02, 1000)
    assert torch.equal(tcd.DiscreteVP.linear().alpha_bar, torch.cumprod(1 - betas, 0).double())


def test_cosine_alpha_bar_follows_the_squared_cosine():
    t = torch.arange(0, 990, dtype=F64)
    wanted = torch.cos(((t + 1) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(tcd.DiscreteVP.cosine().alpha(t) ** 2, wanted, rtol=1e-12, atol=0)


def test_the_last_cosine_beta_is_cut_to_0_999():
    alpha_bar = tcd.DiscreteVP.cosine().alpha_bar
    assert (alpha_bar[-1] / alpha_bar[-2]).item() == pytest.approx(0.001, rel=1e-12)


def test_between_steps_alpha_bar_is_interpolated():
    sched = tcd.DiscreteVP.scaled_linear()
    left, middle, right = sched.alpha(torch.tensor([499.0, 499.25, 500.0], dtype=F64)) ** 2
    assert middle.item() == pytest.approx((0.75 * left + 0.25 * right).item(), abs=1e-15)


@every_discrete
def test_discrete_is_variance_preserving(sched):
    t = whole_range(sched, F64)
    torch.testing.assert_close(sched.alpha(t) ** 2 + sched.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-15)


@every_flow
def test_flow_goes_on_a_straight_line(sched):
    t = whole_range(sched, F64)
    torch.testing.assert_close(sched.alpha(t) + sched.sigma(t), torch.ones_like(t), rtol=0, atol=1e-15)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 6.0])
def test_shift_divides_the_signal_to_noise_ratio(shift):
    t = torch.linspace(0.01, 0.99, 99, dtype=F64)
    wanted = tcd.RectifiedFlow().lam(t) - math.log(shift)
    torch.testing.assert_close(tcd.RectifiedFlow(shift).lam(t), wanted, rtol=0, atol=1e-12)


@every_schedule
def test_clean_data_has_no_noise(sched):
    assert sched.alpha(sched.clean) == 1
    assert sched.sigma(sched.clean) == 0
    assert sched.lam(sched.clean) == math.inf
    assert sched.time_of(math.inf) == sched.clean


@pytest.mark.parametrize("sched", [SCHEDULES["zero_snr"], *FLOW.values()], ids=["zero_snr", *FLOW])
def test_pure_noise_has_no_signal(sched):
    assert sched.alpha(sched.last) == 0
    assert sched.sigma(sched.last) == 1
    assert sched.lam(sched.last) == -math.inf
    assert sched.time_of(-math.inf) == sched.last


def test_zero_terminal_snr_keeps_the_first_step():
    plain, rescaled = SCHEDULES["scaled_linear"], SCHEDULES["zero_snr"]
    assert rescaled.alpha(0.0) == plain.alpha(0.0)
    assert rescaled.alpha(998.0) > 0


@every_schedule
def test_lam_is_half_the_log_signal_to_noise_ratio(sched):
    t = torch.linspace(sched.first, 0.99 * sched.last, 500, dtype=F64)
    wanted = (sched.alpha(t) / sched.sigma(t)).log()
    torch.testing.assert_close(sched.lam(t), wanted, rtol=0, atol=1e-12)  # 1e-12: alpha_bar near 1 loses 3 digits


@every_schedule
def test_lam_falls_as_time_goes_up(sched):
    assert (sched.lam(whole_range(sched, F64)).diff() < 0).all()


@every_schedule
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_time_of_undoes_lam_over_the_whole_range(sched, dtype):
    t = whole_range(sched, dtype)
    torch.testing.assert_close(sched.time_of(sched.lam(t)), t, rtol=0, atol=1e-5 * sched.last)


@pytest.mark.parametrize("sched", [*DISCRETE.values(), *FLOW.values()], ids=[*DISCRETE, *FLOW])
def test_time_of_stays_within_the_schedule(sched):
    times = sched.time_of(torch.tensor([-50.0, 50.0], dtype=F64))
    assert times.tolist() == pytest.approx([sched.last, sched.clean], abs=1e-12)


@every_schedule
@pytest.mark.parametrize("name", ["alpha", "sigma", "lam"])
@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [(torch.float16, torch.float32), (torch.int64, torch.float32), (torch.float32, torch.float32), (F64, F64)],
    ids=str,
)
def test_results_have_the_shape_of_the_times_and_float32_at_least(sched, name, dtype, wanted):
    for t in (torch.tensor(1, dtype=dtype), torch.tensor([0, 1, 1], dtype=dtype)):
        out = getattr(sched, name)(t)
        assert (out.shape, out.dtype) == (t.shape, wanted)


@every_schedule
def test_a_number_is_a_time(sched):
    t = 0.5 * sched.last
    assert sched.alpha(t) == sched.alpha(torch.tensor(t))
    assert sched.time_of(0.0).ndim == 0


@every_discrete
@pytest.mark.parametrize("gamma", [0.2, 0.3, 0.5, 1.0])
def test_discrete_s_prime_is_the_step_below(sched, gamma):
    s = torch.tensor([0.0, 259.0, 499.0, 759.0])
    assert sched.s_prime(s, gamma).tolist() == [math.floor((1 - gamma) * v) for v in s.tolist()]


def test_discrete_s_prime_leaves_clean_data_clean():
    assert SCHEDULES["scaled_linear"].s_prime(-1.0, 0.3) == -1


def test_discrete_s_prime_at_gamma_0_stays_between_two_steps():
    assert SCHEDULES["scaled_linear"].s_prime(259.5, 0.0) == 259.5


@every_flow
def test_flow_s_prime_is_not_rounded(sched):
    assert sched.s_prime(0.5, 0.3).item() == pytest.approx(0.35, abs=1e-7)


@every_schedule
def test_training_steps_go_from_the_first_time_to_the_last(sched):
    index = torch.arange(sched.steps, dtype=F64)
    times = sched.time_at(index)
    assert (times.diff() > 0).all()
    assert times[[0, -1]].tolist() == pytest.approx([sched.first, sched.last], rel=1e-12)
    torch.testing.assert_close(sched.index_of(times), index, rtol=0, atol=1e-9)


def test_exploding_steps_are_karras_s():
    """Eq. 5 of Karras et al. 2022, from the noisiest down."""
    sched, i, n = tcd.VarianceExploding(), torch.arange(1000, dtype=F64), 1000
    wanted = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(sched.time_at(i).flip(0), wanted, rtol=1e-12, atol=0)


@every_schedule
def test_rates_are_the_slopes_of_alpha_and_sigma(sched):
    """What they add up to over many short ways is how far alpha and sigma go."""
    times = torch.linspace(0.1, 0.9, 4001, dtype=F64) * sched.last
    for rate, f in zip(sched.rates((times[1:] + times[:-1]) / 2), (sched.alpha, sched.sigma), strict=True):
        gone = torch.cumsum(rate * times.diff(), 0)
        # Each slope is one over a whole training step, so at the ends half a step more or less is counted
        torch.testing.assert_close(gone, f(times[1:]) - f(times[0]), rtol=0, atol=2e-4 * sched.sigma(sched.last))


@pytest.mark.parametrize("t", [-1.5, 999.5, math.nan])
def test_times_outside_are_named(t):
    with pytest.raises(ValueError, match=rf"times must be in \[-1, 999\], got {t:g}"):
        SCHEDULES["scaled_linear"].check(torch.tensor([5.0, t]))


def test_there_may_be_more_noise_than_an_exploding_schedule_was_trained_on():
    sched = tcd.VarianceExploding(0.03, 14.5)
    sched.check(20.0)
    with pytest.raises(ValueError, match=r"times must be in \[0, inf\], got -1"):
        sched.check(-1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tcd.DiscreteVP.from_betas(torch.tensor([0.1, 1.5])), r"betas must be in \(0, 1\), got 1.5"),
        (lambda: tcd.DiscreteVP.from_betas(torch.tensor([0.0, 0.1])), r"betas must be in \(0, 1\), got 0"),
        (lambda: tcd.DiscreteVP.from_betas(torch.tensor([math.nan])), r"betas must be in \(0, 1\), got nan"),
        (lambda: tcd.DiscreteVP.from_betas(torch.zeros(2, 3)), r"\[N\], N >= 1, got shape \(2, 3\)"),
        (lambda: tcd.DiscreteVP.from_betas(torch.zeros(0)), r"\[N\], N >= 1, got shape \(0,\)"),
        (lambda: tcd.DiscreteVP.from_betas(torch.tensor([0.1]), True), r"\[N\], N >= 2, got shape \(1,\)"),
        (lambda: tcd.VarianceExploding(0.0, 80.0), "sigma_min < sigma_max must be positive, got 0.0 and 80.0"),
        (lambda: tcd.VarianceExploding(2.0, 1.0), "sigma_min < sigma_max must be positive, got 2.0 and 1.0"),
        (lambda: tcd.VarianceExploding(rho=0.0), "rho must be positive, got 0.0"),
        (lambda: tcd.RectifiedFlow(shift=-2.0), "shift must be positive, got -2.0"),
        (lambda: tcd.RectifiedFlow(shift=math.nan), "shift must be positive, got nan"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_schedules_compare_and_hash_by_identity():
    sched = tcd.DiscreteVP.scaled_linear()
    assert sched != tcd.DiscreteVP.scaled_linear()
    assert {sched: 1}[sched] == 1


@pytest.mark.parametrize("shift", [1.0, 1.15, 3.0, 6.0])
def test_a_flow_is_told_by_its_table_of_noise_levels(shift):
    table = tcd.RectifiedFlow(shift=shift).sigma(torch.arange(1, 1001) / 1000)
    assert tcd.RectifiedFlow.from_sigmas(table) == tcd.RectifiedFlow(shift=shift)


def test_a_table_of_another_form_is_no_flow():
    with pytest.raises(ValueError, match="not those of a rectified flow with a shift"):
        tcd.RectifiedFlow.from_sigmas((torch.arange(1, 1001) / 1000) ** 2)
