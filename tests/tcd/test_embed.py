"""The target time as the network's input."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import tcd
from tcd.embed import from_tensors, sinusoids, to_tensors

SD = tcd.DiscreteVP.scaled_linear()


class Toy(nn.Module):
    """A network that is nothing but its embedding of t, as Stable Diffusion's UNets begin."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.width, self.time_embed = width, nn.Linear(width, width)

    def forward(self, x, t):
        return x + self.time_embed(sinusoids(t, self.width).to(x)).mean(1)[:, None]


def made(seed: int = 0) -> tuple[Toy, tcd.TargetTimeNet]:
    torch.manual_seed(seed)
    net = Toy()
    return net, tcd.TargetTimeNet(net, tcd.TargetTime(out=8, width=16))


@pytest.mark.parametrize("width", [8, 9, 320])
def test_sinusoids_are_diffusers_s(width):
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    t = torch.tensor([0.0, 1.0, 259.0, 999.0])
    wanted = embeddings.get_timestep_embedding(t, width, flip_sin_to_cos=True, downscale_freq_shift=0)
    torch.testing.assert_close(sinusoids(t, width), wanted, rtol=0, atol=1e-4)  # of float32 angles up to 1,000


def test_the_student_starts_as_its_teacher():
    net, told = made()
    x, t = torch.randn(3, 2), torch.tensor([999.0, 500.0, 20.0])
    assert torch.equal(told(x, t, t / 2), net(x, t))


def test_afterwards_s_is_heard_and_alone_the_network_is_as_it_was():
    net, told = made()
    x, t = torch.randn(3, 2), torch.tensor([999.0, 500.0, 20.0])
    before = net(x, t)
    nn.init.ones_(told.embed.out.weight)
    assert not torch.allclose(told(x, t, t / 2), told(x, t, t / 4))
    assert torch.equal(net(x, t), before)


def test_s_is_learned_through_the_trajectory_function():
    _, told = made()
    predict = tcd.as_x0(told, SD, "eps")
    x, t, s = torch.randn(3, 2), torch.full((3,), 900.0), torch.tensor([0.0, 100.0, 800.0])
    tcd.TCF["s+"](predict, SD, x, t, s).square().mean().backward()
    slope = told.embed.out.weight.grad
    assert slope is not None
    assert slope.abs().sum() > 0


def test_the_boundary_condition_holds_whatever_the_network_says():
    _, told = made()
    nn.init.normal_(told.embed.out.weight)
    x, t = torch.randn(3, 2), torch.tensor([999.0, 500.0, 20.0])
    assert torch.equal(tcd.TCF["s+"](tcd.as_x0(told, SD, "eps"), SD, x, t, t), x)


def test_scale_brings_flow_times_to_where_sinusoids_are_made_for():
    torch.manual_seed(0)
    embed = tcd.TargetTime(out=4, width=16, scale=1000.0)
    nn.init.normal_(embed.out.weight)
    plain = tcd.TargetTime(out=4, width=16)
    plain.load_state_dict(embed.state_dict())
    assert torch.equal(embed(torch.tensor([0.25])), plain(torch.tensor([250.0])))


def test_a_network_without_such_a_module_is_refused():
    with pytest.raises(ValueError, match="no module 'time_embedding' whose output embeds t"):
        tcd.TargetTimeNet(Toy(), tcd.TargetTime(8), at="time_embedding")


def test_a_failing_network_does_not_keep_s():
    net, told = made()
    nn.init.ones_(told.embed.out.weight)
    x, t = torch.randn(3, 2), torch.tensor([9.0, 5.0, 2.0])
    before = net(x, t)
    with pytest.raises(TypeError):
        told(x, t, t, unknown=1)
    assert torch.equal(net(x, t), before)


# --- in a LoRA file ---------------------------------------------------------------------------------------------------


def filled(scale: float = 1.0) -> tcd.TargetTime:
    torch.manual_seed(3)
    embed = tcd.TargetTime(out=8, width=16, scale=scale)
    nn.init.normal_(embed.out.weight)
    return embed


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_tensors_of_a_file_give_the_same_embedding(scale, tmp_path):
    embed, s = filled(scale), torch.tensor([-1.0, 0.25, 0.5])
    tensors = to_tensors(embed)
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
        "tcd_target_time.hidden.weight": (8, 16),
        "tcd_target_time.hidden.bias": (8,),
        "tcd_target_time.out.weight": (8, 8),
        "tcd_target_time.out.bias": (8,),
        "tcd_target_time.scale": (),
    }
    save_file(tensors | {"lora_unet_x.alpha": torch.ones(())}, tmp_path / "a")
    again = from_tensors(load_file(tmp_path / "a"))
    assert again is not None
    assert (again.scale, again.width) == (scale, 16)
    assert torch.equal(again(s), embed(s))


def test_half_precision_comes_back_as_float32():
    tensors = to_tensors(filled(), torch.float16)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    again = from_tensors(tensors)
    assert again is not None
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    torch.testing.assert_close(again(torch.tensor([9.0])), filled()(torch.tensor([9.0])), rtol=0, atol=5e-3)


def test_reading_draws_no_random_numbers():
    tensors, before = to_tensors(filled()), torch.get_rng_state()
    from_tensors(tensors)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_of_another_order_has_none():
    assert from_tensors({"lora_unet_x.alpha": torch.ones(())}) is None


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("scale", None, "is missing"),
        ("hidden.weight", None, "is missing"),
        ("out.bias", None, "is missing"),
        ("middle.bias", torch.ones(8), "is no tensor of an embedding of s"),
        ("out.weight", torch.ones(8, 9), r"has shape \(8, 9\), the embedding of s wants \(8, 8\)"),
        ("hidden.bias", torch.ones(9), r"has shape \(9,\), the embedding of s wants \(8,\)"),
        ("hidden.weight", torch.ones(8), r"has shape \(8,\), the embedding of s wants \(1, 1\)"),
        ("scale", torch.ones(1), r"has shape \(1,\), the embedding of s wants \(\)"),
        ("out.bias", torch.full((8,), torch.nan), "is not finite"),
    ],
)
def test_tensors_that_make_no_embedding_are_named(name, tensor, reason):
    key, tensors = f"tcd_target_time.{name}", to_tensors(filled())
    tensors = {k: t for k, t in tensors.items() if k != key} | ({} if tensor is None else {key: tensor})
    with pytest.raises(ValueError, match=rf"tcd_target_time\.\w+(\.\w+)? {reason}"):
        from_tensors(tensors)


@pytest.mark.host
def test_comfyui_s_unet_takes_it():
    from training import host

    host.start()
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    from demo import tiny

    torch.manual_seed(0)
    unet = UNetModel(**tiny.UNET, operations=comfy.ops.disable_weight_init)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.05)
    channels = tiny.UNET["model_channels"]
    told = tcd.TargetTimeNet(unet, tcd.TargetTime(out=4 * channels, width=channels))
    x, t, context = torch.randn(1, 4, 16, 16), torch.tensor([999.0]), torch.randn(1, 16, 128)
    with torch.no_grad():
        plain = unet(x, t, context=context)
        assert torch.equal(told(x, t, t / 2, context=context), plain)
        nn.init.normal_(told.embed.out.weight)
        assert not torch.allclose(told(x, t, t / 2, context=context), plain)


def test_the_network_itself_hears_s_within_a_with():
    net, hearing = made()
    nn.init.ones_(hearing.embed.out.weight)
    x, t, s = torch.ones(2, 4), torch.tensor([500.0, 700.0]), torch.tensor([100.0, 200.0])
    with hearing.told(s):
        heard = net(x, t)
    assert torch.equal(heard, hearing(x, t, s))
    assert not torch.equal(heard, net(x, t))
