"""nodes/sampler.py through ComfyUI's own guiders: exact, repeatable, split anywhere, masked, cancelled."""

import logging
from itertools import pairwise

import pytest
import torch
from host_models import KINDS, exact_model, patched
from host_process import empty, far, module, run, sample, sigmas, stock_sampler, tcd_sampler

pytestmark = pytest.mark.host

SEED = 7


def initial_noise(latent=None):
    return run("RandomNoise", noise_seed=SEED)[0].generate_noise(empty() if latent is None else latent)


def recorded(model, cond, batch=1, gamma=0.3, steps=4):
    """(the trajectory that the sampler's own recorder kept, the sampled latent)."""
    model, recorder = run("TCD_RecordTrajectory", model=model)
    out = sample(model, cond, tcd_sampler(gamma), sigmas(model, steps), empty(batch), seed=SEED)
    return recorder.trajectory(), out


def custom(model, cond, levels, latent, add_noise, sampler=None, seed=SEED):
    """SamplerCustom, which has a seed also where it adds no noise."""
    inputs = {"add_noise": add_noise, "noise_seed": seed, "cfg": 1.0, "positive": cond, "negative": cond}
    inputs |= {"sampler": sampler or tcd_sampler(), "sigmas": levels, "latent_image": latent}
    return run("SamplerCustom", model=model, **inputs)[0]


@pytest.fixture
def masked():
    """A latent of which the right half may change."""
    kept = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 128, 128)
    mask[..., 64:] = 1
    return run("SetLatentNoiseMask", samples={"samples": kept}, mask=mask)[0]


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_gamma_0_is_euler(model, cond, steps):
    levels = sigmas(model, steps)
    ours = sample(model, cond, tcd_sampler(gamma=0.0), levels)
    assert far(ours, sample(model, cond, stock_sampler("euler"), levels)) < 1e-6 * steps  # what each step rounds off


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheduler", ["simple", "karras", "normal"])
def test_gamma_0_is_euler_on_every_kind_of_model_and_schedule(model, cond, kind, scheduler):
    exact = exact_model(model, kind)
    levels = run("BasicScheduler", model=exact, scheduler=scheduler, steps=6, denoise=1.0)[0]
    ours = sample(exact, cond, tcd_sampler(gamma=0.0), levels)
    # Where all is noise, `euler` takes the difference of two numbers of the size of sigma: their float32 rounding.
    rounding = 1e-5 + float(levels[0]) * torch.finfo(torch.float32).eps
    assert far(ours, sample(exact, cond, stock_sampler("euler"), levels)) < rounding


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["eps", "v", "sd3", "edm"])
def test_split_sigmas_with_the_same_seed_are_the_whole(model, cond, kind, gamma, at):
    exact, sampler = exact_model(model, kind), tcd_sampler(gamma)
    levels = sigmas(exact)
    high, low = run("SplitSigmas", sigmas=levels, step=at)
    first = custom(exact, cond, high, empty(), True, sampler)
    whole = custom(exact, cond, levels, empty(), True, sampler)["samples"]
    assert far(custom(exact, cond, low, first, False, sampler)["samples"], whole) < 1e-4


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
def test_split_sigmas_with_another_seed_stay_in_scale(model, cond, at):
    levels = sigmas(model)
    high, low = run("SplitSigmas", sigmas=levels, step=at)
    first = {"samples": sample(model, cond, tcd_sampler(), high, seed=SEED)}
    split = sample(model, cond, tcd_sampler(), low, first, seed=None)
    whole = sample(model, cond, tcd_sampler(), levels, seed=SEED)
    assert torch.isfinite(split).all()
    assert 0.5 < split.std() / whole.std() < 2


def test_the_same_seed_gives_the_same_bits(model, cond):
    levels, sampler = sigmas(model), tcd_sampler()
    first = sample(model, cond, sampler, levels, seed=SEED)
    assert torch.equal(first, sample(model, cond, sampler, levels, seed=SEED))
    assert not torch.equal(first, sample(model, cond, sampler, levels, seed=SEED + 1))


def test_the_global_generator_decides_nothing_and_is_left_alone(model, cond):
    levels = sigmas(model)
    first = sample(model, cond, tcd_sampler(), levels, seed=SEED)
    after = torch.get_rng_state()
    torch.manual_seed(99)
    assert torch.equal(first, sample(model, cond, tcd_sampler(), levels, seed=SEED))
    assert torch.equal(after, torch.get_rng_state())  # ComfyUI's own initial noise, and nothing after it


def test_the_noise_offset_changes_the_noise_on_the_way_alone(model, cond):
    def drawn(offset, gamma=0.3):
        return sample(model, cond, tcd_sampler(gamma, noise_offset=offset), sigmas(model), seed=SEED)

    assert far(drawn(1), drawn(0)) > 0.01
    assert torch.equal(drawn(1, gamma=0.0), drawn(0, gamma=0.0))


def test_injected_noise_is_standard_normal_and_uncorrelated_with_the_initial_noise(model, cond):
    path, _ = recorded(model, cond, batch=16)
    std = (path.s.square() - path.s_prime.square()).sqrt()[:-1]
    injected = (path.x_s - path.x_s_prime)[:-1] / std.reshape(-1, 1, 1, 1, 1)
    draws = torch.cat([initial_noise(empty(16))[None], injected]).flatten(1)
    assert draws.shape == (4, 16 * 4 * 16 * 16)
    # 16,384 numbers: a correlation has a standard deviation of 0.008
    assert (torch.corrcoef(draws) - torch.eye(4)).abs().max() < 0.03
    assert (draws.std(1) - 1).abs().max() < 0.03


def test_the_noise_of_neighbouring_pictures_and_seeds_is_uncorrelated(model):
    x = torch.zeros(2, 4, 64, 64)
    draws = [module("noise").put_back(x, x, seed, 0)(torch.tensor(2.0)) for seed in (0, 1, 2**32)]
    table = torch.corrcoef(torch.cat(draws).flatten(1))
    assert (table - torch.eye(6)).abs().max() < 0.03


@pytest.mark.parametrize("index", [[0], [2], [1, 2], [2, 0]])
def test_pictures_taken_out_of_a_batch_are_drawn_again(model, cond, index):
    levels, sampler = sigmas(model), tcd_sampler(0.5)
    every = sample(model, cond, sampler, levels, empty(3), seed=SEED)
    some = {"samples": empty(len(index))["samples"], "batch_index": index}
    assert far(every[index], sample(model, cond, sampler, levels, some, seed=SEED)) < 1e-4


def test_noise_of_another_origin_keeps_its_own_order():
    places = module("noise").places
    assert places(torch.zeros(3, 4, 8, 8), SEED) == [0, 1, 2]
    assert places(torch.ones(2, 4, 8, 8), SEED) == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_places_far_down_a_batch_are_found_also_in_half_precision(dtype):
    noise = initial_noise({"samples": torch.zeros(2, 4, 16, 16), "batch_index": [200, 81]})
    assert module("noise").places(noise.to(dtype).float(), SEED) == [200, 81]


def test_inpainting_keeps_what_is_masked_out(model, cond, masked):
    out, kept = sample(model, cond, tcd_sampler(), sigmas(model), masked), masked["samples"]
    torch.testing.assert_close(out[..., :7], kept[..., :7], rtol=0, atol=1e-6)
    assert (out[..., 9:] - kept[..., 9:]).abs().min(0).values.mean() > 0.01


@pytest.mark.parametrize("gamma", [0.0, 0.3])
@pytest.mark.parametrize("cuts", [[1], [2], [3], [1, 2], [1, 2, 3]], ids=str)
@pytest.mark.parametrize("kind", ["eps", "sd3"])
def test_inpainting_across_split_sigmas_is_the_whole(model, cond, masked, kind, gamma, cuts):
    exact, sampler = exact_model(model, kind), tcd_sampler(gamma)
    levels = sigmas(exact)
    whole = custom(exact, cond, levels, masked, True, sampler)["samples"]
    latent = masked
    for start, stop in pairwise([0, *cuts, 4]):
        latent = custom(exact, cond, levels[start : stop + 1], latent, start == 0, sampler)
    assert far(latent["samples"], whole) < 1e-4
    torch.testing.assert_close(latent["samples"][..., :7], masked["samples"][..., :7], rtol=0, atol=1e-5)


def test_inpainting_that_goes_on_from_elsewhere_says_so(model, cond, masked, caplog):
    low = sigmas(model)[2:]
    with caplog.at_level(logging.WARNING):
        custom(model, cond, low, masked, False)
    assert "not where a TCD Sampler has stopped" in caplog.text


def test_only_the_last_few_unfinished_inpaintings_are_kept(model, cond, masked):
    high = sigmas(model)[:3]
    for seed in range(6):
        custom(model, cond, high, masked, True, seed=seed)
    kept = module("masks").LAST
    assert len(kept) == 4
    assert all(tensor.device.type == "cpu" for run in kept for tensor in (run.state, run.latent_image, run.noise))


def test_a_batch_is_its_items_side_by_side(model, cond):
    levels, sampler = sigmas(model), tcd_sampler(0.4)
    both = sample(model, cond, sampler, levels, empty(3), seed=SEED)
    one = run("LatentFromBatch", samples=empty(3), batch_index=2, length=1)[0]
    assert far(both[2:], sample(model, cond, sampler, levels, one, seed=SEED)) < 1e-4


@pytest.mark.parametrize("shape", [(1, 4, 16), (2, 4, 8, 12), (1, 4, 3, 8, 8)], ids=str)
def test_latents_of_any_rank(model, shape):
    class Guider:
        def __init__(self):
            self.inner_model, self.model_patcher, self.cfg = model.model, model, 1.0

        def __call__(self, x, sigma, model_options, seed):
            return 0.5 * x / (1 + sigma.reshape(-1, *[1] * (x.ndim - 1)))

    noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        got = tcd_sampler().sample(Guider(), sigmas(model), {}, None, noise.to(dtype), torch.zeros(shape, dtype=dtype))
        assert (got.shape, got.dtype) == (shape, dtype)
        assert got.isfinite().all()


def test_the_callback_shows_clean_predictions(model, cond):
    seen = []
    (guider,) = run("BasicGuider", model=model, conditioning=cond)
    levels = sigmas(model)
    with torch.inference_mode():
        noise = initial_noise()
        out = guider.sample(
            noise,
            torch.zeros_like(noise),
            tcd_sampler(0.0),
            levels,
            callback=lambda i, x0, x, total: seen.append((i, x0.clone(), x.clone(), total)),
            disable_pbar=True,
            seed=SEED,
        )
    assert [(i, total) for i, _, _, total in seen] == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert torch.equal(seen[-1][1], out)
    for (i, x0, x, _), (_, _, after, _) in pairwise(seen):
        assert far(x0 + levels[i + 1] / levels[i] * (x - x0), after) < 1e-5


def test_no_step_leaves_the_latent_as_it_is(model, cond):
    latent = {"samples": torch.ones(1, 4, 16, 16)}
    assert torch.equal(sample(model, cond, tcd_sampler(), sigmas(model, denoise=0.0), latent), latent["samples"])


def test_a_repeated_noise_level_costs_nothing(model, cond, caplog):
    levels = sigmas(model)
    twice = levels[[0, 1, 1, 2, 3, 4]]
    with caplog.at_level(logging.WARNING):
        got = sample(model, cond, tcd_sampler(), twice, seed=SEED)
    assert torch.equal(got, sample(model, cond, tcd_sampler(), levels, seed=SEED))
    assert "1 repeated noise levels are left out" in caplog.text


def test_rising_noise_levels_are_refused(model, cond):
    with pytest.raises(ValueError, match="times must decrease down to the end"):
        sample(model, cond, tcd_sampler(), sigmas(model).flip(0))


def test_order_s_plus_needs_a_model_that_is_told_where_it_goes(model, cond):
    with pytest.raises(ValueError, match=r"order s\+ needs a model .* TCF\(S\+\) LoRA"):
        sample(model, cond, tcd_sampler(order="s+"), sigmas(model))


@pytest.mark.parametrize("order", ["1", "2"])
@pytest.mark.parametrize("evaluations", [0, 1, 3])
def test_cancel_stops_within_one_evaluation_and_leaves_the_host_clean(model, cond, order, evaluations):
    import comfy.model_management as management

    counted = exact_model(model, "eps", lambda sampling, x, sigma: press_cancel(x))
    calls = []

    def press_cancel(x):
        calls.append(1)
        if len(calls) > evaluations:
            management.interrupt_current_processing()
        return 0.5 * x

    try:
        with pytest.raises(management.InterruptProcessingException):
            sample(counted, cond, tcd_sampler(order=order), sigmas(model))
    finally:
        management.interrupt_current_processing(False)
    assert len(calls) == evaluations + 1
    assert torch.isfinite(sample(model, cond, tcd_sampler(), sigmas(model))).all()


def test_t0_leaves_a_trace_of_noise_where_the_run_ends_at_0_alone(model, cond):
    levels = sigmas(model)
    clean, trace = (sample(model, cond, tcd_sampler(last_step=end), levels, seed=SEED) for end in ("x0", "t0"))
    assert 0 < far(trace, clean) < 0.1
    part = levels[:3]
    assert torch.equal(*(sample(model, cond, tcd_sampler(last_step=end), part, seed=SEED) for end in ("x0", "t0")))


def test_t0_lands_once_where_the_noise_levels_go_down_to_it(model, cond):
    (down,) = run("TCD_Scheduler", model=model, steps=1, denoise=1.0, grid="dense", times="999, 499, 0")
    got = sample(model, cond, tcd_sampler(last_step="t0"), down, seed=SEED)
    assert torch.equal(got, sample(model, cond, tcd_sampler(last_step="t0"), down[[0, 1, 3]], seed=SEED))
    there = sample(model, cond, tcd_sampler(last_step="t0"), down[2:], {"samples": got}, seed=None)
    assert far(there, got) < 1e-3  # it was there already


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["1", "2"])
@pytest.mark.parametrize("last_step", ["x0", "t0"])
def test_every_kind_of_model_samples_a_finite_picture(model, cond, kind, order, last_step):
    made = patched(model, kind)
    for steps in (1, 4):
        out = sample(made, cond, tcd_sampler(0.3, order, last_step), sigmas(made, steps))
        assert torch.isfinite(out).all()
