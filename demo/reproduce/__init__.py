"""Both papers, rerun in small: every table and claim, on the embedded tiny model.

scale.py         how much of everything: full and quick
recipes.py       every student: what its training differs in from demo/tcd.toml
trainings.py     distils them, several at a time, and goes on where it was stopped
finetune.py      a fine-tuned base and a style LoRA
lab.py           samples and measures, everything once
step_errors.py   how far one step lands from the teacher's exact path
memory.py        numbers that are computed once
experiments/     one for each table or figure
claims.py        whether a paper's statement holds here
charts.py        plots
page.py          docs/results.md
"""
