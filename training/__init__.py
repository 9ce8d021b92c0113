"""The offline trainer: distils a checkpoint into a LoRA that samples it in a few steps.

options/       what can be asked for
host/          ComfyUI's models as they are
data/          pictures, captions and prompts, encoded and cached
adapters.py    what is trained: the LoRA, or all weights
network.py     the parts that one network plays: teacher, student, target
methods.py     the losses, and the times that they draw
train.py       the algorithm
run.py, plan.py                  a run made ready, and what it will do
save.py, metadata.py, state.py   what it leaves behind, and goes on from
saving.py, stopping.py           when it is saved; Ctrl-C
watch/, sampling.py              what is seen while it runs
workers.py, sharding.py          many processes, and a student in parts among them
evaluate/      pictures and figures of what was trained
presets/       configurations to begin with
"""
