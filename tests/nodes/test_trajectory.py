"""TCD_RecordTrajectory and TCD_ViewTrajectory: what was sampled, by our sampler or any other, and how it is shown."""

import pytest
import torch
from host_process import empty, far, module, run, sample, sigmas, stock_sampler, tcd_sampler

pytestmark = pytest.mark.host


@pytest.fixture
def recorded(model):
    """(a model that records, its recorder)."""
    return run("TCD_RecordTrajectory", model=model)


def view(recorder, item=0, vae=None):
    return run("TCD_ViewTrajectory", trajectory=recorder, latent=empty(), item=item, vae=vae)


def test_our_sampler_is_recorded_exactly(recorded, cond):
    model, recorder = recorded
    out = sample(model, cond, tcd_sampler(gamma=0.3), sigmas(model), empty(2))
    path = recorder.trajectory()
    levels, sampling = sigmas(model), model.get_model_object("model_sampling")
    assert path.unit == "sigma"
    assert torch.equal(path.t, levels[:-1])
    assert torch.equal(path.s, levels[1:])
    assert torch.equal(path.s_prime[:-1], sampling.sigmas[[531, 349, 181]])
    assert path.s_prime[-1] == 0
    assert torch.equal(path.x_s[:-1], path.x_t[1:])
    assert torch.equal(path.final, out)
    assert path.x0.shape == (4, 2, 4, 16, 16)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_ancestral"])
def test_any_sampler_is_recorded_in_order(recorded, cond, sampler):
    model, recorder = recorded
    out = sample(model, cond, stock_sampler(sampler), sigmas(model, 5))
    path = recorder.trajectory()
    assert torch.equal(path.t, sigmas(model, 5)[:-1])
    assert torch.equal(path.s, sigmas(model, 5)[1:])
    assert torch.equal(path.x_s[:-1], path.x_t[1:])
    assert far(path.final, out) < 1e-6


def test_a_stock_ksampler_is_recorded(recorded, cond):
    model, recorder = recorded
    run(
        "KSampler", model=model, seed=1, steps=3, cfg=4.0, sampler_name="euler", scheduler="normal",
        positive=cond, negative=cond, latent_image=empty(), denoise=1.0,
    )  # fmt: skip
    assert len(recorder.trajectory()) == 3


def test_recording_does_not_change_the_sample(model, recorded, cond):
    plain = sample(model, cond, tcd_sampler(), sigmas(model))
    assert torch.equal(sample(recorded[0], cond, tcd_sampler(), sigmas(model)), plain)


def test_every_run_starts_anew(recorded, cond):
    model, recorder = recorded
    sample(model, cond, stock_sampler("euler"), sigmas(model, 8))
    sample(model, cond, tcd_sampler(), sigmas(model, 2))
    assert len(recorder.trajectory()) == 2
    sample(model, cond, stock_sampler("euler"), sigmas(model, 3))
    path = recorder.trajectory()
    assert len(path) == 3
    assert torch.equal(path.s_prime, path.s)


def test_two_recorders_do_not_share_anything(model, recorded, cond):
    _, other = run("TCD_RecordTrajectory", model=model)
    sample(recorded[0], cond, tcd_sampler(), sigmas(model))
    assert len(recorded[1].trajectory()) == 4
    with pytest.raises(ValueError, match="the trajectory is empty"):
        other.trajectory()


def test_of_two_recorders_in_a_row_both_record(recorded, cond):
    model, first = recorded
    model, second = run("TCD_RecordTrajectory", model=model)
    sample(model, cond, tcd_sampler(), sigmas(model))
    assert len(second.trajectory()) == len(first.trajectory()) == 4


def test_the_model_that_came_in_is_left_as_it_was(model, recorded):
    assert recorded[0] is not model
    assert module("recorder").RECORDER not in model.model_options["transformer_options"]
    assert not any(model.wrappers.values())


def test_viewing_before_sampling_says_what_to_do(recorded):
    with pytest.raises(ValueError, match="empty: sample with the MODEL that TCD_RecordTrajectory gives"):
        view(recorded[1])


def test_an_item_beyond_the_batch_is_refused(recorded, cond, temp_folder):
    model, recorder = recorded
    sample(model, cond, tcd_sampler(), sigmas(model), empty(2))
    view(recorder, item=1)
    with pytest.raises(ValueError, match="item must be below the batch size 2, got 2"):
        view(recorder, item=2)


def test_the_view_shows_a_plot_and_the_decoded_frames(tiny, recorded, cond, temp_folder):
    model, recorder = recorded
    sample(model, cond, tcd_sampler(), sigmas(model, 3), empty(2))
    plot, frames = view(recorder, item=1, vae=tiny[2])
    assert frames.shape == (3, 128, 128, 3)
    assert plot.shape[0] == 1
    assert plot.shape[3] == 3
    assert min(plot.shape[1:3]) > 300
    for picture in (plot, frames):
        assert picture.dtype == torch.float32
        assert 0 <= picture.min() < picture.max() <= 1
    (decoded,) = run("VAEDecode", vae=tiny[2], samples={"samples": recorder.trajectory().x0[:, 1]})
    assert torch.equal(frames, decoded)
    assert len(list(temp_folder.glob("*.png"))) == 1  # what the front end shows in the node


def test_without_a_vae_the_frames_are_a_preview(recorded, cond, temp_folder):
    model, recorder = recorded
    sample(model, cond, tcd_sampler(), sigmas(model, 3))
    _, frames = view(recorder)
    assert frames.shape == (3, 16, 16, 3)
    assert 0 <= frames.min() < frames.max() <= 1


def test_a_model_that_is_cloned_after_recording_is_recorded_exactly(recorded, cond):
    """As by a LoRA loader in between. ComfyUI before 0.14 copies a model's options deeply."""
    model, recorder = recorded
    sample(model.clone().clone(), cond, tcd_sampler(), sigmas(model))
    path = recorder.trajectory()
    assert (path.s_prime[:-1] < path.s[:-1]).all()
