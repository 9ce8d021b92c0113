"""TCD_RecordTrajectory and TCD_ViewTrajectory: what was sampled, by our sampler or any other, and how it is shown."""

import json
import re
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from host_models import patched
from host_process import empty, far, module, pack, run, sample, sigmas, stock_sampler, tcd_sampler
from PIL import Image

import tcd

pytestmark = pytest.mark.host


@pytest.fixture
def recorded(model):
    """(a model that records, its recorder)."""
    return run("TCD_RecordTrajectory", model=model)


def view(recorder, latent=None, item=0, save=False, vae=None, compare=None):
    inputs = {"trajectory": recorder, "item": item, "save": save, "vae": vae, "compare": compare}
    return run("TCD_ViewTrajectory", latent={"samples": empty()["samples"] if latent is None else latent}, **inputs)


def shown(recorder, latent=None, item=0, save=False, vae=None, compare=None):
    """What the front end is told."""
    node = pack()["TCD_ViewTrajectory"].PREPARE_CLASS_CLONE({})
    latent = {"samples": empty()["samples"] if latent is None else latent}
    with torch.inference_mode():
        (view,) = node.execute(recorder, latent, item, save, vae, compare).ui["tcd_view"]
    return json.loads(json.dumps(view))


def custom(model, cond, levels, latent, add_noise=True, seed=7, gamma=0.3):
    inputs = {"add_noise": add_noise, "noise_seed": seed, "cfg": 1.0, "positive": cond, "negative": cond}
    inputs |= {"sampler": tcd_sampler(gamma), "sigmas": levels, "latent_image": latent}
    return run("SamplerCustom", model=model, **inputs)[0]


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


def test_the_view_gives_a_plot_and_the_decoded_frames(tiny, recorded, cond, temp_folder):
    model, recorder = recorded
    out = sample(model, cond, tcd_sampler(), sigmas(model, 3), empty(2))
    plot, frames, noisy, file = view(recorder, out, item=1, vae=tiny[2])
    assert frames.shape == noisy.shape == (3, 128, 128, 3)
    assert (plot.shape[0], plot.shape[3]) == (1, 3)
    assert min(plot.shape[1:3]) > 300
    for picture in (plot, frames, noisy):
        assert picture.dtype == torch.float32
        assert 0 <= picture.min() < picture.max() <= 1
    path = recorder.trajectory()
    for pictures, states in ((frames, path.x0), (noisy, path.x_t)):
        assert torch.equal(pictures, run("VAEDecode", vae=tiny[2], samples={"samples": states[:, 1]})[0])
    loaded = tcd.Trajectory.load(file)
    assert torch.equal(loaded.x0, path.x0)


def test_without_a_vae_the_frames_are_a_preview(recorded, cond, temp_folder):
    model, recorder = recorded
    sample(model, cond, tcd_sampler(), sigmas(model, 3))
    _, frames, _, _ = view(recorder)
    assert frames.shape == (3, 16, 16, 3)
    assert 0 <= frames.min() < frames.max() <= 1


def test_a_model_that_is_cloned_after_recording_is_recorded_exactly(recorded, cond):
    """As by a LoRA loader in between. ComfyUI before 0.14 copies a model's options deeply."""
    model, recorder = recorded
    sample(model.clone().clone(), cond, tcd_sampler(), sigmas(model))
    path = recorder.trajectory()
    assert (path.s_prime[:-1] < path.s[:-1]).all()


def test_of_two_recorders_in_a_row_both_know_the_way_down(recorded, cond):
    model, first = recorded
    model, second = run("TCD_RecordTrajectory", model=model)
    sample(model, cond, tcd_sampler(), sigmas(model))
    assert torch.equal(first.trajectory().s_prime, second.trajectory().s_prime)
    assert (first.trajectory().s_prime[:-1] < first.trajectory().s[:-1]).all()


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 3])
def test_the_halves_of_split_sigmas_are_one_trajectory(model, recorded, cond, at):
    watched, recorder = recorded
    levels = sigmas(model)
    custom(watched, cond, levels[: at + 1], empty())
    first = custom(watched, cond, levels[: at + 1], empty())
    last = custom(watched, cond, levels[at:], first, add_noise=False)
    path = recorder.trajectory()
    whole_model, whole = run("TCD_RecordTrajectory", model=model)
    custom(whole_model, cond, levels, empty())
    assert len(path) == 4
    assert torch.equal(path.t, levels[:-1])
    torch.testing.assert_close(path.x0, whole.trajectory().x0, rtol=1e-4, atol=1e-4)
    assert recorder.run_of(last["samples"])[1]


def test_a_picture_sampled_anew_is_no_other_half(recorded, cond):
    model, recorder = recorded
    levels = sigmas(model)
    first = custom(model, cond, levels[:3], empty())
    custom(model, cond, levels[2:], first, add_noise=True)
    assert len(recorder.trajectory()) == 2


def test_each_latent_finds_its_own_run(recorded, cond):
    model, recorder = recorded
    drawn = [sample(model, cond, tcd_sampler(), sigmas(model), seed=seed) for seed in range(4)]
    for latent in drawn:
        run_, is_of_latent = recorder.run_of(latent)
        assert is_of_latent
        assert far(run_.trajectory().final, latent) < 1e-5
    assert recorder.run_of(torch.zeros(1, 4, 16, 16)) == (recorder.runs[-1], False)


def test_states_are_on_the_cpu_and_kept_once(recorded, cond):
    model, recorder = recorded
    sample(model, cond, tcd_sampler(), sigmas(model))
    (kept,) = recorder.runs
    one = 4 * 16 * 16 * 4
    assert kept.nbytes == (1 + 4 + 3 * 2 + 1) * one  # the start, x0 of each step, s' and s of three, the end
    assert kept.held == "0.0 MiB, all of 4 steps"


def test_beyond_its_limit_a_run_is_thinned_evenly(recorded, cond, monkeypatch):
    model, recorder = recorded
    monkeypatch.setattr(module("recorder"), "LIMIT", 40 * 4 * 16 * 16 * 4)
    out = sample(model, cond, tcd_sampler(), sigmas(model, 30))
    path, levels = recorder.trajectory(), sigmas(model, 30)
    assert recorder.runs[-1].nbytes <= module("recorder").LIMIT
    assert recorder.runs[-1].held.endswith("one in 4 of 30 steps")
    assert torch.equal(path.t, levels[[0, 4, 8, 12, 16, 20, 24, 28, 29]])
    assert torch.equal(path.x_s[:-1], path.x_t[1:])
    assert torch.equal(path.final, model.model.process_latent_in(out))
    for _ in range(3):
        sample(model, cond, tcd_sampler(), sigmas(model, 30))
    assert sum(run_.nbytes for run_ in recorder.runs) <= module("recorder").LIMIT


def test_an_interrupted_run_is_kept_as_far_as_it_came_and_the_next_starts_anew(recorded, cond):
    import comfy.model_management as management

    model, recorder = recorded
    seen = []

    def cancel(apply, args):
        seen.append(1)
        if len(seen) == 3:
            management.interrupt_current_processing()
        return apply(args["input"], args["timestep"], **args["c"])

    cancelled = model.clone()
    cancelled.set_model_unet_function_wrapper(cancel)
    with pytest.raises(management.InterruptProcessingException):
        sample(cancelled, cond, tcd_sampler(), sigmas(model))
    assert len(recorder.trajectory()) == 2
    sample(model, cond, tcd_sampler(), sigmas(model))
    assert len(recorder.trajectory()) == 4


@pytest.mark.parametrize("kind", ["eps", "v", "sd3", "edm"])
@pytest.mark.parametrize("sampler", ["tcd", "euler_ancestral"])
def test_the_reference_is_the_path_without_noise(model, cond, kind, sampler):
    made, recorder = run("TCD_RecordTrajectory", model=patched(model, kind), reference=True)
    levels = sigmas(made)
    used = tcd_sampler(0.5) if sampler == "tcd" else stock_sampler(sampler)
    got = sample(made, cond, used, levels)
    plain, still = run("TCD_RecordTrajectory", model=patched(model, kind))
    assert torch.equal(sample(plain, cond, used, levels), got)
    sample(plain, cond, tcd_sampler(0.0), levels)
    path, alone = recorder.trajectory(), still.trajectory()
    assert path.reference is not None
    assert torch.equal(path.reference, torch.cat([alone.x_t, alone.x_s[-1:]]))
    assert far(path.states, path.reference) > 0.01


@pytest.mark.parametrize("kind", ["eps", "sd3"])
def test_the_reference_goes_on_over_split_sigmas(model, cond, kind):
    made, recorder = run("TCD_RecordTrajectory", model=patched(model, kind), reference=True)
    whole, alone = run("TCD_RecordTrajectory", model=patched(model, kind), reference=True)
    levels = sigmas(made)
    custom(made, cond, levels[2:], custom(made, cond, levels[:3], empty()), add_noise=False)
    custom(whole, cond, levels, empty())
    assert far(torch.stack(recorder.runs[-1].reference[:3]), alone.trajectory().reference[:3]) < 1e-4
    assert far(recorder.runs[-1].reference[-1], alone.trajectory().reference[-1]) < 1e-3


# --- what is shown ----------------------------------------------------------------------------------------------------


def files_of(view):
    """(name, whether it is there) of every file that a view speaks of."""
    found = Counter()

    def walk(value):
        if isinstance(value, dict) and "filename" in value:
            found[value["filename"]] += 1
        elif isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                walk(part)

    walk(view)
    return found


def test_the_front_end_is_told_every_step_of_every_picture(tiny, model, cond, temp_folder):
    watched, recorder = run("TCD_RecordTrajectory", model=model, reference=True)
    out = sample(watched, cond, tcd_sampler(), sigmas(model), empty(3))
    told, path = shown(recorder, out, vae=tiny[2]), recorder.trajectory()
    assert (told["steps"], told["unit"], told["message"]) == (4, "sigma", "")
    (run_,) = told["runs"]
    for key in ("t", "s_prime", "s"):
        assert run_[key] == pytest.approx(getattr(path, key).tolist())
    assert len(run_["items"]) == 3
    for item in run_["items"]:
        assert len(item["x0"]) == len(item["x_t"]) == 4
        assert len(item["plane"]["path"]) == len(item["plane"]["reference"]) == 5
        assert item["measures"]["drift"][0] is None
        assert [len(item["measures"][name]) for name in ("drift", "distance", "detail")] == [4, 5, 4]
    files = files_of(told)
    assert set(files.values()) == {1}
    assert all((temp_folder / name).stat().st_size > 0 for name in files)
    assert len(files) == 3 * 2 * 4 + 3


def test_two_trajectories_are_shown_side_by_side(tiny, model, cond, temp_folder):
    (one, first), (two, second) = (run("TCD_RecordTrajectory", model=model) for _ in range(2))
    out = sample(one, cond, tcd_sampler(), sigmas(model))
    sample(two, cond, stock_sampler("euler"), sigmas(model, 6), empty(2))
    told = shown(first, out, vae=tiny[2], compare=second)
    assert [(run_["name"], len(run_["t"]), len(run_["items"])) for run_ in told["runs"]] == [
        ("trajectory", 4, 1),
        ("compare", 6, 2),
    ]


def test_of_very_many_states_only_the_chosen_picture_is_decoded(tiny, recorded, cond, temp_folder, monkeypatch):
    model, recorder = recorded
    monkeypatch.setattr(module("view"), "DECODED", 10)
    out = sample(model, cond, tcd_sampler(), sigmas(model), empty(3))
    told = shown(recorder, out, item=1, vae=tiny[2])
    sizes = []
    for item in told["runs"][0]["items"]:
        with Image.open(temp_folder / item["x0"][0]["filename"]) as image:
            sizes.append(image.size)
    assert sizes == [(16, 16), (128, 128), (16, 16)]


def test_saved_views_go_to_the_output_folder_and_overwrite_nothing(recorded, cond, temp_folder, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    model, recorder = recorded
    sample(model, cond, tcd_sampler(), sigmas(model))
    names = [view(recorder, save=True)[3] for _ in range(2)]
    assert len(set(names)) == 2
    assert all(tcd.Trajectory.load(name).unit == "sigma" for name in names)
    assert {file.suffix for file in (tmp_path / "output" / "trajectory").iterdir()} == {
        ".json", ".png", ".safetensors", ".webp"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("channels", "message"),
    [(None, "No VAE is connected"), (16, r"The VAE is of another model \(16 channels, not 4\)")],
)
def test_a_vae_that_is_missing_or_of_another_model_is_said_in_the_node(recorded, cond, temp_folder, channels, message):
    model, recorder = recorded
    out = sample(model, cond, tcd_sampler(), sigmas(model))
    vae = None if channels is None else SimpleNamespace(latent_channels=channels)
    assert re.match(message, shown(recorder, out, vae=vae)["message"])


def test_a_latent_of_another_run_is_said_in_the_node(tiny, recorded, cond, temp_folder):
    model, recorder = recorded
    sample(model, cond, tcd_sampler(), sigmas(model))
    assert "not where this trajectory ended" in shown(recorder, torch.ones(1, 4, 16, 16), vae=tiny[2])["message"]


def test_states_of_a_video_show_their_first_frame():
    painter = module("view").Painter(SimpleNamespace(latent_rgb_factors=None))
    assert painter.paint(torch.randn(3, 4, 5, 6, 7)).shape == (3, 6, 7, 3)


def test_another_trajectory_that_was_not_sampled_yet_is_named(tiny, model, cond, temp_folder):
    (one, first), (_, second) = (run("TCD_RecordTrajectory", model=model) for _ in range(2))
    out = sample(one, cond, tcd_sampler(), sigmas(model))
    with pytest.raises(ValueError, match=r"compare: the trajectory is empty: .* before this node runs; TCD KSampler"):
        shown(first, out, vae=tiny[2], compare=second)


def test_two_recording_nodes_with_the_same_inputs_are_two():
    assert pack()["TCD_RecordTrajectory"].GET_SCHEMA().not_idempotent
