"""The LoRA that is trained: which layers, of which rank, new or gone on from."""

import re
from dataclasses import replace

import pytest
import torch
from lora_nets import Net

import tcd
from tcd import embed
from training import adapters
from training.options import Options


def opts_of(*arguments: str, **named) -> Options:
    return replace(Options(), network_dim=4, network_args=arguments, **named)


def ranks(adapter) -> dict[str, int]:
    return {adapter.names[key]: path.rank for key, path in adapter.paths.items()}


def test_every_layer_is_adapted_by_default():
    assert ranks(adapters.make(Net(), opts_of())) == dict.fromkeys(tcd.lora.adaptable(Net()), 4)


def test_convolutions_may_have_a_rank_and_alpha_of_their_own():
    adapter = adapters.make(Net(), opts_of("conv_dim=2", "conv_alpha=1", network_alpha=8.0))
    kernels = {name: layer.weight.shape[2:] for name, layer in tcd.lora.adaptable(Net()).items()}
    for key, path in adapter.paths.items():
        wide = any(side > 1 for side in kernels[adapter.names[key]])
        assert (path.rank, path.alpha) == ((2, 1.0) if wide else (4, 8.0))


def test_convolutions_may_be_left_out():
    assert ranks(adapters.make(Net(), opts_of("conv_dim=0"))) == {"point": 4, "head": 4}


def test_layers_are_chosen_by_name():
    assert ranks(adapters.make(Net(), opts_of("include=^(head|point)", "exclude=point"))) == {"head": 4}


@pytest.mark.parametrize(
    ("argument", "wanted"),
    [
        ("rank", "network_args must be name=value with one of conv_dim, .*; got 'rank'"),
        ("dim=4", "network_args must be name=value with one of conv_dim, .*; got 'dim=4'"),
        ("conv_dim=x", "network_args conv_dim must be of type int, got 'x'"),
        ("conv_dim=-2", "conv_dim and conv_alpha must be 0 at least, and finite, got -2, 0.0"),
        ("conv_alpha=inf", "must be 0 at least, and finite, got -1, inf"),
        ("rank_dropout=1", r"network_args rank_dropout must be in \[0, 1\), got 1.0"),
        ("target=everything", "network_args target must be one of all, blocks, attention; got 'everything'"),
        ("include=(", r"network_args include must be a regular expression, got '\('"),
    ],
)
def test_a_bad_argument_is_named(argument, wanted):
    with pytest.raises(ValueError, match=wanted):
        adapters.make(Net(), opts_of(argument))


@pytest.fixture
def file(tmp_path):
    """A LoRA of rank 3 and alpha 6."""
    tcd.lora.save(tmp_path / "lora.safetensors", tcd.lora.inject(Net(), 3, 6.0))
    return str(tmp_path / "lora.safetensors")


def test_a_run_may_go_on_from_a_lora(file):
    adapter = adapters.make(Net(), opts_of(network_weights=file, dim_from_weights=True))
    assert set(ranks(adapter).values()) == {3}
    assert {path.alpha for path in adapter.paths.values()} == {6.0}
    assert set(ranks(adapters.make(Net(), replace(opts_of(network_weights=file), network_dim=3))).values()) == {3}


def test_a_lora_of_another_rank_is_refused(file):
    with pytest.raises(ValueError, match=re.escape("is of rank 3, network_dim is 4: add dim_from_weights")):
        adapters.make(Net(), opts_of(network_weights=file))


def test_what_a_file_has_cannot_be_asked_for_besides(file):
    own = {"network_weights": file, "dim_from_weights": True}
    with pytest.raises(ValueError, match="network_args target=all has no effect with network_weights"):
        adapters.make(Net(), opts_of("target=all", **own))
    with pytest.raises(ValueError, match="network_weights is of alpha 6, network_alpha is 2: leave it out"):
        adapters.make(Net(), opts_of(network_alpha=2.0, **own))
    assert adapters.make(Net(), opts_of("rank_dropout=0.1", **own)).layers


def test_the_rank_that_is_told_is_that_of_the_file(file):
    opts = opts_of(network_weights=file, dim_from_weights=True)
    told = adapters.as_trained(opts, adapters.make(Net(), opts))
    assert (told.network_dim, told.alpha) == (3, 6.0)
    assert adapters.as_trained(opts_of(), adapters.make(Net(), opts_of())) == opts_of()


def test_a_network_that_is_no_unet_takes_no_target_time():
    with pytest.raises(ValueError, match=r"TCF\(S\+\) is for UNets .*: Linear has no time_embed"):
        adapters.target_time(torch.nn.Linear(2, 2), None)


class WithTime(Net):
    """As a UNet, it has an embedding of t."""

    def __init__(self) -> None:
        super().__init__()
        self.time_embed, self.model_channels = torch.nn.Sequential(torch.nn.Linear(4, 8)), 4


def test_a_lora_of_tcf_s_plus_goes_on_with_its_embedding(tmp_path):
    net = WithTime()
    made = tcd.TargetTime(8, 4)
    torch.nn.init.normal_(made.out.weight)
    path = tmp_path / "s.safetensors"
    tcd.lora.save(path, tcd.lora.inject(net, 4), dtype=torch.float32, extra=embed.to_tensors(made))
    adapter = adapters.make(WithTime(), opts_of(network_weights=str(path)))
    assert torch.equal(adapters.target_time(net, adapter).embed.out.weight, made.out.weight)
    assert not adapters.target_time(net, None).embed.out.weight.any()
