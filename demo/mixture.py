"""Every loss of `tcd` at work on a problem that is solved exactly: points of the plane, drawn from a Gaussian mixture.

The teacher is the mixture's own clean prediction, in closed form. The student adds a small network to it, which starts
at zero, as a LoRA does.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

import tcd

SEED = 20240229
SCHED = tcd.DiscreteVP.scaled_linear()


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians at `means` [K, D] with probabilities `weights` [K] and one standard deviation c, on any schedule."""

    sched: tcd.Schedule
    means: Tensor
    weights: Tensor
    c: float

    def x0(self, x: Tensor, t: Tensor | float, s: Tensor | float | None = None) -> Tensor:
        """The exact E[x0 | x_t = x] for x [B, D]: every Gaussian's own, weighted by how likely x is its."""
        t = torch.as_tensor(t)
        alpha, sigma = (f(t).reshape(-1, 1, 1).to(x) for f in (self.sched.alpha, self.sched.sigma))
        variance = alpha**2 * self.c**2 + sigma**2
        away = x[:, None] - alpha * self.means.to(x)  # [B, K, D]
        share = (self.weights.to(x).log() - away.square().sum(-1) / (2 * variance[..., 0])).softmax(1)
        return (share[..., None] * (self.means.to(x) + alpha * self.c**2 / variance * away)).sum(1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Data [count, D]."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return self.means[which] + self.c * torch.randn(count, self.means.shape[1], generator=generator)


def petals(count: int = 6) -> Mixture:
    """Unequal petals around a circle."""
    angle = torch.arange(count) * (2 * torch.pi / count)
    weights = torch.arange(1.0, count + 1)
    return Mixture(SCHED, 1.5 * torch.stack([angle.cos(), angle.sin()], 1), weights / weights.sum(), c=0.12)


class Student(nn.Module):
    """x0 of the teacher, plus a small network of x, lam_t and, for TCF(S+), lam_s; the network starts at zero."""

    def __init__(self, teacher: Mixture, width: int = 96):
        super().__init__()
        self.teacher = teacher
        self.body = nn.Sequential(
            nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.head = nn.Linear(width, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def level(self, t: Tensor, x: Tensor) -> Tensor:
        lam = self.teacher.sched.lam(torch.as_tensor(t)).clamp(-5, 5)
        return lam.to(x).reshape(-1, 1).expand(len(x), 1)

    def towards(self, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The prediction of TCF(S+), which knows where the step goes."""
        return self.teacher.x0(x, t) + self.head(self.body(torch.cat([x, self.level(t, x), self.level(s, x)], 1)))

    def plain(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """The prediction of all others, which does not."""
        return self.towards(x, t, t)

    def predict(self, tcf: str) -> tcd.Predict:
        return self.towards if tcf == "s+" else self.plain


Loss = Callable[[Student, Student, Mixture, Tensor, torch.Generator], Tensor]


def noise_like(x0: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x0.shape, generator=generator)


def trajectory(tcf: str) -> Loss:
    """The TCD loss of one trajectory function, with four ends for each sample."""

    def loss(student: Student, target: Student, teacher: Mixture, x0: Tensor, generator: torch.Generator) -> Tensor:
        times = tcd.draw_times(len(x0), SCHED, 20, generator, ends=4)
        f, f_minus = student.predict(tcf), target.predict(tcf)
        return tcd.tcd_loss(f, f_minus, teacher.x0, SCHED, x0, noise_like(x0, generator), *times, tcf)

    return loss


def consistency(form: Callable[..., Tensor]) -> Loss:
    """`tcd.cm_loss` or `tcd.lcm_loss`, on fifty intervals."""

    def loss(student: Student, target: Student, teacher: Mixture, x0: Tensor, generator: torch.Generator) -> Tensor:
        times = tcd.draw_interval(len(x0), SCHED, 50, generator)
        return form(student.plain, target.plain, teacher.x0, SCHED, x0, noise_like(x0, generator), *times)

    return loss


def direct(student: Student, target: Student, teacher: Mixture, x0: Tensor, generator: torch.Generator) -> Tensor:
    """The direct loss has no target: the teacher's whole path is."""
    t, _ = tcd.draw_interval(len(x0), SCHED, 50, generator)
    return tcd.direct_cm_loss(student.plain, teacher.x0, SCHED, x0, noise_like(x0, generator), t, 50)


@dataclass(frozen=True)
class Method:
    """A loss, and how its student is sampled."""

    loss: Loss
    tcf: str = "1"
    gamma: float = 1.0

    def draw(self, student: Student, steps: int, count: int = 4000) -> Tensor:
        return draw(student.predict(self.tcf), steps, count, self.gamma, self.tcf)


METHODS = {
    "TCF(1)": Method(trajectory("1"), gamma=0.3),
    "TCF(2)": Method(trajectory("2"), "2", gamma=0.3),
    "TCF(S+)": Method(trajectory("s+"), "s+", gamma=0.3),
    "CM": Method(consistency(tcd.cm_loss)),
    "LCM": Method(consistency(tcd.lcm_loss)),
    "Direct CM": Method(direct),
}


def distil(loss: Loss, teacher: Mixture, steps: int = 800, batch: int = 512, mu: float = 0.95) -> Student:
    """Train a student as Algorithm 1 has it, its target a running average of rate mu; Adam, cosine to zero, seeded.

    A target that is the student itself may run away from it: see docs/log.md.
    """
    generator = torch.Generator().manual_seed(SEED)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        student = Student(teacher)
    target = deepcopy(student)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in tqdm(range(steps), mininterval=5, leave=False):
        x0 = teacher.draw(batch, generator)
        loss(student, target, teacher, x0, generator).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        for mean, now in zip(target.parameters(), student.parameters(), strict=True):
            mean.data.lerp_(now.data, 1 - mu)
    return student


@torch.no_grad()
def draw(predict: tcd.Predict, steps: int, count: int = 4000, gamma: float = 0.0, tcf: str = "1") -> Tensor:
    """Samples [count, 2] in `steps` steps from the same noise every time."""
    generator = torch.Generator().manual_seed(SEED + 1)
    x = torch.randn(count, 2, generator=generator)
    *_, last = tcd.sample(predict, SCHED, x, tcd.timesteps(SCHED, steps), gamma, tcf, generator)
    return last.x_s


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int = 64) -> float:
    """Mean distance, over directions of the plane, of the sorted projections of two equally large samples [n, 2]."""
    angle = torch.arange(directions) * (torch.pi / directions)
    axes = torch.stack([angle.cos(), angle.sin()])
    return ((a @ axes).sort(0).values - (b @ axes).sort(0).values).abs().mean().item()


def reference(teacher: Mixture, count: int) -> Tensor:
    """The data [count, 2] that samples are held against, the same every time."""
    return teacher.draw(count, torch.Generator().manual_seed(SEED + 2))


def measure(name: str, student: Student, teacher: Mixture, steps: int) -> tuple[float, float]:
    """(the student's distance to the data, DDIM's with the exact teacher) at equal network evaluations."""
    method = METHODS[name]
    real, ddim = reference(teacher, 4000), draw(teacher.x0, steps * (2 if method.tcf == "2" else 1))
    return sliced_wasserstein(method.draw(student, steps), real), sliced_wasserstein(ddim, real)
