"""The command line: every expected failure is one line.

    python -m training.evaluate --pretrained_model_name_or_path model.safetensors --network_weights tcd.safetensors \\
        --prompts prompts.txt --methods tcd:steps=4 dpmpp_2s:steps=10,w=6.5
"""

import sys

import torch

from . import EVALUATOR, evaluate

GO_ON = "run again, and the pictures that are there are used again"


def main() -> None:
    try:
        print(f"wrote {evaluate(EVALUATOR.read())}")
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error}\nwhere a disk is full or only read, make room or choose another output_dir; {GO_ON}")
    except torch.OutOfMemoryError as error:
        advice = "try mixed_precision bf16, a smaller batch_size or resolution"
        sys.exit(f"error: out of memory: {error}\n{advice}; {GO_ON}")
    except KeyboardInterrupt:
        sys.exit(f"interrupted: {GO_ON}")


if __name__ == "__main__":
    main()
