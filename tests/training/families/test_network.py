"""The network as the trainer calls it against ComfyUI's own `apply_model`, for small models of every family."""

import copy

import host_process
import pytest
import small_models
import torch
from host_process import far

import tcd
from training import host
from training.host import Cond, Network, Size

pytestmark = [pytest.mark.host, pytest.mark.slow]

FAMILIES = tuple(small_models.FAMILIES)
CAPTIONS = ("a cat", "", "a very long caption of a red cat on a mat, which it likes")
SIZES = (Size(64, 80, 0, 0, 64, 80), Size(640, 480, 8, 0, 64, 80), Size(64, 80, 0, 16, 64, 80))
STEPS = {"v_zsnr": 999.0}  # of the noisiest sample; eps says nothing of x0 there
GUIDANCE = 2.5


def models_of(family: str, dtype: torch.dtype = torch.float32) -> host.Models:
    host_process.pack()
    return host.load(host_process.ROOT / "none", f"small_models:{family}", dtype)


def drawn(models: host.Models, count: int = 3, last: float = 900.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(x, t) of `count` samples, from nearly clean data to much noise."""
    channels = models.model.model.latent_format.latent_channels
    x = torch.randn(count, channels, 10, 8, generator=torch.Generator().manual_seed(0))
    return x, models.sched.time_at(torch.linspace(5, last, count).round())


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_what_comfyui_gives_for_each_sample(family, dtype, within):
    models = models_of(family, dtype)
    assert {parameter.dtype for parameter in models.unet.parameters()} == {dtype}
    conds, (x, t) = [host.encode_text(models, text) for text in CAPTIONS], drawn(models, last=STEPS.get(family, 900.0))
    network = Network(models, GUIDANCE)

    def net(x, t):
        return network(x, t, conds, SIZES)

    with torch.no_grad():
        found = tcd.as_x0(net, models.sched, models.kind)(x, t)
    assert found.dtype == torch.float32
    for i, (cond, size) in enumerate(zip(conds, SIZES, strict=True)):
        wanted = small_models.clean(models, x[i : i + 1], t[i : i + 1], cond, size, GUIDANCE)
        assert far(found[i : i + 1], wanted) < within


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_and_what_else_the_network_is_told_matter(family):
    models = models_of(family)
    cond, (x, t) = host.encode_text(models, "a cat"), drawn(models, 1, last=500.0)

    def output(cond: Cond = cond, size: Size = SIZES[0], guidance: float = GUIDANCE) -> torch.Tensor:
        with torch.no_grad():
            return Network(models, guidance)(x, t, [cond], [size])

    assert far(output(host.encode_text(models, "a dog")), output()) > 1e-3
    assert far(output(cond.zeros()), output()) > 1e-3
    changed = {"size": not torch.equal(output(size=SIZES[1]), output())}
    changed["guidance"] = not torch.equal(output(guidance=5.0), output())
    assert changed == {"size": family == "sdxl", "guidance": family == "flux"}


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_go_through_captions_of_different_lengths(family):
    models = models_of(family)
    conds, (x, t) = [host.encode_text(models, text) for text in CAPTIONS], drawn(models)
    x.requires_grad_()
    Network(models)(x, t, conds, SIZES).square().sum().backward()
    assert x.grad is not None
    assert bool((x.grad.flatten(1).abs().sum(1) > 0).all())


def test_what_samples_share_is_made_once(monkeypatch):
    models = models_of("sdxl")
    cond, (x, t) = host.encode_text(models, ""), drawn(models, 4)
    sizes, made = [], models.model.model.extra_conds
    monkeypatch.setattr(models.model.model, "extra_conds", lambda **kw: sizes.append(kw["crop_w"]) or made(**kw))
    with torch.no_grad():
        Network(models)(x, t, [cond] * 4, [SIZES[0], SIZES[1]] * 2)
    assert sizes == [SIZES[0].crop_w, SIZES[1].crop_w]


class Recorder(torch.nn.Module):
    """A network that notes what it is told."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
        self.calls = []

    def forward(self, x, t, **named):
        self.calls.append((x, t, named))
        return x * len(self.calls)


def test_every_kind_of_input_is_joined_as_comfyui_joins_it(monkeypatch):
    models, seen = models_of("sd3"), Recorder()
    import comfy.conds as known

    def told(device, noise, cross_attn, crop_h, **_):
        return {
            "c_crossattn": known.CONDRegular(cross_attn),
            "pictures": known.CONDList([cross_attn, 2 * cross_attn]),
            "number": known.CONDConstant(crop_h),
            "mask": known.CONDRegular(torch.ones(1, 3, dtype=torch.bool)),
            "ids": known.CONDRegular(torch.full((1, 2), crop_h)),
        }

    monkeypatch.setattr(models.model.model, "extra_conds", told)
    conds = [Cond(torch.full((1, 3, 4), float(i))) for i in range(3)]
    x, t = drawn(models)
    out = Network(models, unet=seen)(x, t, conds, [SIZES[0], SIZES[2], SIZES[0]])
    assert out.dtype == torch.float32
    assert torch.equal(out, x.bfloat16().float() * torch.tensor([1.0, 2.0, 1.0])[:, None, None, None])
    (_, times, first), (_, _, second) = seen.calls
    assert torch.equal(times, 1000 * models.sched.sigma(t[[0, 2]]))
    assert times.dtype == torch.float32
    assert (first["number"], second["number"]) == (0, 16)
    assert first["context"][:, 0, 0].tolist() == [0, 2]
    assert [picture[:, 0, 0].tolist() for picture in first["pictures"]] == [[0, 2], [0, 4]]
    assert {first[name].dtype for name in ("context", "mask")} == {
        torch.bfloat16
    }  # ComfyUI makes no exception for masks
    assert first["pictures"][0].dtype == torch.bfloat16
    assert first["ids"].dtype == torch.long


def test_a_condition_goes_into_a_file_and_back():
    cond = host.encode_text(models_of("lumina2"), "a cat")
    assert set(cond.extra) == {"attention_mask"}
    again = Cond.of_tensors(cond.tensors())
    assert again.tensors().keys() == cond.tensors().keys()
    assert all(torch.equal(again.tensors()[name], value) for name, value in cond.tensors().items())


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_pictures_come_back_from_latents(family):
    models = models_of(family)
    pixels = (
        torch.rand(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
        .repeat_interleave(8, 1)
        .repeat_interleave(8, 2)
    )
    latents = host.encode_pictures(models, pixels)
    assert latents.shape == (2, models.model.model.latent_format.latent_channels, 2, 3)
    assert host.downscale(models) == 8
    assert torch.allclose(host.decode_latents(models, latents), pixels, atol=1e-5)
    assert host.decode_latents(models, 100 * latents).amax() == 1


def test_blocks_that_work_in_place_leave_their_inputs_alone_while_gradients_are_recorded():
    models = models_of("flux")
    block = dict(models.unet.named_modules())["single_blocks.0"]
    state, named = torch.randn(1, 5, 64), {"vec": torch.randn(1, 64), "pe": None}
    before = state.clone()
    assert type(block).__name__ == "SingleStreamBlock"
    found = block(state, **named)
    assert torch.equal(state, before)
    with torch.no_grad():
        assert torch.equal(block(state, **named), found)
    twin = copy.deepcopy(block)
    assert type(twin) is type(block)
    assert torch.equal(twin(before, **named), found)
