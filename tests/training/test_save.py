"""What a finished run leaves behind: the LoRA and all that it says of itself, or a whole checkpoint."""

import hashlib
import json
import shutil

import host_process
import pytest
import torch
from host_process import ROOT, run
from safetensors import safe_open
from safetensors.torch import load_file
from short_runs import options_of, pictures

from tcd import embed, lora
from training import host, metadata, save, train

pytestmark = [pytest.mark.host, pytest.mark.slow]

TINY = ROOT / "demo" / "tiny.safetensors"
WHOLE = {
    "full_finetune": True,
    "network_dim": 64,
    "network_args": (),
    "checkpoint_loader": "demo.tiny:load",
    "save_precision": "fp16",
    "max_train_steps": 2,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    host_process.pack()
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """A LoRA of two steps, with everything that its metadata may tell."""
    said = {"training_comment": "a test", "network_dropout": 0.1, "ema_decay": 0.5, "optimizer_args": ("eps=1e-6",)}
    more = {"network_alpha": 1.0, "network_args": ("conv_dim=1", "target=attention"), "max_train_steps": 2}
    return train.train(options_of(data, tmp_path_factory.mktemp("lora"), **said, **more))


def described(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_a_lora_says_how_it_was_made_and_what_it_is_for(made):
    told = described(made)
    hashes = {name: told.pop(name) for name in ("sshs_model_hash", "sshs_legacy_hash")}
    assert {name: len(value) for name, value in hashes.items()} == {"sshs_model_hash": 64, "sshs_legacy_hash": 8}
    assert told == {
        "ss_base_model_version": "sd_v1",
        "ss_sd_model_name": "tiny.safetensors",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "1.0",
        "ss_network_dropout": "0.1",
        "ss_network_args": json.dumps({"conv_dim": "1", "target": "attention"}),
        "ss_v2": "False",
        "ss_learning_rate": "0.001",
        "ss_lr_scheduler": "constant",
        "ss_optimizer": "AdamW eps=1e-6",
        "ss_steps": "2",
        "ss_max_train_steps": "2",
        "ss_batch_size_per_device": "1",
        "ss_gradient_accumulation_steps": "1",
        "ss_gradient_checkpointing": "False",
        "ss_seed": "0",
        "ss_mixed_precision": "no",
        "ss_resolution": "(64, 64)",
        "ss_zero_terminal_snr": "False",
        "ss_training_comment": "a test",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "https://github.com/comfyanonymous/ComfyUI",
        "modelspec.title": "new",
        "modelspec.resolution": "64x64",
        "modelspec.prediction_type": "epsilon",
        "tcd.method": "tcd",
        "tcd.tcf": "1",
        "tcd.solver": "ddim",
        "tcd.skip_steps": "20",
        "tcd.ends": "1",
        "tcd.guidance": "[2.0, 14.0]",
        "tcd.uncond": "empty_prompt",
        "tcd.loss_type": "l2",
        "tcd.ema_decay": "0.5",
        "tcd.gamma": "0.3",
        "tcd.steps": "4",
    }


def test_the_layers_of_an_sd_1_have_the_names_that_kohya_gives_them(made):
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight" in load_file(made)


@pytest.mark.parametrize(
    ("family", "version", "architecture", "prediction"),
    [
        ("sd2", *metadata.ARCHITECTURES["SD20"], "epsilon"),
        ("v_zsnr", *metadata.ARCHITECTURES["SD20"], "v"),
        ("sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base", "epsilon"),
        ("sd3", "sd3", "stable-diffusion-3", None),
        ("flux", "flux1", "flux-1-dev", None),
        ("lumina2", "lumina", "lumina-2", None),
    ],
)
def test_each_family_has_the_names_that_other_tools_know(data, tmp_path, family, version, architecture, prediction):
    opts = options_of(data, tmp_path, checkpoint_loader=f"small_models:{family}")
    told = metadata.of(host.load_teacher(opts), opts, 1)
    assert told["ss_v2"] == str(family in ("sd2", "v_zsnr"))
    assert told["ss_base_model_version"] == version
    assert told["modelspec.architecture"] == f"{architecture}/lora"
    assert told.get("modelspec.prediction_type") == prediction


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (
            {"method": "lcm", "loss_type": "huber"},
            {"tcd.intervals": "50", "tcd.gamma": "1.0", "tcd.loss_type": "huber"},
        ),
        ({"method": "direct_cm", "intervals": 20}, {"tcd.intervals": "20", "tcd.gamma": "1.0"}),
        ({"tcf": "2", "ends": 3, "skip_steps": 50}, {"tcd.skip_steps": "50", "tcd.ends": "3", "tcd.tcf": "2"}),
    ],
    ids=["lcm", "direct_cm", "tcf2"],
)
def test_a_file_says_how_its_student_is_sampled(data, tmp_path, method, wanted):
    told = lora.metadata_of(metadata.of_tcd(options_of(data, tmp_path, **method)))
    assert {name: told.get(name) for name in wanted} == wanted
    assert ("tcd.skip_steps" in told) == ("method" not in method)


def test_without_metadata_only_what_nodes_need_stays(data, tmp_path):
    told = described(train.train(options_of(data, tmp_path, no_metadata=True, max_train_steps=1)))
    assert {name.partition(".")[0] for name in told} == {"tcd", "sshs_model_hash", "sshs_legacy_hash"}


def test_the_hashes_are_those_that_kohya_computes_from_a_file(made):
    head, *_ = (data := made.read_bytes()).partition(b"}}")
    begin = 8 + int.from_bytes(data[:8], "little")
    assert begin > len(head)
    told = described(made)
    assert told["sshs_model_hash"] == hashlib.sha256(data[begin:]).hexdigest()
    assert told["sshs_legacy_hash"] == hashlib.sha256(b"").hexdigest()[:8]  # of a file below 1 MiB


def test_the_older_hash_is_of_a_part_of_a_large_file():
    state, told = {"x": torch.arange(400_000)}, {"ss_steps": "1"}
    whole = save.lora.files.to_bytes(state, told)
    wanted = hashlib.sha256(whole[2**20 : 2**20 + 2**16]).hexdigest()[:8]
    assert save.lora.files.hashes(state, told | {"tcd.tcf": "1"})["sshs_legacy_hash"] == wanted


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    """(the checkpoint of a full fine-tuning, the student that it was made of)."""
    students, collect = [], save.Saver.collect

    def remember(saver, keep=True):
        students.append(saver.parts.student_net.unet.state_dict())
        return collect(saver, keep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save.Saver, "collect", remember)
        path = train.train(options_of(data, tmp_path_factory.mktemp("whole"), **WHOLE))
    return path, students[-1]


def test_a_checkpoint_has_the_student_in_the_teachers_file(checkpoint):
    path, student = checkpoint
    before, after = load_file(TINY), load_file(path)
    assert after.keys() == before.keys()
    ours = {save.PREFIX + name for name in student}
    assert all(torch.equal(after[name], before[name]) for name in before.keys() - ours)
    assert all(torch.equal(after[save.PREFIX + name], weight.half()) for name, weight in student.items())
    assert any(not torch.equal(after[name].float(), before[name].float()) for name in ours)


def test_a_checkpoint_says_what_its_teacher_said_and_how_it_was_made(checkpoint):
    before, after = described(TINY), described(checkpoint[0])
    assert {name: after[name] for name in before} == before
    assert (after["ss_steps"], after["tcd.method"], after["tcd.gamma"]) == ("2", "tcd", "0.3")
    assert not {name for name in after if name.startswith("ss_network")}


def test_a_checkpoint_loads_where_its_teacher_did_and_samples(checkpoint):
    from demo import tiny

    model, clip, _ = tiny.load(checkpoint[0], torch.float32)
    weights = model.model.diffusion_model.state_dict()
    assert all(torch.equal(weights[name], weight.half().float()) for name, weight in checkpoint[1].items())
    (cond,) = run("CLIPTextEncode", clip=clip, text="a red heart")
    latent = host_process.sample(model, cond, host_process.tcd_sampler(), host_process.sigmas(model))
    assert latent.isfinite().all()


def test_the_embedding_of_s_of_a_whole_student_is_a_file_beside_it(data, tmp_path, monkeypatch):
    import folder_paths

    path = train.train(options_of(data, tmp_path, **WHOLE, tcf="s+"))
    beside = path.with_name("new-target_time.safetensors")
    made = embed.from_tensors(load_file(beside))
    assert made is not None
    assert made.out.weight.any()  # which starts at zero
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    from demo import tiny

    model, *_ = tiny.load(path, torch.float32)
    heard, *_, report = run("TCD_LoraLoader", model=model, lora=beside.name, strength=1.0)
    assert "order s+" in report
    assert heard is not model


def test_a_file_whose_weights_have_other_names_is_refused_before_the_first_step(data, tmp_path):
    with pytest.raises(
        ValueError, match=r"full_finetune .*tiny\.safetensors \d+ of \d+ weights .* no model\.diffusion"
    ):
        train.prepare(options_of(data, tmp_path, **WHOLE | {"checkpoint_loader": "small_models:sd15"}))


def test_a_file_of_another_kind_cannot_be_written_anew(data, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"pickled")
    other = {"checkpoint_loader": "small_models:sd15", "pretrained_model_name_or_path": str(tmp_path / "model.ckpt")}
    with pytest.raises(ValueError, match=r"full_finetune writes the teacher's file anew, .*model\.ckpt: "):
        train.prepare(options_of(data, tmp_path, **WHOLE | other))


@pytest.mark.parametrize("way", [{}, WHOLE], ids=["lora", "checkpoint"])
def test_the_teacher_is_never_written_over(data, tmp_path, way):
    shutil.copy(TINY, tmp_path / "new.safetensors")
    with pytest.raises(ValueError, match=r"output_name new would write over the teacher, .*new\.safetensors"):
        train.prepare(
            options_of(data, tmp_path, **way, pretrained_model_name_or_path=str(tmp_path / "new.safetensors"))
        )


@pytest.mark.parametrize(
    ("several", "saved"),
    [
        ({"save_every_n_steps": 2}, {"step00000002", "step00000004", "step00000006"}),
        ({"save_every_n_steps": 2, "save_last_n_steps": 2}, {"step00000004", "step00000006"}),
        ({"save_every_n_steps": 1, "save_last_n_steps": 2}, {"step00000004", "step00000005", "step00000006"}),
        ({"save_every_n_epochs": 1, "save_last_n_epochs": 2}, {"000002", "000003"}),
        ({"save_every_n_epochs": 2, "save_last_n_epochs": 1, "max_train_steps": 8}, {"000004"}),
    ],
    ids=str,
)
def test_of_saves_on_the_way_those_that_kohya_keeps_stay(data, tmp_path, several, saved):
    train.train(options_of(data, tmp_path, **{"max_train_steps": 6, "train_batch_size": 4} | several))
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {"new", *(f"new-{name}" for name in saved)}
