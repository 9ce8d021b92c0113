"""Random workflows of all sampling nodes on the tiny model, in API format, and what they give in this process."""

from pathlib import Path
from random import Random
from typing import Any

from host_process import run

Node = dict[str, Any]
Graph = dict[str, Node]
Link = list[Any]

TEXTS = ("red heart", "cat face", "a small green tree with a smiling face", "")
LORAS = ("tcd_tiny_lora", "tcd_splus_tiny_lora", "lcm_tiny_lora")
CURVES = ("linear", "smooth", "early", "late")


def node(kind: str, **inputs: Any) -> Node:
    return {"class_type": kind, "inputs": inputs}


def beginning(random: Random) -> Graph:
    """Model, prompts and an empty latent, of few sizes: for each that is new, PyTorch keeps kernels of its own."""
    strength = random.choice([1.0, 1.0, round(random.uniform(-0.5, 1.5), 2)])
    width, height = (random.choice([64, 96]) for _ in range(2))
    return {
        "tiny": node("TCD_TinyLoader"),
        "lora": node(
            "TCD_LoraLoader", model=["tiny", 0], lora=f"{random.choice(LORAS)}.safetensors", strength=strength
        ),
        "positive": node("CLIPTextEncode", clip=["tiny", 1], text=random.choice(TEXTS)),
        "negative": node("CLIPTextEncode", clip=["tiny", 1], text=random.choice(TEXTS)),
        "empty": node("EmptyLatentImage", width=width, height=height, batch_size=random.randint(1, 2)),
    }


def sampling(random: Random, lora: str) -> dict[str, Any]:
    """What TCD_Sampler and TCD_KSampler share; perhaps with a schedule of gamma, or as the LoRA recommends."""
    orders = ["1", "1", "2", *(["s+"] if "splus" in lora else [])]
    inputs: dict[str, Any] = {"gamma": round(random.random(), 2), "order": random.choice(orders)}
    inputs["last_step"] = random.choice(["x0", "x0", "t0"])
    more: dict[str, Any] = {"gammas": ["gammas", 0], "settings": ["lora", 2]}
    return inputs | {name: link for name, link in more.items() if random.random() < 0.3}


def gammas(random: Random) -> Node:
    start, end = round(random.random(), 2), round(random.random(), 2)
    return node("TCD_GammaSchedule", start=start, end=end, curve=random.choice(CURVES), values="")


def spacing(random: Random) -> dict[str, Any]:
    """Steps from one of the grids."""
    denoise = random.choice([1.0, 1.0, 0.7])
    return {"steps": random.randint(1, 4), "denoise": denoise, "grid": random.choice(["distillation", "dense"])}


def all_in_one(random: Random, graph: Graph) -> Graph:
    """By TCD_KSampler."""
    inputs = sampling(random, graph["lora"]["inputs"]["lora"]) | spacing(random)
    inputs |= {"seed": random.getrandbits(64), "cfg": random.choice([1.0, 1.0, 3.5])}
    links = {"model": ["lora", 0], "positive": ["positive", 0], "negative": ["negative", 0], "latent": ["empty", 0]}
    return {"sampled": node("TCD_KSampler", **links, **inputs)}


def guider(random: Random, model: Link) -> Node:
    if random.random() < 0.7:
        return node("BasicGuider", model=model, conditioning=["positive", 0])
    return node("CFGGuider", model=model, positive=["positive", 0], negative=["negative", 0], cfg=2.5)


def in_parts(random: Random, graph: Graph) -> Graph:
    """By TCD_Sampler and TCD_Scheduler in SamplerCustomAdvanced, on a model that records."""
    levels = spacing(random) | {"times": ""}
    if random.random() < 0.3:
        times = sorted(random.sample(range(1, 1000), random.randint(1, 4)), reverse=True)
        levels |= {"times": ", ".join(map(str, times)), "denoise": 1.0}
    inputs = sampling(random, graph["lora"]["inputs"]["lora"]) | {
        "noise_offset": random.choice([0, random.getrandbits(32)])
    }
    links = {name: [name, 0] for name in ("noise", "guider", "sampler", "sigmas")}
    return {
        "recorded": node("TCD_RecordTrajectory", model=["lora", 0], reference=random.random() < 0.2),
        "guider": guider(random, ["recorded", 0]),
        "sigmas": node("TCD_Scheduler", model=["lora", 0], **levels),
        "sampler": node("TCD_Sampler", **inputs),
        "noise": node("RandomNoise", noise_seed=random.getrandbits(64)),
        "sampled": node("SamplerCustomAdvanced", **links, latent_image=["empty", 0]),
    }


def ending(random: Random, graph: Graph, name: str) -> Graph:
    """The latent in a file of that name; and, of one in ten, the trajectory that led to it."""
    saved = {"saved": node("SaveLatent", samples=["sampled", 0], filename_prefix=name)}
    if random.random() > 0.1:
        return saved
    trajectory = ["recorded", 1] if "recorded" in graph else ["sampled", 2]
    vae = {"vae": ["tiny", 2]} if random.random() < 0.5 else {}
    return saved | {
        "view": node("TCD_ViewTrajectory", trajectory=trajectory, latent=["sampled", 0], item=0, save=False, **vae)
    }


def random_graph(random: Random, name: str) -> Graph:
    """A workflow whose node "sampled" gives the latent that its node "saved" writes."""
    graph = beginning(random) | {"gammas": gammas(random)}
    graph |= random.choice([all_in_one, in_parts])(random, graph)
    return graph | ending(random, graph, name)


def long_graph(random: Random, name: str, log: Path) -> Graph:
    """One that samples until it is cancelled, its evaluations written to a log."""
    graph = beginning(random) | {"gammas": gammas(random)}
    graph |= all_in_one(random, graph)
    graph["probe"] = node("TEST_Probe", model=["lora", 0], log=str(log), fails_at=0)
    forever = {"model": ["probe", 0], "steps": 1000, "denoise": 1.0, "grid": "dense"}
    graph["sampled"]["inputs"] = {k: v for k, v in graph["sampled"]["inputs"].items() if k != "settings"} | forever
    return graph | {"saved": node("SaveLatent", samples=["sampled", 0], filename_prefix=name)}


def direct(graph: Graph, name: str, made: dict[str, tuple]) -> tuple:
    """What a node of the graph gives, called in this process; `made` holds what is there already, and gets it all."""
    if name not in made:
        kind, inputs = graph[name]["class_type"], graph[name]["inputs"]
        linked = {key: direct(graph, value[0], made)[value[1]] for key, value in inputs.items() if is_link(value)}
        made[name] = run(kind, **inputs | linked)
    return made[name]


def is_link(value: Any) -> bool:
    return isinstance(value, list)
