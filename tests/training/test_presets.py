"""Every preset trains the tiny model, one step of it, with all that it says of the distillation itself."""

import pytest
from host_process import ROOT
from short_runs import content, options_of, pictures

from training import options, train

pytestmark = [pytest.mark.host, pytest.mark.slow]

PRESETS = sorted((ROOT / "training" / "presets").glob("*.toml"))
# What is a matter of size, of a library or of many processes.
TINY = {
    "checkpoint_loader": "demo.tiny:load",
    "resolution": "128",
    "train_batch_size": 1,
    "min_bucket_reso": 64,
    "gradient_accumulation_steps": 2,
    "max_train_steps": 1,
    "optimizer_type": "AdamW",
    "lr_warmup_steps": 0.0,
    "save_every_n_steps": 1,
    "fsdp": False,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_trains(data, tmp_path, preset):
    values = options.from_toml(preset) | TINY
    if values.get("full_finetune"):
        values |= {"network_dim": options.FIELDS["network_dim"].default, "network_args": ()}
    path = train.train(options_of(data, tmp_path, **values))
    tensors, metadata = content(path)
    assert tensors
    assert (metadata["tcd.method"], metadata["tcd.tcf"]) == (values["method"], values.get("tcf", "1"))
    assert (tmp_path / "new-state.pt").is_file()
