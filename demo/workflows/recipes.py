"""What most workflows have in common, a column or a part of one at a time."""

from demo.workflows.builder import Graph, Node, Output


def checkpoint(graph: Graph, name: str, lora: str) -> tuple[Node, Node]:
    """A column with a checkpoint and a distilled LoRA on it."""
    graph.column("Model")
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=name)
    return loader, graph.add("TCD_LoraLoader", model=loader["MODEL"], lora=lora)


def prompt(
    graph: Graph, clip: Output, text: str, width: int, height: int, kind: str = "EmptyLatentImage"
) -> tuple[Node, Node]:
    """A column with a text and an empty latent."""
    graph.column("Prompt and size")
    encoded = graph.add("CLIPTextEncode", clip=clip, text=text)
    return encoded, graph.add(kind, width=width, height=height)


def basic(graph: Graph, model: Output, conditioning: Output) -> Output:
    """A column that begins with a guider without guidance: cfg 1."""
    graph.column("Sampling")
    return graph.add("BasicGuider", model=model, conditioning=conditioning)["GUIDER"]


def sample(graph: Graph, model: Output, guider: Output, latent: Output, noise_seed: int = 0, **given: object) -> Output:
    """TCD's sampler, scheduler and noise in the current column, and the sampling in the next.

    `given` are inputs of TCD_Sampler and TCD_Scheduler; each takes those it has.
    """
    sampler = graph.add("TCD_Sampler", **graph.fitting("TCD_Sampler", given))
    sigmas = graph.add("TCD_Scheduler", model=model, **graph.fitting("TCD_Scheduler", given))
    noise = graph.add("RandomNoise", noise_seed=noise_seed)
    graph.column("Picture", width=420)
    return custom(graph, noise, guider, sampler, sigmas["SIGMAS"], latent)


def custom(
    graph: Graph, noise: Node, guider: Output, sampler: Node, sigmas: Output, latent: Output, title: str = ""
) -> Output:
    """SamplerCustomAdvanced with all it needs; gives the sampled latent."""
    return graph.add(
        "SamplerCustomAdvanced",
        title,
        noise=noise["NOISE"],
        guider=guider,
        sampler=sampler["SAMPLER"],
        sigmas=sigmas,
        latent_image=latent,
    )["output"]


def save(graph: Graph, sampled: Output, vae: Output, prefix: str = "TCD") -> None:
    """The decoded picture, saved."""
    decoded = graph.add("VAEDecode", samples=sampled, vae=vae)
    graph.add("SaveImage", images=decoded["IMAGE"], filename_prefix=prefix)
