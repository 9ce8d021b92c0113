"""Workflows of Stable Diffusion XL, and of its successor SD 3."""

from demo.workflows.builder import Graph
from demo.workflows.recipes import basic, checkpoint, prompt, sample, save

SDXL, LORA = "sd_xl_base_1.0.safetensors", "TCD-SDXL-LoRA.safetensors"
LAMP = "a paper lantern floating over a still lake at night, reflections, photograph"


def tcd(kinds: dict) -> Graph:
    """Text to picture."""
    graph = Graph(
        kinds,
        "SDXL in 4 steps",
        "Text to picture at 1024 x 1024 in **4 network evaluations**, with the settings of the LoRA's authors: gamma "
        "0.3, no guidance (*BasicGuider* is cfg 1, diffusers' guidance_scale 0).",
        tries=(
            "gamma 0.2 to 0.5: more of it gives more detail",
            "8 steps; TCD's authors then advise more gamma, those of Hyper-SD less",
            "order 2 in 4 steps: 8 evaluations",
        ),
    )
    loader, lora = checkpoint(graph, SDXL, LORA)
    text, empty = prompt(graph, loader["CLIP"], LAMP, 1024, 1024)
    guider = basic(graph, lora["MODEL"], text["CONDITIONING"])
    save(graph, sample(graph, lora["MODEL"], guider, empty["LATENT"]), loader["VAE"])
    return graph


def all_in_one(kinds: dict) -> Graph:
    """One node for sampler, scheduler, noise and guidance."""
    graph = Graph(
        kinds,
        "All in one node",
        "*TCD KSampler* holds sampler, scheduler, noise, guidance and recording. Here it is given 8 steps and a gamma "
        "that falls from 0.6 to 0.1 (*TCD Gamma Schedule*): much is decided anew early, little late. Its trajectory "
        "goes straight to *TCD View Trajectory*.",
        tries=(
            "disconnect *gammas*: then the node's own gamma counts",
            "*settings* of *TCD LoRA Loader*, connected: the node's steps, cfg, gamma and order are then the LoRA's",
            "denoise below 1 with an encoded picture as latent",
        ),
    )
    loader, lora = checkpoint(graph, SDXL, LORA)
    gammas = graph.add("TCD_GammaSchedule", start=0.6, end=0.1, curve="linear")
    text, empty = prompt(graph, loader["CLIP"], LAMP, 1024, 1024)
    negative = graph.add("CLIPTextEncode", "Negative: without effect at cfg 1", clip=loader["CLIP"], text="")
    graph.column("All in one")
    sampled = graph.add(
        "TCD_KSampler",
        model=lora["MODEL"],
        seed=0,
        steps=8,
        positive=text["CONDITIONING"],
        negative=negative["CONDITIONING"],
        latent=empty["LATENT"],
        gammas=gammas["gammas"],
    )
    graph.column("Picture", width=420)
    save(graph, sampled["latent"], loader["VAE"])
    graph.column("Trajectory", width=720)
    graph.add("TCD_ViewTrajectory", trajectory=sampled["trajectory"], latent=sampled["latent"], vae=loader["VAE"])
    return graph


def style_lora(kinds: dict) -> Graph:
    """A style on top of the distillation."""
    graph = Graph(
        kinds,
        "SDXL with a style LoRA",
        "A style LoRA of the base model first, TCD's after it; 4 steps as before. The order of the two makes no "
        "difference, and *TCD LoRA Loader* refuses a file that does not fit the model.",
        tries=("strength 0.6 to 1.2 of the style", "two styles: another *LoraLoaderModelOnly* between them"),
    )
    graph.column("Model")
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=SDXL)
    style = graph.add("LoraLoaderModelOnly", "Style", model=loader["MODEL"], lora_name="papercut.safetensors")
    lora = graph.add("TCD_LoraLoader", model=style["MODEL"], lora=LORA)
    text, empty = prompt(graph, loader["CLIP"], "papercut of a winter mountain, snow", 1024, 1024)
    guider = basic(graph, lora["MODEL"], text["CONDITIONING"])
    save(graph, sample(graph, lora["MODEL"], guider, empty["LATENT"]), loader["VAE"])
    return graph


def animagine(kinds: dict) -> Graph:
    """An anime base model."""
    graph = Graph(
        kinds,
        "An anime model: Animagine XL",
        "TCD's SDXL LoRA on a base model that it was not distilled from. Such models are further away: 8 steps suit "
        "them better than 4. The prompt is written in tags, the model's quality tags last, and the size is one that it "
        "was trained on.",
        tries=("4 steps", "1024 x 1024, 896 x 1152, 1216 x 832", "another SDXL model of this kind: Illustrious, Pony"),
    )
    loader, lora = checkpoint(graph, "animagine-xl-3.1.safetensors", LORA)
    tags = "1girl, witch hat, silver hair, library, floating books, masterpiece, best quality, very aesthetic"
    text, empty = prompt(graph, loader["CLIP"], tags, 832, 1216)
    guider = basic(graph, lora["MODEL"], text["CONDITIONING"])
    save(graph, sample(graph, lora["MODEL"], guider, empty["LATENT"], steps=8), loader["VAE"])
    return graph


def recommended(kinds: dict, title: str, about: str, tries: tuple[str, ...], lora_name: str) -> Graph:
    """A LoRA of other authors, sampled with the settings that suit it."""
    graph = Graph(kinds, title, about, tries)
    loader, lora = checkpoint(graph, SDXL, lora_name)
    text, empty = prompt(graph, loader["CLIP"], LAMP, 1024, 1024)
    negative = graph.add("CLIPTextEncode", "Negative", clip=loader["CLIP"], text="")
    graph.column("Sampling")
    guider = graph.add(
        "CFGGuider",
        model=lora["MODEL"],
        positive=text["CONDITIONING"],
        negative=negative["CONDITIONING"],
        cfg=lora["cfg"],
    )["GUIDER"]
    sampled = sample(graph, lora["MODEL"], guider, empty["LATENT"], settings=lora["settings"])
    save(graph, sampled, loader["VAE"])
    return graph


def hyper_sd(kinds: dict) -> Graph:
    """Hyper-SD's unified LoRA."""
    return recommended(
        kinds,
        "Hyper-SD, unified LoRA",
        "Hyper-SD's one-step LoRA is made for TCD sampling at 1 to 8 steps. *TCD LoRA Loader* knows it by its name and "
        "says what suits it: **settings** goes into sampler and scheduler and replaces their gamma, order and steps, "
        "**cfg** into the guider.",
        (
            "disconnect *settings* and choose by hand: gamma 1 at 1 step, 0.5 at 4, 0.3 at 8",
            "1 step: what it was distilled for",
        ),
        "Hyper-SDXL-1step-lora.safetensors",
    )


def pcm(kinds: dict) -> Graph:
    """Phased consistency."""
    return recommended(
        kinds,
        "Phased consistency (PCM) LoRA",
        "A PCM LoRA is sampled without noise on the way: gamma 0. *TCD LoRA Loader* knows it by its name and says what "
        "suits it: **settings** goes into sampler and scheduler and replaces their gamma, order and steps; **cfg** "
        "goes into the guider. Of the kind *smallcfg*, guidance up to 2 is possible.",
        (
            "disconnect *cfg* and set 1.5, with a negative prompt: every step then costs two evaluations",
            "gamma 0.2 without *settings*",
        ),
        "pcm_sdxl_smallcfg_4step_converted.safetensors",
    )


def sd3(kinds: dict) -> Graph:
    """A rectified flow."""
    graph = Graph(
        kinds,
        "Rectified flow: SD 3",
        "TCD on a rectified flow: *ModelSamplingSD3* sets its shift, *TCD Scheduler* takes the distilled times, and "
        "*TCD Sampler* puts noise back by the flow's own rule.\n\nNo TCD LoRA of a flow model has been published that "
        "we know of: the LoRA's name here stands for one of your own. Without any, bypass the LoRA node (Ctrl-B), set "
        "gamma 0 and 28 steps: that is Euler.",
        tries=("gamma 0.1 to 0.3", "the shift that your LoRA was distilled with"),
    )
    loader, lora = checkpoint(graph, "sd3_medium_incl_clips.safetensors", "sd3_tcd_lora.safetensors")
    shifted = graph.add("ModelSamplingSD3", model=lora["MODEL"], shift=3.0)
    text, empty = prompt(graph, loader["CLIP"], LAMP, 1024, 1024, "EmptySD3LatentImage")
    guider = basic(graph, shifted["MODEL"], text["CONDITIONING"])
    save(graph, sample(graph, shifted["MODEL"], guider, empty["LATENT"]), loader["VAE"])
    return graph
