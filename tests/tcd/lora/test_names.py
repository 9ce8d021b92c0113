"""What a file calls a layer, and what that is in the network."""

import pytest

from tcd.lora import ldm, names

# A UNet of two levels: attention in the second alone, twice as deep, written out by hand.
LDM = {
    "input_blocks.0.0": "conv_in",
    "input_blocks.1.0.in_layers.2": "down_blocks.0.resnets.0.conv1",
    "input_blocks.1.0.emb_layers.1": "down_blocks.0.resnets.0.time_emb_proj",
    "input_blocks.1.0.out_layers.3": "down_blocks.0.resnets.0.conv2",
    "input_blocks.2.0.in_layers.2": "down_blocks.0.resnets.1.conv1",
    "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.4.0.in_layers.2": "down_blocks.1.resnets.0.conv1",
    "input_blocks.4.0.skip_connection": "down_blocks.1.resnets.0.conv_shortcut",
    "input_blocks.4.1.proj_in": "down_blocks.1.attentions.0.proj_in",
    "input_blocks.4.1.transformer_blocks.0.attn1.to_q": "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "input_blocks.5.0.in_layers.2": "down_blocks.1.resnets.1.conv1",
    "input_blocks.5.1.transformer_blocks.1.ff.net.0.proj": (
        "down_blocks.1.attentions.1.transformer_blocks.1.ff.net.0.proj"
    ),
    "middle_block.0.in_layers.2": "mid_block.resnets.0.conv1",
    "middle_block.1.transformer_blocks.0.attn2.to_out.0": "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "middle_block.1.proj_out": "mid_block.attentions.0.proj_out",
    "middle_block.2.in_layers.2": "mid_block.resnets.1.conv1",
    "middle_block.2.out_layers.3": "mid_block.resnets.1.conv2",
    "output_blocks.0.0.in_layers.2": "up_blocks.0.resnets.0.conv1",
    "output_blocks.0.1.transformer_blocks.0.attn1.to_k": "up_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k",
    "output_blocks.1.0.in_layers.2": "up_blocks.0.resnets.1.conv1",
    "output_blocks.2.0.in_layers.2": "up_blocks.0.resnets.2.conv1",
    "output_blocks.2.1.transformer_blocks.0.attn1.to_k": "up_blocks.0.attentions.2.transformer_blocks.0.attn1.to_k",
    "output_blocks.2.2.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.3.0.in_layers.2": "up_blocks.1.resnets.0.conv1",
    "output_blocks.4.0.in_layers.2": "up_blocks.1.resnets.1.conv1",
    "output_blocks.5.0.in_layers.2": "up_blocks.1.resnets.2.conv1",
    "output_blocks.5.0.skip_connection": "up_blocks.1.resnets.2.conv_shortcut",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.2": "conv_out",
}


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("lora_unet_out_2.lora_down.weight", ("lora_unet_out_2", "lora_down.weight")),
        ("lora_unet_out_2.lora_mid.weight", ("lora_unet_out_2", "lora_mid.weight")),
        ("lycoris_out_2.hada_w1_a", ("lycoris_out_2", "hada_w1_a")),
        ("lycoris_out_2.lokr_t2", ("lycoris_out_2", "lokr_t2")),
        ("lora_unet_out_2.alpha", ("lora_unet_out_2", "alpha")),
        ("lora_unet_out_2.dora_scale", ("lora_unet_out_2", "dora_scale")),
        ("lora_unet_out_2.a1.weight", ("lora_unet_out_2", "a1.weight")),
        ("diffusion_model.img_in.reshape_weight", ("diffusion_model.img_in", "reshape_weight")),
        ("diffusion_model.norm.scale.set_weight", ("diffusion_model.norm.scale", "set_weight")),
        ("lora_unet_out_2.rescale", ("lora_unet_out_2", "rescale")),
        ("base_model.model.x.lora_A.weight", ("base_model.model.x", "lora_down.weight")),
        ("base_model.model.x.lora_B.weight", ("base_model.model.x", "lora_up.weight")),
        ("base_model.model.x.lora_A.default.weight", ("base_model.model.x", "lora_down.weight")),
        ("base_model.model.x.lora_B.default_0.weight", ("base_model.model.x", "lora_up.weight")),
        ("base_model.model.x.lora_B.bias", ("base_model.model.x", "lora_B.bias")),
        (
            "base_model.model.x.lora_magnitude_vector.default.weight",
            ("base_model.model.x", "lora_magnitude_vector.default.weight"),
        ),
        ("transformer.x.0.lora.down.weight", ("transformer.x.0", "lora_down.weight")),
        ("unet.x.0.lora.up.weight", ("unet.x.0", "lora_up.weight")),
        ("unet.x.0.lora_linear_layer.up.weight", ("unet.x.0", "lora_up.weight")),
        ("x.attn1.processor.to_q_lora.down.weight", ("x.attn1.to_q", "lora_down.weight")),
        ("unet.x.attn2.processor.to_out_lora.up.weight", ("unet.x.attn2.to_out.0", "lora_up.weight")),
        ("unet.x.attn2.to_out.0.lora.up.weight", ("unet.x.attn2.to_out.0", "lora_up.weight")),
        ("diffusion_model.x.to_out.lora_A.weight", ("diffusion_model.x.to_out", "lora_down.weight")),
    ],
)
def test_a_key_is_a_module_and_a_part(key, wanted):
    assert names.split(key) == wanted


@pytest.mark.parametrize("key", ["", "x", "x.weight", "lora_unet_x", "bundle_emb.cat.string_to_param.*"])
def test_a_key_of_something_else_is_named(key):
    with pytest.raises(ValueError, match="is no LoRA key of kohya, LyCORIS, PEFT or diffusers") as error:
        names.split(key)
    assert str(error.value).startswith(f"{key} is")


@pytest.mark.parametrize(
    ("module", "is_one"),
    [
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", True),
        ("lora_te2_text_projection", True),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1", True),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", True),
        ("text_encoders.clip_l.x", True),
        ("base_model.model.text_model.encoder.layers.0.mlp.fc1", True),
        ("lora_unet_time_embed_0", False),
        ("lora_tennis", False),
        ("unet.text_time.x", False),
    ],
)
def test_text_encoders_are_told_from_the_rest(module, is_one):
    assert names.is_text_encoder(module) is is_one


BEFORE = ["", "lora_unet_", "lycoris_", "unet.", "transformer.", "diffusion_model.", "base_model.model."]


@pytest.mark.parametrize("before", [*BEFORE, "base_model.model.unet.", "unet.base_model.model."])
def test_a_layer_is_found_by_its_own_name_after_any_prefix(before):
    known = names.index(["a.b_c.0", "d"], ["a.b_c.0", "d"])
    assert names.find(before + "a.b_c.0", known) == "a.b_c.0"
    assert names.find(before + "a_b_c_0", known) == "a.b_c.0"
    assert names.find(before + "a.b_c", known) is None


def test_a_layer_s_own_name_comes_before_a_prefix():
    layers = ["transformer.h", "h"]
    known = names.index(layers, layers)
    assert names.find("base_model.model.transformer.h", known) == "transformer.h"
    assert names.find("unet.h", known) == "h"


def test_two_layers_of_the_same_name_are_refused():
    with pytest.raises(ValueError, match=r"a\.b and a_b have the same name in a LoRA file: lora_unet_a_b"):
        names.index(["a.b", "a_b"], ["a.b", "a_b"])


def test_ldm_s_modules_have_diffusers_names_too():
    others = ["input_blocks", "input_blocks.4", "input_blocks.4.1", "input_blocks.4.0.in_layers", "out", "out.0"]
    assert ldm.diffusers_names([*others, *LDM]) == {theirs: ours for ours, theirs in LDM.items()}


def test_label_embeddings_have_two_diffusers_names():
    found = ldm.diffusers_names(["input_blocks.0.0", "label_emb.0.0", "label_emb.0.2"])
    assert found == {
        "conv_in": "input_blocks.0.0",
        "class_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_1": "label_emb.0.0",
        "class_embedding.linear_2": "label_emb.0.2",
        "add_embedding.linear_2": "label_emb.0.2",
    }


def test_a_network_of_other_names_has_none_of_diffusers():
    assert ldm.diffusers_names(["out.2", "time_embed.0", "output_blocks.0.0.in_layers.2"]) == {}


def test_a_layer_is_found_by_all_its_names():
    known = names.index(LDM, LDM)
    for ours, theirs in LDM.items():
        for name in (ours, theirs):
            assert names.find(f"unet.{name}", known) == ours
            assert names.find("lora_unet_" + name.replace(".", "_"), known) == ours
