"""Workflows of Stable Diffusion 1.5."""

from demo.workflows.builder import Graph, Node, Output
from demo.workflows.recipes import basic, checkpoint, custom, prompt, sample, save

SD15, LORA = "v1-5-pruned-emaonly-fp16.safetensors", "TCD-SD15-LoRA.safetensors"
FOX = "a red fox in autumn leaves, soft morning light, photograph"
EXAMPLE = "example.png"  # comes with ComfyUI, in its input folder


def tcd(kinds: dict) -> Graph:
    """Text to picture."""
    graph = Graph(
        kinds,
        "SD 1.5 in 4 steps",
        "Text to picture in **4 network evaluations**. Guidance is distilled into the LoRA: a *BasicGuider* is all it "
        "needs, which is cfg 1 (diffusers' guidance_scale 0).",
        tries=(
            "gamma 0.2 to 0.5 in *TCD Sampler*: more of it gives more detail (diffusers calls it eta)",
            "2, 6 and 8 steps",
            "any checkpoint that was made from SD 1.5: the LoRA goes with it",
        ),
    )
    loader, lora = checkpoint(graph, SD15, LORA)
    text, empty = prompt(graph, loader["CLIP"], FOX, 512, 512)
    guider = basic(graph, lora["MODEL"], text["CONDITIONING"])
    save(graph, sample(graph, lora["MODEL"], guider, empty["LATENT"]), loader["VAE"])
    return graph


def img2img(kinds: dict) -> Graph:
    """Picture to picture."""
    graph = Graph(
        kinds,
        "Picture to picture",
        "A picture is encoded, noised in part and sampled again. *denoise* in *TCD Scheduler* says how much of it is "
        "redrawn: 0.6 keeps the composition.",
        tries=("denoise 0.3 (touch up) and 0.8 (only the rough layout stays)", "6 steps with a low denoise"),
    )
    loader, lora = checkpoint(graph, SD15, LORA)
    graph.column("Prompt and picture")
    text = graph.add("CLIPTextEncode", clip=loader["CLIP"], text="an oil painting, thick brush strokes")
    picture = graph.add("LoadImage", image=EXAMPLE)
    encoded = scaled(graph, loader, picture)
    guider = basic(graph, lora["MODEL"], text["CONDITIONING"])
    save(graph, sample(graph, lora["MODEL"], guider, encoded["LATENT"], denoise=0.6), loader["VAE"])
    return graph


def scaled(graph: Graph, loader: Node, picture: Node) -> Node:
    """A column that brings a picture to SD 1.5's size and encodes it."""
    graph.column("To the latent", width=300)
    small = graph.add(
        "ImageScale", image=picture["IMAGE"], upscale_method="lanczos", width=512, height=512, crop="center"
    )
    return graph.add("VAEEncode", pixels=small["IMAGE"], vae=loader["VAE"])


def inpaint(kinds: dict) -> Graph:
    """A part of a picture, redrawn."""
    graph = Graph(
        kinds,
        "Inpainting",
        "Only what the mask covers is redrawn. **First paint the mask**: right-click *Load Image*, *Open in "
        "MaskEditor*. An ordinary SD 1.5 model does; TCD keeps the rest of the latent in place at every step, also "
        "across *SplitSigmas*.",
        tries=("denoise 0.7 in *TCD Scheduler*: what is below the mask shines through", "a feathered mask"),
    )
    loader, lora = checkpoint(graph, SD15, LORA)
    graph.column("Prompt and picture")
    text = graph.add("CLIPTextEncode", clip=loader["CLIP"], text="a bunch of sunflowers")
    picture = graph.add("LoadImage", "Load Image: paint a mask", image=EXAMPLE)
    graph.column("To the latent", width=300)
    encoded = graph.add("VAEEncode", pixels=picture["IMAGE"], vae=loader["VAE"])
    masked = graph.add("SetLatentNoiseMask", samples=encoded["LATENT"], mask=picture["MASK"])
    guider = basic(graph, lora["MODEL"], text["CONDITIONING"])
    save(graph, sample(graph, lora["MODEL"], guider, masked["LATENT"]), loader["VAE"])
    return graph


def hires(kinds: dict) -> Graph:
    """A first pass at 512, and the low noise levels again at 768."""
    graph = Graph(
        kinds,
        "Larger, in a second pass",
        "The first pass makes 512 x 512 in 4 steps. Its latent is enlarged 1.5 times, and *SplitSigmas* takes the low "
        "part of 8 steps: new noise up to there, then 3 steps down. Gamma works on any part of the sigmas, as the "
        "sampler looks at those that it gets.",
        tries=(
            "step 4 or 6 in *SplitSigmas*: more or less is redrawn",
            "gamma 0 in a *TCD Sampler* of its own for the second pass: smoother",
        ),
    )
    loader, lora = checkpoint(graph, SD15, LORA)
    text, empty = prompt(graph, loader["CLIP"], FOX, 512, 512)
    guider = basic(graph, lora["MODEL"], text["CONDITIONING"])
    sampler = graph.add("TCD_Sampler")
    coarse = graph.add("TCD_Scheduler", "First pass: 4 steps", model=lora["MODEL"])
    first = graph.add("RandomNoise", noise_seed=0)
    graph.column("First pass, larger", width=300)
    sampled = custom(graph, first, guider, sampler, coarse["SIGMAS"], empty["LATENT"])
    large = graph.add("LatentUpscaleBy", samples=sampled, upscale_method="bislerp", scale_by=1.5)
    graph.column("Second pass")
    fine = graph.add("TCD_Scheduler", "Second pass: 8 steps", model=lora["MODEL"], steps=8)
    split = graph.add("SplitSigmas", sigmas=fine["SIGMAS"], step=5)
    second = graph.add("RandomNoise", noise_seed=1)
    graph.column("Picture", width=420)
    again = custom(graph, second, guider, sampler, split["low_sigmas"], large["LATENT"])
    save(graph, again, loader["VAE"])
    return graph


def controlled(graph: Graph, net: str, hint: Output, loader: Node, lora: Node, text: str) -> None:
    """All columns from the prompt on of a workflow with a ControlNet; `hint` is the picture that it follows."""
    graph.column("Prompt and control")
    positive = graph.add("CLIPTextEncode", clip=loader["CLIP"], text=text)
    negative = graph.add("CLIPTextEncode", "Negative: without effect at cfg 1", clip=loader["CLIP"], text="")
    control = graph.add("ControlNetLoader", control_net_name=net)
    empty = graph.add("EmptyLatentImage", width=512, height=512)
    graph.column("Sampling")
    both = graph.add(
        "ControlNetApplyAdvanced",
        positive=positive["CONDITIONING"],
        negative=negative["CONDITIONING"],
        control_net=control["CONTROL_NET"],
        image=hint,
        strength=0.8,
    )
    guider = graph.add("CFGGuider", model=lora["MODEL"], positive=both["positive"], negative=both["negative"], cfg=1.0)[
        "GUIDER"
    ]
    save(graph, sample(graph, lora["MODEL"], guider, empty["LATENT"]), loader["VAE"])


CONTROL_TRIES = (
    "strength 0.5 to 1 in *Apply ControlNet*",
    "end_percent 0.6: the last steps are free",
    "cfg 1.5 with a negative prompt: every step then costs two evaluations",
)


def canny(kinds: dict) -> Graph:
    """Edges of a picture."""
    graph = Graph(
        kinds,
        "Canny ControlNet",
        "The picture follows the edges of another one; ComfyUI's own *Canny* node finds them. An ordinary ControlNet "
        "of the base model works with TCD as it is.",
        tries=CONTROL_TRIES,
    )
    loader, lora = checkpoint(graph, SD15, LORA)
    graph.column("Edges", width=300)
    picture = graph.add("LoadImage", image=EXAMPLE)
    edges = graph.add("Canny", image=picture["IMAGE"])
    graph.add("PreviewImage", images=edges["IMAGE"])
    controlled(
        graph, "control_v11p_sd15_canny_fp16.safetensors", edges["IMAGE"], loader, lora, "a house of gingerbread"
    )
    return graph


def depth(kinds: dict) -> Graph:
    """A picture of distances."""
    graph = Graph(
        kinds,
        "Depth ControlNet",
        "The picture follows the distances in a depth map: near is white, far is black. Load yours in *Load Image*; "
        "without a pack that estimates depth, renderers and phones make them. ComfyUI's example only shows that the "
        "workflow runs.",
        tries=CONTROL_TRIES,
    )
    loader, lora = checkpoint(graph, SD15, LORA)
    graph.column("Depth", width=300)
    picture = graph.add("LoadImage", "Load Image: a depth map", image=EXAMPLE)
    net = "control_v11f1p_sd15_depth_fp16.safetensors"
    controlled(graph, net, picture["IMAGE"], loader, lora, "a valley between mountains, at dusk")
    return graph


# Two nodes of that pack, as /object_info would tell: the workflow is written where the pack is missing too.
IP_ADAPTER_PACK = "ComfyUI_IPAdapter_plus"
REGISTERED = {"cnr_id": "comfyui_ipadapter_plus"}  # by which the front end finds a pack that is missing
IP_ADAPTER_NODES = {
    "IPAdapterUnifiedLoader": {
        "input": {
            "required": {"model": ["MODEL"], "preset": [["STANDARD (medium strength)"]]},
            "optional": {"ipadapter": ["IPADAPTER"]},
        },
        "output": ["MODEL", "IPADAPTER"],
        "output_name": ["model", "ipadapter"],
        "display_name": "IPAdapter Unified Loader",
        "properties": REGISTERED,
    },
    "IPAdapter": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "ipadapter": ["IPADAPTER"],
                "image": ["IMAGE"],
                "weight": ["FLOAT", {"default": 1.0}],
                "start_at": ["FLOAT", {"default": 0.0}],
                "end_at": ["FLOAT", {"default": 1.0}],
                "weight_type": [["standard", "prompt is more important", "style transfer"]],
            },
            "optional": {"attn_mask": ["MASK"]},
        },
        "output": ["MODEL"],
        "output_name": ["MODEL"],
        "display_name": "IPAdapter",
        "properties": REGISTERED,
    },
}


def ip_adapter(kinds: dict) -> Graph:
    """A picture as a prompt."""
    graph = Graph(
        kinds | IP_ADAPTER_NODES,
        "IP-Adapter",
        "A picture as a prompt, beside the text. The nodes are those of the pack "
        f"[{IP_ADAPTER_PACK}](https://github.com/cubiq/{IP_ADAPTER_PACK}): without it they are shown in red. Its "
        "attention patches and TCD do not get in each other's way.",
        tries=("weight 0.4 to 1", "*style transfer* in weight_type: its colours and strokes, not its content"),
        also=("ip-adapter_sd15.safetensors", "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"),
    )
    loader, lora = checkpoint(graph, SD15, LORA)
    graph.column("IP-Adapter")
    unified = graph.add("IPAdapterUnifiedLoader", model=lora["MODEL"], preset="STANDARD (medium strength)")
    picture = graph.add("LoadImage", image=EXAMPLE)
    adapted = graph.add(
        "IPAdapter",
        model=unified["model"],
        ipadapter=unified["ipadapter"],
        image=picture["IMAGE"],
        weight=0.7,
        weight_type="standard",
    )
    text, empty = prompt(graph, loader["CLIP"], FOX, 512, 512)
    guider = basic(graph, adapted["MODEL"], text["CONDITIONING"])
    save(graph, sample(graph, adapted["MODEL"], guider, empty["LATENT"]), loader["VAE"])
    return graph
