"""Everything that a training step draws from: latents, what the network is told of them, and their order.

sources.py, config.py  kohya's folders and dataset TOML, as subsets with their own options
captions.py            how captions are read and varied
pictures.py            files as pixels
buckets.py             which sizes there are, and how a picture is cut
prompts.py             the teacher's latents instead of pictures
survey.py, bad.py      what there is, and what cannot be used
cache.py, samples.py   what is kept, and by which key
encode.py, texts.py    by the VAE and by the text encoders
batches.py             which samples a step sees
"""

from typing import TYPE_CHECKING

from .. import host
from ..options import Options
from . import bad, buckets, encode, prompts
from .batches import Batch, Dataset
from .survey import Survey, survey
from .texts import texts, unconditional

if TYPE_CHECKING:
    from ..network import Parts

__all__ = ["Batch", "Dataset", "Survey", "load", "survey"]


def load(models: host.Models, opts: Options, parts: "Parts | None" = None, found: Survey | None = None) -> Dataset:
    """Everything that training draws from, encoded where it is to be cached.

    Prompts need the `parts`, for the teacher. `found` is the survey, where it was made before the model was loaded.
    Raises ValueError that names all of the data that cannot be used.
    """
    found = found or survey(opts)
    for sample in found.samples:
        buckets.check(sample.opts, max(8, host.downscale(models)))
    encoded = texts(models, (sample.caption for sample in found.samples), opts)
    uncond = unconditional(encoded, opts)
    if opts.prompts:
        if parts is None:
            raise ValueError("prompts need the parts of the model, whose teacher makes the latents")
        latents, wrong = prompts.latents(models, parts, found.samples, encoded, uncond, opts)
    else:
        latents, wrong = encode.latents(models, found.samples, opts)
    bad.settle(wrong, len(found.samples), opts)
    return Dataset(found.without(wrong), uncond, latents, encoded, opts.seed)
