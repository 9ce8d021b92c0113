"""Workflows of the embedded tiny model: nothing has to be downloaded, and any computer runs them in seconds."""

from demo.workflows.builder import Graph, Node, Output
from demo.workflows.recipes import custom, save

LORA, LCM, SPLUS = "tcd_tiny_lora.safetensors", "lcm_tiny_lora.safetensors", "tcd_splus_tiny_lora.safetensors"
TEXT, SIZE, BATCH = "red heart", 128, 4
ROCKET = "rocket"
PITCH = 230  # pixels from one row of a comparison to the next


def model(graph: Graph) -> tuple[Node, Node]:
    """A column with the model and its LoRA."""
    graph.column("Tiny model")
    loader = graph.add("TCD_TinyLoader")
    return loader, graph.add("TCD_LoraLoader", model=loader["MODEL"], lora=LORA)


def other_lora(graph: Graph, loader: Node, title: str, name: str) -> Output:
    """A second LoRA in the column of the first, on the model itself."""
    return graph.add("TCD_LoraLoader", title, model=loader["MODEL"], lora=name)["MODEL"]


def prompt(graph: Graph, loader: Node, text: str) -> Output:
    """A column with the text."""
    graph.column("Prompt")
    return graph.add("CLIPTextEncode", clip=loader["CLIP"], text=text)["CONDITIONING"]


def start(graph: Graph) -> tuple[Node, Output]:
    """Noise and size, at the end of a column."""
    noise = graph.add("RandomNoise", noise_seed=0)
    return noise, graph.add("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=BATCH)["LATENT"]


def strips(graph: Graph, vae: Output, runs: dict[str, tuple]) -> None:
    """Columns that sample, decode and join: a strip for each picture of the batch, in the order of the runs.

    A run has a title and what `custom` wants: noise node, GUIDER, sampler node, SIGMAS, LATENT.
    """
    graph.column("Sample", width=340, pitch=PITCH, space=160)
    sampled = [custom(graph, *run, title=title) for title, run in runs.items()]
    graph.column("Decode", width=220, pitch=PITCH)
    decoded = [graph.add("VAEDecode", samples=one, vae=vae)["IMAGE"] for one in sampled]
    graph.column("Side by side", pitch=PITCH)
    joined = decoded[0]
    for picture in decoded[1:]:
        joined = graph.add("ImageStitch", image1=joined, image2=picture, spacing_width=4)["IMAGE"]
    graph.column("Result", width=620)
    graph.add("PreviewImage", images=joined)


def tcd(kinds: dict) -> Graph:
    """The first workflow: pictures and their trajectory."""
    graph = Graph(
        kinds,
        "First pictures, and the way to them",
        "Four pictures in **4 network evaluations** each, by the emoji model that comes with this pack, on any "
        "computer. *TCD View Trajectory* shows what happened: the noise level going down and up again, and the clean "
        "prediction of every step.",
        tries=(
            "gamma 0 and 1 in *TCD Sampler*: no noise on the way, and the most",
            "1, 2 and 8 steps in *TCD Scheduler*",
            "another emoji: *cat face*, *rocket*, *pizza*, *crying face*",
        ),
    )
    loader, lora = model(graph)
    record = graph.add("TCD_RecordTrajectory", model=lora["MODEL"])
    text = prompt(graph, loader, TEXT)
    noise, empty = start(graph)
    graph.column("Sampling")
    guider = graph.add("BasicGuider", model=record["MODEL"], conditioning=text)
    sampler = graph.add("TCD_Sampler")
    sigmas = graph.add("TCD_Scheduler", model=record["MODEL"])
    graph.column("Pictures", width=420)
    sampled = custom(graph, noise, guider["GUIDER"], sampler, sigmas["SIGMAS"], empty)
    save(graph, sampled, loader["VAE"])
    graph.column("Trajectory", width=720)
    graph.add("TCD_ViewTrajectory", trajectory=record["trajectory"], latent=sampled, vae=loader["VAE"])
    return graph


def gamma_sweep(kinds: dict) -> Graph:
    """The same noise with six gammas."""
    gammas = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    graph = Graph(
        kinds,
        "What gamma does",
        "The same noise sampled with gamma **0, 0.2, 0.4, 0.6, 0.8 and 1**, from left to right; every strip is another "
        "picture of the batch. At each step the sampler goes below its target and puts noise back: gamma says how far. "
        "0 is deterministic (as Euler and DDIM), 1 throws everything away but the clean prediction (as LCM).",
        tries=(
            "2 and 8 steps in *TCD Scheduler*: the fewer steps, the less gamma has to say",
            "*noise_offset* in one *TCD Sampler*: other noise on the way, from the same start",
            "the paper's authors use 0.2 to 0.3 at 4 steps",
        ),
    )
    loader, lora = model(graph)
    text = prompt(graph, loader, ROCKET)
    graph.column("gamma", pitch=PITCH)
    titles = [f"gamma {gamma:g}" for gamma in gammas]
    samplers = [graph.add("TCD_Sampler", title, gamma=gamma) for title, gamma in zip(titles, gammas, strict=True)]
    graph.column("The same for all")
    guider = graph.add("BasicGuider", model=lora["MODEL"], conditioning=text)["GUIDER"]
    sigmas = graph.add("TCD_Scheduler", model=lora["MODEL"])["SIGMAS"]
    noise, empty = start(graph)
    runs = [(noise, guider, sampler, sigmas, empty) for sampler in samplers]
    strips(graph, loader["VAE"], dict(zip(titles, runs, strict=True)))
    return graph


def orders(kinds: dict) -> Graph:
    """TCF(1), TCF(2) and TCF(S+) at equal evaluations, and TCF(2) at equal steps."""
    graph = Graph(
        kinds,
        "Orders 1, 2 and s+",
        "The three trajectory consistency functions. From left to right: order 1 in 4 steps, order 2 in 2 steps, order "
        "s+ in 4 steps: **4 network evaluations each**; then order 2 in 4 steps, which costs 8. Order 2 looks at the "
        "midpoint of every step. Order s+ tells the network where the step goes, and needs a LoRA that was distilled "
        "for it: here one of its own. In the paper order 1 scored best (4 steps: FID 12.68, order 2 13.35, s+ 13.03).",
        tries=(
            "2 against 1 step, and 8 against 4",
            "gamma 0 in all: what remains is the function itself",
            "order s+ with the other LoRA: the node says why not",
        ),
    )
    loader, lora = model(graph)
    hearing = other_lora(graph, loader, "LoRA for order s+", SPLUS)
    text = prompt(graph, loader, ROCKET)
    graph.column("Order", pitch=PITCH)
    first = graph.add("TCD_Sampler", "order 1", order="1")
    second = graph.add("TCD_Sampler", "order 2", order="2")
    splus = graph.add("TCD_Sampler", "order s+", order="s+")
    graph.column("Guiders, steps, noise, size")
    guider = graph.add("BasicGuider", "Orders 1 and 2", model=lora["MODEL"], conditioning=text)["GUIDER"]
    told = graph.add("BasicGuider", "Order s+", model=hearing, conditioning=text)["GUIDER"]
    four = graph.add("TCD_Scheduler", "4 steps", model=lora["MODEL"], steps=4)["SIGMAS"]
    two = graph.add("TCD_Scheduler", "2 steps", model=lora["MODEL"], steps=2)["SIGMAS"]
    noise, empty = start(graph)
    runs = {
        "order 1, 4 steps: 4 evaluations": (noise, guider, first, four, empty),
        "order 2, 2 steps: 4 evaluations": (noise, guider, second, two, empty),
        "order s+, 4 steps: 4 evaluations": (noise, told, splus, four, empty),
        "order 2, 4 steps: 8 evaluations": (noise, guider, second, four, empty),
    }
    strips(graph, loader["VAE"], runs)
    return graph


def solvers(kinds: dict) -> Graph:
    """TCD, LCM, Euler and DPM++ at 4 network evaluations."""
    graph = Graph(
        kinds,
        "TCD against LCM, Euler and DPM++",
        "**Four network evaluations each**, from the same noise. From left to right: TCD; LCM, ComfyUI's sampler of "
        "that name on an LCM LoRA, which was trained as long on the same pictures; Euler and DPM++ 2M on the plain "
        "model without guidance, 4 steps; DPM++ 2M with guidance 4, for which 2 steps are left, as a guided step costs "
        "two evaluations.",
        tries=(
            "4 steps in *2 steps, guided* (8 evaluations), then 10 and 25: where the solvers catch up",
            "1 step everywhere",
        ),
    )
    loader, lora = model(graph)
    lcm_lora = other_lora(graph, loader, "LCM LoRA", LCM)
    text, plain = prompt(graph, loader, ROCKET), loader["MODEL"]
    nothing = graph.add("CLIPTextEncode", "Negative (empty)", clip=loader["CLIP"], text="")["CONDITIONING"]
    graph.column("Samplers")
    ours = graph.add("TCD_Sampler")
    lcm = graph.add("KSamplerSelect", "LCM", sampler_name="lcm")
    euler = graph.add("KSamplerSelect", "Euler", sampler_name="euler")
    dpmpp = graph.add("KSamplerSelect", "DPM++ 2M", sampler_name="dpmpp_2m")
    graph.column("Steps, noise, size")
    grid = graph.add("TCD_Scheduler", model=lora["MODEL"])["SIGMAS"]
    four = graph.add("BasicScheduler", "4 steps", model=plain, scheduler="normal", steps=4)["SIGMAS"]
    two = graph.add("BasicScheduler", "2 steps, guided", model=plain, scheduler="normal", steps=2)["SIGMAS"]
    noise, empty = start(graph)
    graph.column("Guiders", pitch=PITCH)
    distilled = graph.add("BasicGuider", "With the TCD LoRA", model=lora["MODEL"], conditioning=text)["GUIDER"]
    consistent = graph.add("BasicGuider", "With the LCM LoRA", model=lcm_lora, conditioning=text)["GUIDER"]
    bare = graph.add("BasicGuider", "Plain model", model=plain, conditioning=text)["GUIDER"]
    guided = graph.add("CFGGuider", "Plain model, guided", model=plain, positive=text, negative=nothing, cfg=4.0)
    runs = {
        "TCD, 4 steps": (noise, distilled, ours, grid, empty),
        "LCM LoRA, 4 steps": (noise, consistent, lcm, grid, empty),
        "Euler, 4 steps": (noise, bare, euler, four, empty),
        "DPM++ 2M, 4 steps": (noise, bare, dpmpp, four, empty),
        "DPM++ 2M, 2 steps, guided": (noise, guided["GUIDER"], dpmpp, two, empty),
    }
    strips(graph, loader["VAE"], runs)
    return graph


def trajectories(kinds: dict) -> Graph:
    """Two runs of the same noise in one viewer."""
    graph = Graph(
        kinds,
        "Two trajectories side by side",
        "The same seed sampled with gamma **0.3 in 4 steps** and **1 in 8 steps**, each by one *TCD KSampler*, which "
        "gives its trajectory too. *TCD View Trajectory* shows both: drag its slider, or click it and press the "
        "arrow keys.",
        tries=(
            "gamma 0 in the second: what the noise changes",
            "*order* 2 in one of them",
            "batch size 3, and the list of pictures beside the slider",
        ),
    )
    loader, lora = model(graph)
    text = prompt(graph, loader, ROCKET)
    _, empty = start(graph)
    graph.column("Sampling")
    given = {"model": lora["MODEL"], "seed": 3, "positive": text, "negative": text, "latent": empty}
    first = graph.add("TCD_KSampler", "gamma 0.3, 4 steps", gamma=0.3, steps=4, **given)
    second = graph.add("TCD_KSampler", "gamma 1, 8 steps", gamma=1.0, steps=8, **given)
    graph.column("Trajectory", width=720)
    runs = {"trajectory": first["trajectory"], "latent": first["latent"], "compare": second["trajectory"]}
    graph.add("TCD_ViewTrajectory", vae=loader["VAE"], **runs)
    return graph


def sheet(kinds: dict) -> Graph:
    """TCD Compare."""
    graph = Graph(
        kinds,
        "Many methods on one sheet",
        "*TCD Compare* samples the same noise by several methods at **equal network evaluations**: TCD and LCM, each "
        "with a LoRA of its own, Euler and DPM++ 2S on the plain model with guidance, whose steps cost two evaluations "
        "and more.",
        tries=(
            "*methods*: add ddim and dpmpp_2m",
            "*gammas* 0, 0.3, 0.6, 1: a row for each",
            "*steps* 4, 8, 20, 50: where the solvers catch up",
            "no *lcm_model*: lcm then is gamma 1 on the TCD LoRA",
        ),
    )
    loader, lora = model(graph)
    lcm = other_lora(graph, loader, "LCM LoRA", LCM)
    text = prompt(graph, loader, ROCKET)
    nothing = graph.add("CLIPTextEncode", "Negative (empty)", clip=loader["CLIP"], text="")["CONDITIONING"]
    empty = graph.add("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=1)["LATENT"]
    graph.column("Sheet", width=620)
    given = {"model": lora["MODEL"], "vae": loader["VAE"], "positive": text, "negative": nothing, "latent": empty}
    choices = {"steps": "1, 2, 4, 8", "gammas": "0.3", "equal_evaluations": True, "cfg": 4.0}
    graph.add("TCD_Compare", teacher=loader["MODEL"], lcm_model=lcm, **given, **choices)
    return graph
