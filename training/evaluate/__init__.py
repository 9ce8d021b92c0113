"""Pictures and figures of what was trained: a prompt list, sampled in many ways, measured and laid side by side.

options.py      what can be asked for
rows.py         ways to sample, as they are written on the command line
loras.py        LoRA files, on the network
prompts.py      what is sampled, with its noise
pictures.py     picture files, made once and read as often as wanted
probes.py       measures of a student itself
metrics.py      all measures by name
report.py       the table
evaluation.py   all of it, in order
"""

from .evaluation import evaluate
from .metrics import METRICS
from .options import EvaluateOptions
from .program import EVALUATOR, check

__all__ = ["EVALUATOR", "METRICS", "EvaluateOptions", "check", "evaluate"]
