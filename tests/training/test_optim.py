"""Optimizers by name and learning rates by schedule; what cannot work is told before any work."""

import copy
import re
import sys
from types import ModuleType

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training import optim
from training.options import FIELDS, Options


def weights(*shapes):
    """Weights with gradients, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes or [(3, 4), (5,)]]
    for weight in made:
        weight.grad = torch.randn(weight.shape, generator=generator)
    return made


def made(name, *arguments, **named):
    return optim.optimizer(weights(), Options(optimizer_type=name, optimizer_args=arguments, **named))


@pytest.fixture
def library(monkeypatch):
    """Puts a library of these optimizers where it is not installed."""

    def install(module, **classes):
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            fake = ModuleType(".".join(parts[:end]))
            fake.__path__ = []
            monkeypatch.setitem(sys.modules, fake.__name__, fake)
        vars(sys.modules[module]).update(classes)

    return install


class Tuned(torch.optim.SGD):
    """With a signature like Prodigy's."""

    def __init__(self, params, lr=1.0, d_coef=1.0, decouple=True):
        super().__init__(params, lr)
        self.d_coef, self.decouple = d_coef, decouple


@pytest.mark.parametrize("name", ["AdamW", "adamw", "ADAMW", "torch.optim.AdamW"])
def test_names_are_kohyas_in_any_case(name):
    found = made(name, learning_rate=2e-3)
    assert type(found) is torch.optim.AdamW
    wanted = {"lr": 2e-3, "weight_decay": 0.01, "betas": (0.9, 0.999), "fused": True}
    assert {key: found.defaults[key] for key in wanted} == wanted


TORCH = [name for name, path in optim.NAMES.items() if path.startswith("torch.optim.")]


@pytest.mark.parametrize("name", TORCH)
def test_every_short_name_of_torch_trains(name):
    opts = Options(optimizer_type=name, learning_rate=1e-2)
    optim.check(opts)
    before = weights((3, 4))
    after = weights((3, 4))
    optim.optimizer(after, opts).step()
    assert torch.isfinite(after[0]).all()
    assert not torch.equal(after[0], before[0])


def test_nesterov_is_sgd_with_momentum():
    defaults = made("SGDNesterov").defaults
    assert (defaults["momentum"], defaults["nesterov"]) == (0.9, True)
    assert made("sgdnesterov", "momentum=0.5").defaults["momentum"] == 0.5
    assert made("SGD").defaults["momentum"] == 0


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("betas=0.9,0.99", "betas", (0.9, 0.99)),
        ("betas=(0.9, 0.99)", "betas", (0.9, 0.99)),
        ("weight_decay=0.1", "weight_decay", 0.1),
        ("weight_decay = 1e-3", "weight_decay", 1e-3),
        ("amsgrad=True", "amsgrad", True),
        ("foreach=None", "foreach", None),
    ],
)
def test_arguments_are_python_values(text, name, value):
    assert made("AdamW", text).defaults[name] == value


@pytest.mark.parametrize("argument", ["foreach=True", "fused=False", "differentiable=True"])
def test_one_kernel_for_all_is_used_unless_told_otherwise(argument):
    assert made("AdamW").defaults["fused"]
    assert not made("AdamW", argument).defaults["fused"]


@pytest.mark.parametrize("bad", ["wieght_decay=0.01", "params=1", "self=1", "weight_decay", "=1", ""])
def test_an_unknown_argument_is_named_with_the_allowed_ones(bad):
    with pytest.raises(ValueError, match=rf"optimizer_args of AdamW .* betas, eps, weight_decay, .*got {bad!r}$"):
        made("AdamW", "eps=1e-6", bad)


@pytest.mark.parametrize("text", ["high", "__import__('os')", "1 +", "", "[1"])
def test_an_argument_that_is_no_value_is_named_and_never_run(text):
    with pytest.raises(ValueError, match=re.escape("optimizer_args eps must be a Python value such as 0.01")):
        made("AdamW", f"eps={text}")


def test_the_learning_rate_is_no_argument():
    with pytest.raises(ValueError, match="optimizer_args must not set lr, use learning_rate; got 'lr=1'"):
        made("AdamW", "lr=1")


@pytest.mark.parametrize(
    ("name", "meant"), [("AdamWW", "AdamW"), ("adamw8bits", "AdamW8bit"), ("Prodigi", "Prodigy"), ("LBFGS", "")]
)
def test_an_unknown_name_suggests_the_nearest(name, meant):
    wanted = rf"optimizer_type must be one of .*AdamW8bit.* or package\.module\.Class; got '{name}'.*{meant}"
    with pytest.raises(ValueError, match=wanted):
        made(name)


def test_a_class_that_a_module_does_not_have_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"torch\.optim has no optimizer 'AdamWW'; did you mean .*AdamW"):
        made("torch.optim.AdamWW")
    with pytest.raises(ValueError, match=r"torch\.optim has no optimizer 'Optimizer'"):
        made("torch.optim.Optimizer")


@pytest.mark.parametrize(
    ("name", "package"),
    [("AdamW8bit", "bitsandbytes"), ("prodigy", "prodigyopt"), ("Lion", "lion_pytorch"), ("no_such.X", "no_such")],
)
def test_a_missing_library_is_named_as_pip_knows_it(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"optimizer_type {name} needs {package} \(.*\): pip install {package}$"):
        made(name)


def test_libraries_are_used_where_they_are_installed(library):
    library("prodigyopt", Prodigy=Tuned)
    library("bitsandbytes.optim", AdamW8bit=Tuned, SGD8bit=torch.optim.SGD)
    library("my.optimizers", Mine=Tuned)
    found = made("prodigy", "d_coef=2", "decouple=False", learning_rate=1.0)
    assert isinstance(found, Tuned)
    assert (found.d_coef, found.decouple, found.defaults["lr"]) == (2, False, 1.0)
    assert isinstance(made("adamw8bit"), Tuned)
    assert isinstance(made("my.optimizers.Mine"), Tuned)
    assert made("SGDNesterov8bit").defaults["nesterov"]
    with pytest.raises(ValueError, match=r"bitsandbytes\.optim has no optimizer 'Lion8bit'"):
        made("Lion8bit")


def test_a_rate_that_is_only_a_factor_should_be_about_1(library):
    library("prodigyopt", Prodigy=type("Prodigy", (Tuned,), {"__module__": "prodigyopt.prodigy"}))
    optim.check(Options(optimizer_type="Prodigy", learning_rate=1.0))
    with pytest.warns(UserWarning, match=r"Prodigy finds the learning rate: .*; got 0\.0001"):
        optim.check(Options(optimizer_type="Prodigy"))


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ({"optimizer_type": "torch.optim.LBFGS"}, "LBFGS with optimizer_args (none) fails: .*closure"),
        ({"optimizer_type": "torch.optim.SparseAdam"}, "SparseAdam with optimizer_args (none) fails: .*dense"),
        ({"optimizer_args": ("betas=2,3",)}, "AdamW with optimizer_args betas=2,3 fails: .*Invalid beta"),
        ({"optimizer_args": ("betas=0.9",)}, "AdamW with optimizer_args betas=0.9 fails: "),
        ({"optimizer_args": ("eps='a'",)}, "AdamW with optimizer_args eps='a' fails: "),
        ({"optimizer_type": "AdamV"}, "did you mean"),
        ({"lr_warmup_steps": 11.0, "max_train_steps": 10}, "lr_warmup_steps must be at most 10"),
        ({"lr_scheduler": "sine"}, "lr_scheduler must be one of constant, constant_with_warmup, linear"),
    ],
)
def test_what_would_fail_later_is_told_by_the_check(named, wanted):
    optim.check(Options())
    with pytest.raises(ValueError, match=wanted.replace("(none)", r"\(none\)")):
        optim.check(Options(**named))


def test_the_warm_up_of_epochs_is_checked_when_their_steps_are_known():
    opts = Options(lr_warmup_steps=2000, max_train_epochs=10)
    optim.check(opts)
    with pytest.raises(ValueError, match="lr_warmup_steps must be at most 1000, the steps of the training; got 2000"):
        optim.schedule(made("AdamW"), opts, 1000)


def rates(scheduled, steps):
    """The learning rates of the steps 0, 1, ... of a training."""
    found = []
    for _ in range(steps):
        found.append(scheduled.get_last_lr()[0])
        scheduled.optimizer.step()
        scheduled.step()
    return found


# Ours -> (transformers' name with warm-up, its own arguments).
THEIRS = {
    "constant": ("constant_with_warmup", lambda opts: {}),
    "constant_with_warmup": ("constant_with_warmup", lambda opts: {}),
    "linear": ("linear", lambda opts: {}),
    "cosine": ("cosine", lambda opts: {}),
    "cosine_with_restarts": ("cosine_with_restarts", lambda opts: {"num_cycles": opts.lr_scheduler_num_cycles}),
    "polynomial": ("polynomial", lambda opts: {"power": opts.lr_scheduler_power}),
}


def test_the_schedules_are_those_of_the_options():
    assert tuple(optim.SCHEDULES) == FIELDS["lr_scheduler"].metadata["choices"] == tuple(THEIRS)


@st.composite
def trainings(draw):
    """Options with a schedule, and the steps of the training."""
    steps = draw(st.integers(1, 40))
    warm = draw(st.integers(0, steps - 1) | st.floats(0, 0.99))  # with no step after it, theirs divides by zero
    return steps, Options(
        learning_rate=draw(st.floats(1e-6, 1)),
        lr_scheduler=draw(st.sampled_from(list(THEIRS))),
        lr_warmup_steps=warm,
        lr_scheduler_num_cycles=draw(st.integers(1, 5)),
        lr_scheduler_power=draw(st.floats(0.1, 4)),
    )


@settings(deadline=None)
@given(trainings())
def test_the_learning_rates_are_those_of_transformers(training):
    steps, opts = training
    name, own = THEIRS[opts.lr_scheduler]
    wanted = transformers.get_scheduler(
        name, made("SGD", learning_rate=opts.learning_rate), optim.warm_up(opts, steps), steps, own(opts)
    )
    got = optim.schedule(made("SGD", learning_rate=opts.learning_rate), opts, steps)
    assert rates(got, steps + 1) == pytest.approx(rates(wanted, steps + 1), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_a_training_may_be_all_warm_up(name):
    opts = Options(lr_scheduler=name, lr_warmup_steps=4, learning_rate=1.0)
    assert rates(optim.schedule(made("SGD", learning_rate=1.0), opts, 4), 4) == [0, 0.25, 0.5, 0.75]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_warm_up_below_1_is_a_part_of_all_steps_rounded_down_as_in_kohyas_trainers(steps, part):
    assert optim.warm_up(Options(lr_warmup_steps=part), steps) == int(part * steps)


@pytest.mark.parametrize(
    ("warm", "wanted"),
    [(11.0, "lr_warmup_steps must be at most 10, the steps of the training; got 11"), (1.5, "whole number.* got 1.5")],
)
def test_a_warm_up_that_is_no_number_of_steps_is_refused(warm, wanted):
    with pytest.raises(ValueError, match=wanted):
        optim.schedule(made("AdamW"), Options(lr_warmup_steps=warm), 10)


def test_the_rate_must_be_above_where_polynomial_ends():
    opts = Options(lr_scheduler="polynomial", learning_rate=1e-7)
    with pytest.raises(ValueError, match="learning_rate must be above 1e-07, where polynomial ends; got 1e-07"):
        optim.schedule(made("AdamW"), opts, 10)


def trained(opts, steps, states=None, of=12):
    """(weights, learning rates, states) after `steps` steps from the states."""
    learned = weights() if states is None else states[0]
    optimizer = optim.optimizer(learned, opts)
    scheduled = optim.schedule(optimizer, opts, of)
    if states is not None:
        optimizer.load_state_dict(states[1])
        scheduled.load_state_dict(states[2])
    found = rates(scheduled, steps)
    return learned, found, copy.deepcopy((learned, optimizer.state_dict(), scheduled.state_dict()))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(list(THEIRS)), st.sampled_from(["AdamW", "SGDNesterov", "Adafactor"]), st.integers(1, 11))
def test_a_resumed_training_goes_on_as_if_never_interrupted(scheduler, name, interrupted):
    opts = Options(optimizer_type=name, lr_scheduler=scheduler, lr_warmup_steps=3, learning_rate=1e-2)
    whole, wanted, _ = trained(opts, 12)
    _, before, states = trained(opts, interrupted)
    for weight, gradient in zip(states[0], weights(), strict=True):
        weight.grad = gradient.grad
    resumed, after, _ = trained(opts, 12 - interrupted, states)
    assert before + after == wanted
    assert all(torch.equal(one, other) for one, other in zip(resumed, whole, strict=True))
