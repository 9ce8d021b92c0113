"""TCD_Compare: every cell is what the nodes that it stands for give, counted and timed, on a sheet that can be read."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from host_models import KINDS, patched
from host_process import empty, module, pack, run, sigmas, stock_sampler, tcd_sampler

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("temp_folder")]

SEED = 7
ALL = "tcd, lcm, ddim, euler, dpmpp_2s, dpmpp_2m"


@pytest.fixture
def compare(model, tiny, cond):
    """The node on the tiny model: (sheet, pictures, report)."""
    node = importlib.import_module(module("sampling").__name__.replace("sampling", "compare")).Compare
    pack().setdefault("TCD_Compare", node)

    def made(**named):
        inputs = {"model": model, "vae": tiny[2], "positive": cond, "latent": empty(), "seed": SEED, "methods": "tcd"}
        inputs |= {"steps": "2", "gammas": "0.3", "order": "1", "equal_evaluations": False, "cfg": 4.0}
        return run("TCD_Compare", **inputs | named)

    return made


@pytest.fixture(scope="session")
def negative(tiny):
    return run("CLIPTextEncode", clip=tiny[1], text="")[0]


@pytest.fixture
def asked(model):
    return watched(model)


def watched(model):
    """(a clone of the model, the sizes of the batches that its network was given, one for each call)."""
    calls = []

    def counted(executor, x, *rest, **named):
        calls.append(len(x))
        return executor(x, *rest, **named)

    made = model.clone()
    made.add_wrapper_with_key("apply_model", "test", counted)
    return made, calls


@pytest.fixture(scope="session")
def lcm_model(tiny):
    """The tiny model with its LCM LoRA."""
    return run("TCD_LoraLoader", model=tiny[0], lora="lcm_tiny_lora.safetensors", strength=1.0)[0]


def table(report):
    """The lines of a report, each (method, gamma, steps, evaluations), without seconds, total and remarks."""
    lines = [line.rsplit(maxsplit=4) for line in report.splitlines()]
    end = next(i for i, line in enumerate(lines) if line[0] == "total")
    return [(line[0].strip(), *line[1:4]) for line in lines[1:end]]


def guided(model, cond, sampler, levels, negative, cfg):
    inputs = {"add_noise": True, "noise_seed": SEED, "cfg": cfg, "positive": cond, "negative": negative}
    return run("SamplerCustom", model=model, sampler=sampler, sigmas=levels, latent_image=empty(), **inputs)[0]


def alone(model, cond, vae, sampler, levels, latent=None):
    """The pictures of separate nodes."""
    (noise,) = run("RandomNoise", noise_seed=SEED)
    (guider,) = run("BasicGuider", model=model, conditioning=cond)
    inputs = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": levels}
    out, _ = run("SamplerCustomAdvanced", latent_image=latent or empty(), **inputs)
    return run("VAEDecode", samples=out, vae=vae)[0]


def host_levels(model, scheduler, steps):
    return run("BasicScheduler", model=model, scheduler=scheduler, steps=steps, denoise=1.0)[0]


@pytest.mark.parametrize("order", ["1", "2"])
def test_cells_of_tcd_are_what_its_nodes_give(compare, model, cond, tiny, order):
    _, pictures, _ = compare(methods="tcd, lcm", gammas="0, 0.6", steps="1, 3", order=order, latent=empty(2))
    rows = []
    for gamma, of in ((0.0, order), (0.6, order), (1.0, "1")):
        sampler = tcd_sampler(gamma, of)
        one, three = (alone(model, cond, tiny[2], sampler, sigmas(model, steps), empty(2)) for steps in (1, 3))
        rows += [one[:1], three[:1], one[1:], three[1:]]
    assert torch.equal(pictures, torch.cat(rows))


@pytest.mark.parametrize(
    ("method", "sampler", "scheduler"),
    [("euler", "euler", "simple"), ("ddim", "ddim", "ddim_uniform"), ("dpmpp_2m", "dpmpp_2m", "simple")],
)
def test_cells_of_solvers_are_what_comfyui_gives(compare, model, cond, tiny, method, sampler, scheduler):
    _, pictures, _ = compare(methods=method, steps="2, 4")
    wanted = [
        alone(model, cond, tiny[2], stock_sampler(sampler), host_levels(model, scheduler, steps)) for steps in (2, 4)
    ]
    assert torch.equal(pictures, torch.cat(wanted))


def test_dpmpp_2s_is_comfyuis_without_noise(compare, model, cond, tiny):
    _, pictures, _ = compare(methods="dpmpp_2s", steps="4")
    (sampler,) = run("SamplerDPMPP_2S_Ancestral", eta=0.0, s_noise=1.0)
    assert torch.equal(pictures, alone(model, cond, tiny[2], sampler, host_levels(model, "simple", 4)))


def test_solvers_run_on_the_teacher_with_its_guidance(compare, asked, model, cond, negative, tiny):
    _, pictures, report = compare(model=asked[0], teacher=model, negative=negative, methods="tcd, euler", steps="3")
    assert table(report) == [("TCD", "0.3", "3", "3"), ("Euler teacher cfg 4", "-", "3", "6")]
    out = guided(model, cond, stock_sampler("euler"), host_levels(model, "simple", 3), negative, 4.0)
    assert torch.equal(pictures[1:], run("VAEDecode", samples=out, vae=tiny[2])[0])


def test_a_teacher_at_cfg_1_needs_no_negative(compare, asked, model):
    _, _, report = compare(model=asked[0], teacher=model, methods="euler", cfg=1.0)
    assert table(report) == [("Euler teacher", "-", "2", "2")]


def test_lcm_runs_on_a_model_of_its_own_without_guidance(compare, asked, lcm_model, negative, model, cond, tiny):
    (student, calls), (lcm, own_calls) = asked, watched(lcm_model)
    named = {"lcm_model": lcm, "teacher": model, "negative": negative, "methods": "lcm, tcd", "order": "2"}
    _, pictures, report = compare(model=student, steps="3", latent=empty(2), **named)
    assert table(report) == [("LCM LoRA", "1", "3", "3"), ("TCD order 2", "0.3", "3", "6")]
    assert (own_calls, calls) == ([2] * (1 + 3), [2] * (2 + 6))  # one step of each warms up
    wanted = alone(lcm_model, cond, tiny[2], tcd_sampler(1.0), sigmas(model, 3), empty(2))
    assert torch.equal(pictures[:2], wanted)
    assert not torch.equal(wanted, alone(model, cond, tiny[2], tcd_sampler(1.0), sigmas(model, 3), empty(2)))


@pytest.mark.parametrize("same", [False, True])
def test_lcm_is_of_the_model_where_it_has_no_other(compare, asked, same):
    made, calls = asked
    _, _, report = compare(model=made, methods="lcm", lcm_model=made if same else None)
    assert table(report) == [("LCM", "1", "2", "2")]
    assert len(calls) == 1 + 2


def test_a_model_of_lcm_s_is_not_asked_without_its_method(compare, asked):
    made, calls = asked
    assert table(compare(lcm_model=made, methods="tcd, euler")[2]) == [
        ("TCD", "0.3", "2", "2"),
        ("Euler", "-", "2", "2"),
    ]
    assert not calls


@pytest.mark.parametrize("order", ["1", "2"])
def test_evaluations_are_what_each_method_takes(compare, order):
    _, pictures, report = compare(methods=ALL, steps="1, 4", order=order, latent=empty(2))
    wanted = {
        **{method: [1, 4] for method in ("LCM", "DDIM", "Euler", "DPM++ 2M")},
        "TCD" if order == "1" else "TCD order 2": [1, 4] if order == "1" else [2, 8],
        "DPM++ 2S": [1, 7],  # the last step takes one
    }
    taken = {}
    for method, _, _, evaluations in table(report):
        taken.setdefault(method, []).append(int(evaluations))
    assert taken == wanted
    assert report.splitlines()[-1].split()[:2] == ["total", str(sum(map(sum, wanted.values())))]
    assert len(pictures) == 6 * 2 * 2


def test_evaluations_are_counted_where_the_network_is(compare, asked):
    made, calls = asked
    _, _, report = compare(model=made, methods="tcd, dpmpp_2s", steps="3", latent=empty(2))
    first, second = (int(line[3]) for line in table(report))
    assert calls == [2] * (1 + first + second)  # one step warms up


def test_prompts_in_one_batch_count_one_each(compare, asked, model, cond, negative):
    made, calls = asked
    _, _, report = compare(model=model, teacher=made, negative=negative, methods="euler", steps="2")
    assert table(report) == [("Euler teacher cfg 4", "-", "2", "4")]
    assert sum(calls) == 2 + 4


def test_at_equal_evaluations_steps_follow_from_the_cost(compare, asked, model, negative):
    named = {"methods": ALL, "steps": "1, 4, 9", "order": "2", "equal_evaluations": True}
    sheet, pictures, report = compare(model=asked[0], teacher=model, negative=negative, **named)
    assert [line[2:] for line in table(report)] == [
        *(("-", "-"), ("2", "4"), ("4", "8")),  # TCD, order 2
        *(("1", "1"), ("4", "4"), ("9", "9")),  # LCM
        *(("-", "-"), ("2", "4"), ("4", "8")),  # DDIM, guided
        *(("-", "-"), ("2", "4"), ("4", "8")),  # Euler
        *(("-", "-"), ("1", "2"), ("2", "6")),  # DPM++ 2S
        *(("-", "-"), ("2", "4"), ("4", "8")),  # DPM++ 2M
    ]
    assert "TCD gamma 0.3 order 2: a step takes 2 evaluations" in report
    assert len(pictures) == 6 * 3 - 5
    assert sheet.shape[0] == 1


def test_what_a_method_cannot_do_is_empty_at_equal_evaluations_alone(compare):
    _, pictures, report = compare(methods="tcd, ddim, euler", steps="6, 60", equal_evaluations=True)
    assert [line[2] for line in table(report)] == ["6", "-", "-", "-", "6", "60"]
    assert "DDIM: steps cannot be 6 with ComfyUI's scheduler ddim_uniform, which gives 7" in report
    assert "TCD gamma 0.3: steps must be at most 50 for tcd and lcm" in report
    assert len(pictures) == 3


def test_the_same_seed_gives_the_same_pictures(compare):
    first, again, other = (compare(methods=ALL, steps="2", seed=seed)[1] for seed in (SEED, SEED, 8))
    assert torch.equal(first, again)
    assert not any(torch.equal(*pair) for pair in zip(first, other, strict=True))


def test_rows_columns_and_gammas_are_each_there_once(compare):
    _, pictures, report = compare(methods="TCD\ntcd; lcm", gammas="0.3 0.3, 0", steps="2,2 3")
    wanted = [("TCD", "0.3"), ("TCD", "0"), ("LCM", "1")]
    assert [line[:3] for line in table(report)] == [(*row, steps) for row in wanted for steps in "23"]
    assert len(pictures) == 6


def test_gammas_are_only_read_for_tcd(compare):
    assert len(compare(methods="euler", gammas="none")[1]) == 1


def test_time_is_that_of_sampling_alone(compare, model, tiny, monkeypatch):
    """By a clock that only the network, the VAE and loading move."""
    clock = SimpleNamespace(now=0.0, first=True)
    monkeypatch.setattr(module("compare"), "perf_counter", lambda: clock.now)

    def net(executor, *rest, **named):
        clock.now += 60.0 if clock.first else 0.5
        clock.first = False
        return executor(*rest, **named)

    def load(executor, *rest, **named):
        clock.now += 100.0
        return executor(*rest, **named)

    def decode(samples):
        clock.now += 1000.0
        return tiny[2].decode(samples)

    slow = model.clone()
    slow.add_wrapper_with_key("apply_model", "test", net)
    slow.add_wrapper_with_key("outer_sample", "test", load)
    vae = SimpleNamespace(decode=decode, latent_channels=4)
    _, _, report = compare(model=slow, vae=vae, steps="2, 4", methods="tcd, dpmpp_2s")
    seconds = [line.rsplit(maxsplit=1)[1] for line in report.splitlines()[1:]]
    assert seconds == ["1.00", "2.00", "1.50", "3.50", "8.00"]


def test_progress_goes_over_all_evaluations(compare, monkeypatch):
    import comfy.utils

    seen = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **named: seen.append((value, total))
    )
    compare(methods="tcd, euler, dpmpp_2s", steps="2, 4", order="2")
    values, totals = zip(*seen, strict=True)
    assert set(totals) == {2 + (4 + 8) + (2 + 4) + (3 + 7)}
    assert list(values) == sorted(values)
    assert values[-1] == totals[-1]


def test_previews_are_those_of_the_host(compare, monkeypatch):
    import comfy.utils
    import latent_preview

    previews = []
    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **named: previews.append(preview)
    )
    compare()
    assert [preview[1].size for preview in previews] == [(16, 16)] * 3


@pytest.mark.parametrize(("method", "evaluations"), [("tcd", 0), ("tcd", 4), ("euler", 2), ("dpmpp_2s", 3)])
def test_cancel_stops_within_one_evaluation_and_leaves_the_host_clean(compare, model, method, evaluations):
    import comfy.model_management as management

    calls = []

    def pressed(executor, *rest, **named):
        calls.append(1)
        if len(calls) == evaluations + 1:
            management.interrupt_current_processing()
        return executor(*rest, **named)

    stopped = model.clone()
    stopped.add_wrapper_with_key("apply_model", "test", pressed)
    try:
        with pytest.raises(management.InterruptProcessingException):
            compare(model=stopped, methods=method, steps="2, 4", order="2")
    finally:
        management.interrupt_current_processing(False)
    assert len(calls) == evaluations + 1
    assert torch.equal(compare(model=stopped, methods=method)[1], compare(methods=method)[1])


def test_the_models_are_left_as_they_were(compare, model):
    wrappers = str(model.model_options)
    compare(methods=ALL)
    assert str(model.model_options) == wrappers


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_compared(compare, model, kind):
    _, pictures, report = compare(model=patched(model, kind), methods=ALL, steps="2")
    assert torch.isfinite(pictures).all()
    assert [int(line[3]) for line in table(report)] == [2, 2, 2, 2, 3, 2]


def test_of_a_video_the_first_picture_is_shown(compare):
    decoded = module("compare").decoded
    video = torch.rand(2, 5, 8, 8, 3)
    assert torch.equal(decoded(SimpleNamespace(decode=lambda x: video), torch.zeros(1)), video[:, 0])


BAD = [
    ({"methods": "tcd, plms"}, r"methods must be one of tcd, lcm, ddim, euler, dpmpp_2s, dpmpp_2m; got 'plms'"),
    ({"methods": " , "}, r"methods must be one of .*; got ''"),
    ({"steps": ""}, r"steps must be whole numbers from 1 to 1000, such as 2, 4, 8; got ''"),
    ({"steps": "4, 0"}, r"steps must be whole numbers.*got '0'"),
    ({"steps": "4.5"}, r"steps must be whole numbers.*got '4\.5'"),
    ({"steps": "-4"}, r"steps must be whole numbers.*got '-4'"),
    ({"steps": "1001"}, r"steps must be whole numbers.*got '1001'"),
    ({"steps": "four"}, r"steps must be whole numbers.*got 'four'"),
    ({"steps": "4, 51"}, r"steps must be at most 50 for tcd and lcm.*got 51"),
    (
        {"steps": "6", "methods": "tcd, ddim"},
        r"steps cannot be 6 with .* ddim_uniform, which gives 7: take other steps",
    ),
    ({"gammas": ""}, r"gammas must be numbers in \[0, 1\], such as 0, 0\.3, 1; got ''"),
    ({"gammas": "0.3, x"}, r"gammas: values must be numbers in \[0, 1\].*got 'x'"),
    ({"gammas": "0.3, 1.7"}, r"gammas: values must be numbers in \[0, 1\].*got '1\.7'"),
    ({"gammas": "nan"}, r"gammas: values must be numbers in \[0, 1\].*got 'nan'"),
    ({"order": "3"}, r"order must be one of 1, 2, s\+; got '3'"),
    ({"order": "s+", "methods": "euler, tcd"}, r"order s\+ needs a model .* TCF\(S\+\) LoRA"),
    ({"order": "2", "steps": "1", "equal_evaluations": True}, "no method can do with 1 evaluation: a step takes 2"),
    (
        {"steps": ",".join(map(str, range(1, 51))), "methods": "tcd lcm euler dpmpp_2m dpmpp_2s"},
        "5 rows x 50 columns x",
    ),
    (
        {"latent": {"samples": torch.zeros(201, 4, 16, 16)}},
        r"at most 200 pictures, got 1 rows x 1 columns x 201 of the",
    ),
    ({"latent": {"samples": torch.ones(1, 16, 16, 16)}}, "latent must have the model's 4 latent channels, got 16"),
    ({"vae": SimpleNamespace(latent_channels=16)}, "vae must have the model's 4 latent channels, got 16"),
]


@pytest.mark.parametrize(("named", "message"), BAD)
def test_bad_input_is_named_before_anything_is_sampled(compare, asked, named, message):
    made, calls = asked
    with pytest.raises(ValueError, match=message):
        compare(model=made, **named)
    assert not calls


def test_guidance_without_a_negative_is_refused(compare, asked, model):
    with pytest.raises(ValueError, match="the teacher's cfg is 4: connect a negative prompt, or set cfg to 1"):
        compare(model=asked[0], teacher=model)


@pytest.mark.parametrize("which", ["teacher", "lcm_model"])
def test_a_second_model_of_another_latent_format_is_refused(compare, asked, which):
    made, calls = asked
    other = SimpleNamespace(get_model_object=lambda name: SimpleNamespace(latent_channels=16))
    with pytest.raises(ValueError, match=f"{which} must have the model's 4 latent channels, got 16"):
        compare(model=made, **{which: other})
    assert not calls


@pytest.mark.parametrize(("which", "method"), [("model", "tcd"), ("lcm_model", "lcm")])
def test_a_model_that_tcd_does_not_know_is_refused_for_tcd_and_lcm_alone(compare, model, which, method):
    class Odd(type(model.get_model_object("model_sampling")).__bases__[1], torch.nn.Module):
        pass

    odd = model.clone()
    odd.add_object_patch("model_sampling", Odd())
    with pytest.raises(ValueError, match="TCD sampling does not know models of the kind"):
        compare(methods=f"euler, {method}", **{which: odd})


def strips(count, columns, height=256, width=256):
    sheet = importlib.import_module(module("sampling").__name__.replace("sampling", "sheet"))
    tile = sheet.Tile(torch.rand(height, width, 3), ["20 evaluations", "0.31 s"])
    return sheet, [sheet.Strip(("DPM++ 2S", "teacher", "cfg 7.5"), [tile] * columns)] * count


def test_pictures_are_on_the_sheet_pixel_by_pixel_where_there_is_room():
    sheet, rows = strips(2, 3)
    drawn, layout = sheet.draw(["4 steps"] * 3, rows), sheet.Layout(["4 steps"] * 3, rows)
    for row, strip in enumerate(rows):
        for column, tile in enumerate(strip.tiles):
            x, y = layout.place(column, row)
            torch.testing.assert_close(drawn[y : y + 256, x : x + 256], tile.picture, rtol=0, atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (6, 4), (1, 200), (200, 1), (14, 14)])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (1536, 640), (640, 1536)])
def test_a_sheet_of_any_size_stays_below_its_longest_side(rows, columns, height, width):
    sheet, made = strips(rows, columns, height, width)
    layout = sheet.Layout(["20 evaluations"] * columns, made)
    assert max(layout.size) <= 2400
    assert all(0 <= at < size for at, size in zip(layout.place(columns - 1, rows - 1), layout.size, strict=True))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 200), (200, 1)])
def test_a_sheet_is_drawn_in_the_size_of_its_layout(rows, columns):
    sheet, made = strips(rows, columns, 32, 48)
    headings = ["8 steps"] * columns
    drawn = sheet.draw(headings, made)
    assert drawn.shape == (*sheet.Layout(headings, made).size[::-1], 3)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) == 1


def test_an_empty_cell_has_a_dash():
    sheet, rows = strips(1, 1)
    full, gap = rows[0].tiles[0], sheet.Tile()
    drawn = sheet.draw(["1", "2"], [sheet.Strip(("TCD",), [full, gap])])
    x, y = sheet.Layout(["1", "2"], [sheet.Strip(("TCD",), [full, gap])]).place(1, 0)
    inside = drawn[y : y + 256, x : x + 256]
    assert 0 < (inside < 0.9).float().mean() < 0.01
    assert (inside[:100] == 1).all()


def test_letters_are_large_enough_to_be_read_in_a_node():
    sheet, rows = strips(6, 4, 1024, 1024)
    layout = sheet.Layout(["20 steps"] * 4, rows)
    assert layout.letters().size * 500 / layout.size[0] > 9
