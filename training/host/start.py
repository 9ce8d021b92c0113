"""Where ComfyUI is, and how it is started as a library."""

import importlib
import os
import sys
from pathlib import Path

import torch

EMBEDDED = Path(__file__).resolve().parents[2] / ".host" / "ComfyUI"


def comfyui_folder() -> Path:
    """The ComfyUI in use: COMFYUI_PATH, or the one that dev.py fetched. Raises FileNotFoundError without either."""
    folder = Path(os.environ.get("COMFYUI_PATH") or EMBEDDED)
    if not (folder / "comfy" / "sd.py").is_file():
        raise FileNotFoundError(f"no ComfyUI in {folder}: run `python3 dev.py demo` once, or set COMFYUI_PATH to yours")
    return folder


def choose_attention(dtype: torch.dtype) -> None:
    """On a CPU, fused attention has the faster gradient in float32, and the slower one in half precision.

    It is chosen before anything is encoded, lest a run depends on what was computed in the process before it.
    """
    from comfy.cli_args import args

    torch.backends.cuda.enable_flash_sdp(not args.cpu or dtype is torch.float32)


def start() -> None:
    """Make `import comfy` work in this process: on the CPU where there is no accelerator, with PyTorch attention.

    Attention is chosen when ComfyUI is imported, and its chunked variants break gradients, so it is fixed here.
    """
    if "comfy.model_management" in sys.modules:
        return
    sys.path.insert(0, str(comfyui_folder()))
    from comfy.cli_args import args

    args.cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    args.use_pytorch_cross_attention = True
    importlib.import_module("comfy.model_management")  # switches fused attention on, whose gradient is slow on CPUs
    torch.backends.cuda.enable_flash_sdp(not args.cpu)
