"""The command line: every expected failure is one line.

    python -m training.evaluate --pretrained_model_name_or_path model.safetensors --network_weights tcd.safetensors \\
        --prompts prompts.txt --methods tcd:steps=4 dpmpp_2s:steps=10,w=6.5
"""

import sys

import torch

from . import EVALUATOR, evaluate


def main() -> None:
    try:
        print(f"wrote {evaluate(EVALUATOR.read())}")
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    except torch.OutOfMemoryError as error:
        sys.exit(f"error: out of memory: {error}\ntry mixed_precision bf16, a smaller batch_size or resolution")
    except KeyboardInterrupt:
        sys.exit("interrupted: run again, and the pictures that are there are used again")


if __name__ == "__main__":
    main()
