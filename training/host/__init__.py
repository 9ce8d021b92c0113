"""The only place of the trainer that knows ComfyUI.

start.py          where it is, and how it is started as a library
models.py         its own objects, and what they are in tcd's words
loading.py        checkpoints as such objects
gradients.py      what its networks need to have one
teacher.py        the same, as the options want it
conditioning.py   texts, pictures and sizes
diffusion.py      the diffusion model, which is told of them
"""

from .conditioning import Cond, Size, decode_latents, downscale, encode_pictures, encode_text
from .diffusion import Network
from .loading import load
from .models import DTYPES, Models, place, release
from .start import comfyui_folder, start
from .teacher import load_teacher

__all__ = [
    "DTYPES",
    "Cond",
    "Models",
    "Network",
    "Size",
    "comfyui_folder",
    "decode_latents",
    "downscale",
    "encode_pictures",
    "encode_text",
    "load",
    "load_teacher",
    "place",
    "release",
    "start",
]
