"""Measures of samples, students and images that need no downloaded weights. Those that do are in `tcd.scores`."""

import math
import zlib

import numpy as np
import torch
from torch import Tensor

from .predict import Predict, choose
from .schedule import Schedule, Time, as_time
from .solver import solve
from .tcf import TCF

Array = Tensor | np.ndarray


def widened(x: Tensor) -> Tensor:
    """x in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms(x: Tensor, dims: int = 1) -> Tensor:
    """Root mean square over all but the first `dims` dimensions."""
    return x.flatten(dims).square().mean(-1).sqrt()


def ode_error(sample: Tensor, reference: Tensor) -> float:
    """ODE-solving error (second paper, eq. 6) of samples against a solver's, both [B, C, ...] from the same noise:

        E = mean over the samples of d(sample, reference),   d(a, b) = sqrt(mean of (a - b)^2)

    The paper leaves d open; this is the l2 distance over the root of the sample's size, so that E has the states' unit
    at every resolution. Eq. 6 is about one step: noise added on the way leads to another path. Raises ValueError for
    different shapes.

    >>> ode_error(torch.zeros(2, 4), torch.tensor([[3.0] * 4, [1.0] * 4]))
    2.0
    """
    if sample.shape != reference.shape or sample.ndim < 2:
        raise ValueError(f"samples must be [B, C, ...] of one shape, got {[*sample.shape]} and {[*reference.shape]}")
    return rms(widened(sample) - widened(reference)).mean().item()


def solving_error(
    student: Predict,
    teacher: Predict,
    sched: Schedule,
    x: Tensor,
    steps: int,
    solver: str = "ddim",
    tcf: str = "1",
    t: Time | None = None,
) -> float:
    """`ode_error` of one step of the student from noise x [B, C, ...] to clean data against the teacher's solver.

    The solver takes `steps` steps from t, by default the schedule's noisiest time, to clean data, as `solve` spaces
    them. Raises ValueError for an unknown solver or tcf, or steps < 1.
    """
    t, clean = as_time(sched.last if t is None else t), as_time(sched.clean)
    with torch.no_grad():
        reference = solve(teacher, sched, x, t, clean, steps, solver)
        return ode_error(choose(TCF, "tcf", tcf)(student, sched, x, t, clean), reference)


def self_consistency(
    student: Predict, sched: Schedule, path_states: Tensor, times: Tensor, s: Time, tcf: str = "1"
) -> Tensor:
    """How far f(x_t, t, s) differ for the states of one exact path (eq. 18): 0 for a perfect student. Shape [B].

    path_states is [n, B, C, ...], n >= 2, at times [n]; s is a time, that of clean data too. The measure is the root
    mean square of d (as in `ode_error`) over all pairs of the n results, which is twice their variance, rooted.
    Raises ValueError for fewer than two states, another number of times, or an unknown tcf.
    """
    times = as_time(times).flatten()
    if len(path_states) != len(times) or len(times) < 2:
        raise ValueError(f"a path is n >= 2 states and as many times, got {len(path_states)} and {len(times)}")
    step = choose(TCF, "tcf", tcf)
    with torch.no_grad():
        landed = torch.stack([widened(step(student, sched, x, t, s)) for x, t in zip(path_states, times, strict=True)])
    return rms((landed - landed.mean(0)).transpose(0, 1)) * math.sqrt(2 * len(times) / (len(times) - 1))


def drift(x0: Tensor) -> Tensor:
    """Change of the clean prediction from step to step, [n - 1, B], of predictions [n, B, C, ...]: d as in `ode_error`.

    0 for a student that is perfectly self-consistent (eq. 18) and is sampled without noise. Raises ValueError for
    another shape.
    """
    if x0.ndim < 3:
        raise ValueError(f"predictions must be [n, B, C, ...], got {[*x0.shape]}")
    return rms(widened(x0).diff(dim=0), dims=2)


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Squared Frechet distance of two Gaussians fitted to features [n, d] and reference [m, d]:

        |mu_a - mu_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2))

    With C = R^T R, the trace of the root is the sum of the singular values of R_a R_b^T: no root of a rounding error
    is taken, so singular covariances are safe. Raises ValueError for fewer than two samples, or different widths.
    """
    a, b = _array(features), _array(reference)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features must be [n >= 2, d] of one width, got {a.shape} and {b.shape}")
    return _frechet(a.mean(0), _root_of_features(a), b.mean(0), _root_of_features(b))


def frechet_from_statistics(mean_a: Array, cov_a: Array, mean_b: Array, cov_b: Array) -> float:
    """`frechet_distance` of Gaussians given by their means [d] and covariances [d, d], such as published statistics.

    Raises ValueError for other shapes, or a matrix that is no covariance: not symmetric, or with an eigenvalue that is
    negative by more than rounding. Singular covariances are safe.

    >>> frechet_from_statistics(torch.zeros(2), torch.eye(2), torch.ones(2), 4 * torch.eye(2))
    4.0
    """
    means, covariances = [_array(mean_a), _array(mean_b)], [_array(cov_a), _array(cov_b)]
    d = means[0].size
    if any(mean.shape != (d,) for mean in means) or any(cov.shape != (d, d) for cov in covariances):
        shapes = [array.shape for array in (means[0], covariances[0], means[1], covariances[1])]
        raise ValueError(f"statistics must be [d], [d, d], [d], [d, d], got {', '.join(map(str, shapes))}")
    root_a, root_b = map(_root_of_covariance, covariances)
    return _frechet(means[0], root_a, means[1], root_b)


def _frechet(mean_a: np.ndarray, root_a: np.ndarray, mean_b: np.ndarray, root_b: np.ndarray) -> float:
    """The formula, of means [d] and roots [any, d] with R^T R the covariance."""
    shared = np.linalg.norm(root_a @ root_b.T, "nuc")
    return float(((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * shared)


def _array(values: Array) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()


def _root_of_features(features: np.ndarray) -> np.ndarray:
    """R [min(n, d), d] with R^T R the covariance of features [n, d]."""
    return np.linalg.qr(features - features.mean(0), mode="r") / np.sqrt(len(features) - 1)


def _root_of_covariance(covariance: np.ndarray) -> np.ndarray:
    """R [d, d] with R^T R = covariance; eigenvalues within rounding of 0 are 0, lest their roots count."""
    size = np.abs(covariance).max()
    skew = np.abs(covariance - covariance.T).max()
    if not skew <= 1e-6 * size:  # so put, it also refuses nan
        raise ValueError(f"a covariance must be symmetric, got entries that differ from the mirrored by {skew:g}")
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if values[0] < -1e-6 * size:  # statistics summed in float32 go this far below 0
        raise ValueError(f"a covariance has no negative eigenvalue, got {values[0]:g}")
    values = np.where(values > values[-1] * len(values) * np.finfo(float).eps, values, 0)
    return np.sqrt(values)[:, None] * vectors.T


def check_images(images: Tensor) -> Tensor:
    """Pictures as ComfyUI keeps them, [B, H, W, 3] in [0, 1], or a ValueError that names what else was given."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.numel() == 0:
        raise ValueError(f"images must be [B, H, W, 3], got {[*images.shape]}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating-point numbers in [0, 1], got {images.dtype}")
    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):  # so put, it also refuses nan
        raise ValueError(f"images must be in [0, 1], got {high if low >= 0 else low:g}")
    return images


def to_bytes(images: Tensor) -> Tensor:
    """Pictures [B, H, W, 3] in [0, 1] as the nearest 8-bit ones, uint8, as a picture file holds them."""
    return (check_images(images).detach().float() * 255).round().to(torch.uint8)


def high_frequency_energy(images: Tensor, cutoff: float = 0.25) -> Tensor:
    """Share of an image's spectral energy above `cutoff`, in [0, 1], shape [B]: how much is fine detail (or noise).

    images are [B, H, W, 3] in [0, 1], 8 pixels a side at least. cutoff is a radial frequency in cycles/pixel, the same
    in every direction, in (0, 0.5]; 0.25 is a period of four pixels. Energies of the channels add up; the mean is not
    counted. A Hann window fades the frame out, which would else count as an edge; it blurs frequencies by 2 / side. An
    image of one colour has no energy: 0. Raises ValueError for other images or cutoffs.

    >>> fine = (torch.arange(32) % 2).float().expand(1, 32, 32)[..., None].expand(1, 32, 32, 3)  # lines, one pixel wide
    >>> high_frequency_energy(fine), high_frequency_energy(0 * fine)
    (tensor([1.]), tensor([0.]))
    """
    height, width = check_images(images).shape[1:3]
    if min(height, width) < 8:
        raise ValueError(f"images must be 8 pixels a side at least, got {height} x {width}")
    if not 0 < cutoff <= 0.5:
        raise ValueError(f"cutoff must be in (0, 0.5] cycles/pixel, got {cutoff:g}")
    return _share_above(images.detach().movedim(-1, 1), cutoff)


def state_detail(x: Tensor) -> Tensor:
    """`high_frequency_energy` of states [n, B, C, ...] of any range and number of channels, in [0, 1], shape [n, B].

    Frequencies are those of the last two dimensions, in cycles per cell of the state: a latent's cell is several pixels
    wide. Frames of a video add up. States without space, [n, B, C], have no detail: 0. Raises ValueError for another
    shape.
    """
    if x.ndim < 3:
        raise ValueError(f"states must be [n, B, C, ...], got {[*x.shape]}")
    height, width = (1, 1, *x.shape[3:])[-2:]
    return torch.stack([_share_above(state.reshape(len(state), -1, height, width), 0.25) for state in x.detach()])


def _share_above(x: Tensor, cutoff: float) -> Tensor:
    """Share of the spectral energy above the cutoff, [B], of x [B, C, H, W]."""
    x, (height, width) = x.cpu().double(), x.shape[-2:]
    window = torch.outer(_hann(height), _hann(width))
    mean = (window * x).sum((-2, -1), keepdim=True) / window.sum()  # the windowed one: so the window adds no energy
    energy = torch.fft.fft2(window * (x - mean)).abs().square().sum(1)  # [B, H, W]
    down, across = (torch.fft.fftfreq(side, dtype=x.dtype) for side in (height, width))
    radius = torch.hypot(down[:, None], across)
    total, high = energy.sum((-2, -1)), energy[:, radius > cutoff].sum(-1)
    amplitude = 1e-6 * x.abs().amax((1, 2, 3))  # of float32's rounding; by Parseval, this energy:
    rounding = amplitude.square() * window.square().sum() * height * width
    return torch.where(total <= rounding, 0, high / total).float()


def _hann(side: int) -> Tensor:
    """Hann's window, sampled so that it is symmetric and yet touches only the two neighbours of a frequency."""
    return torch.sin(torch.pi * (torch.arange(side, dtype=torch.float64) + 0.5) / side).square()


def compressed_size(images: Tensor) -> Tensor:
    """Bytes per pixel after lossless compression, shape [B]: about 0 for one colour, 3 for noise.

    images are [B, H, W, 3] in [0, 1], rounded to 8 bits. This is the picture data of a PNG file whose rows all have the
    Paeth filter, compressed by the standard library's zlib at its highest level: no dependency, and no file header
    that would count in small pictures. Compare only numbers of one zlib version.
    """
    pictures = to_bytes(images).cpu().numpy()
    sizes = [len(zlib.compress(png_rows(picture), 9)) for picture in pictures]
    return torch.tensor(sizes) / (pictures.shape[1] * pictures.shape[2])


def png_rows(picture: np.ndarray) -> bytes:
    """The picture data of a PNG, uncompressed, of a uint8 picture [H, W, 3]: every row Paeth-filtered.

    Each byte is told as its difference from that of its left, upper or upper left neighbour: of the one nearest to
    left + upper - upper left. Outside of the picture is 0.
    """
    paeth = 4  # the number of the filter, told before each row
    padded = np.pad(picture.astype(np.int16), ((1, 0), (1, 0), (0, 0)))
    left, upper, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    to_left, to_upper, to_corner = abs(upper - corner), abs(left - corner), abs(left + upper - 2 * corner)
    nearest = np.where(to_upper <= to_corner, upper, corner)
    nearest = np.where((to_left <= to_upper) & (to_left <= to_corner), left, nearest)
    rows = (picture - nearest).astype(np.uint8).reshape(len(picture), -1)  # modulo 256
    return np.insert(rows, 0, paeth, axis=1).tobytes()
