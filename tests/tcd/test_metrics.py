"""Frechet distance, errors of students and complexity of images, against closed forms and exact solutions."""

import io
import math
import struct
import zlib

import numpy as np
import pytest
import torch
from oracle import SCHEDULES, Gaussian, self_consistent

import tcd
from tcd.metrics import (
    check_images,
    compressed_size,
    drift,
    frechet_distance,
    frechet_from_statistics,
    high_frequency_energy,
    ode_error,
    png_rows,
    self_consistency,
    solving_error,
    to_bytes,
)

F64 = torch.float64
SD = tcd.DiscreteVP.scaled_linear()
NAMES = pytest.mark.parametrize("name", SCHEDULES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, dtype=F64, generator=seeded(seed))


def exact_cloud(mean: torch.Tensor, covariance: torch.Tensor, n: int = 50) -> torch.Tensor:
    """n points of which the sample mean and the sample covariance are exactly these."""
    z = cloud(n, len(mean))
    z = z - z.mean(0)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T
    return mean + white @ torch.linalg.cholesky(covariance).T


def test_equal_features_have_no_distance():
    a = cloud(100, 8)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_a_shift_counts_squared():
    a = cloud(100, 8)
    assert frechet_distance(a, a + 0.5) == pytest.approx(8 * 0.25, abs=1e-12)


def test_axes_alone_differ_by_their_standard_deviations():
    """Diagonal covariances commute: |mu_a - mu_b|^2 + sum (std_a - std_b)^2."""
    mean_a, mean_b = torch.tensor([[0.0, 1.0, 2.0], [0.5, 1.0, -1.0]], dtype=F64)
    std_a, std_b = torch.tensor([[1.0, 2.0, 0.5], [3.0, 1.0, 0.5]], dtype=F64)
    a, b = exact_cloud(mean_a, torch.diag(std_a**2)), exact_cloud(mean_b, torch.diag(std_b**2))
    wanted = (mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()
    assert frechet_distance(a, b) == pytest.approx(wanted.item(), rel=1e-12)


def test_covariances_that_do_not_commute():
    """In two dimensions trace (A B)^(1/2) = sqrt(trace(A B) + 2 sqrt(det(A B)))."""
    a = torch.tensor([[2.0, 0.9], [0.9, 1.0]], dtype=F64)
    b = torch.tensor([[1.0, -0.7], [-0.7, 3.0]], dtype=F64)
    cross = (torch.trace(a @ b) + 2 * torch.linalg.det(a @ b).sqrt()).sqrt()
    mean = torch.zeros(2, dtype=F64)
    wanted = torch.trace(a) + torch.trace(b) - 2 * cross
    assert frechet_distance(exact_cloud(mean, a), exact_cloud(mean, b)) == pytest.approx(wanted.item(), rel=1e-12)


def test_full_rank_features_agree_with_scipy_s_matrix_root():
    linalg = pytest.importorskip("scipy.linalg")
    a, b = cloud(200, 12) @ cloud(12, 12, 1), cloud(150, 12, 2) @ cloud(12, 12, 3) + 0.3
    cov_a, cov_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    wanted = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    wanted += (cov_a + cov_b - 2 * linalg.sqrtm(cov_a @ cov_b).real).trace()
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-9)  # sqrtm loses half the digits of small eigenvalues


def test_singular_covariances_are_safe():
    """Fewer samples than features, and the same flat cloud turned out of its plane."""
    a = cloud(5, 64)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    flat = cloud(50, 2)
    b = torch.cat([flat - flat.mean(0), torch.zeros(50, 2, dtype=F64)], 1)
    planes = torch.trace(torch.cov(b.T)).item()
    assert frechet_distance(b, b.flip(1)) == pytest.approx(2 * planes, rel=1e-12)  # nothing in common: the traces add


def test_one_feature_is_enough():
    a = torch.tensor([[0.0], [2.0]])
    assert frechet_distance(a, 3 * a) == pytest.approx(2**2 + 2 * (3 - 1) ** 2, rel=1e-12)


def test_it_is_symmetric_and_never_below_zero():
    a, b = cloud(40, 6), cloud(30, 6, 1)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert frechet_distance(a, b) > 0


def test_half_precision_features_with_gradient_are_taken():
    a = cloud(20, 3).half().requires_grad_()
    assert frechet_distance(a, a + 1) == pytest.approx(3, abs=0.01)  # float16 rounds a + 1 by up to 0.1%


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ((1, 4), (9, 4), r"got \(1, 4\) and \(9, 4\)"),
        ((9, 4), (9, 5), r"got \(9, 4\) and \(9, 5\)"),
        ((9,), (9,), r"got \(9,\) and \(9,\)"),
    ],
)
def test_features_that_fit_no_gaussian_are_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet_distance(torch.ones(a), torch.ones(b))


def statistics(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return features.mean(0), torch.cov(features.T)


def spread(d: int, seed: int) -> torch.Tensor:
    """A covariance [d, d] of full rank, with correlations."""
    root = cloud(d, d, seed)
    return root @ root.T + 0.1 * torch.eye(d, dtype=F64)


def test_statistics_and_the_features_that_they_are_of_have_one_distance():
    a, b = cloud(60, 7) @ cloud(7, 7, 1), cloud(40, 7, 2) @ cloud(7, 7, 3) + 0.3
    wanted = frechet_distance(a, b)
    assert frechet_from_statistics(*statistics(a), *statistics(b)) == pytest.approx(wanted, rel=1e-10)
    as_arrays = [array.numpy() for array in (*statistics(a), *statistics(b))]
    assert frechet_from_statistics(*as_arrays) == pytest.approx(wanted, rel=1e-10)


def test_statistics_agree_with_scipy_s_matrix_root():
    linalg = pytest.importorskip("scipy.linalg", reason="scipy is the reference, and is not installed")
    a, b, mean = spread(9, 1), spread(9, 2), cloud(2, 9, 3)
    cross = linalg.sqrtm(a.numpy() @ b.numpy()).real.trace()
    wanted = (mean[0] - mean[1]).square().sum() + torch.trace(a) + torch.trace(b) - 2 * cross
    assert frechet_from_statistics(mean[0], a, mean[1], b) == pytest.approx(wanted.item(), rel=1e-10)


def test_singular_covariances_of_statistics_are_safe():
    """Rank 3 of 32: against itself nothing; and in another subspace, with nothing shared, the traces add."""
    root = cloud(3, 16)
    flat, zero = torch.zeros(32, 32, dtype=F64), torch.zeros(32, dtype=F64)
    flat[:16, :16] = root.T @ root
    assert frechet_from_statistics(zero, flat, zero, flat) == pytest.approx(0, abs=1e-10)
    elsewhere = flat.flip(0, 1)
    assert frechet_from_statistics(zero, flat, zero, elsewhere) == pytest.approx(
        2 * torch.trace(flat).item(), rel=1e-12
    )
    nothing = torch.zeros_like(flat)
    assert frechet_from_statistics(zero, flat, zero + 1, nothing) == pytest.approx(torch.trace(flat).item() + 32)


def test_statistics_summed_in_float32_are_taken():
    """Eigenvalues that rounding has made negative are 0."""
    flat = cloud(3, 32).float()
    covariance = flat.T @ flat
    assert torch.linalg.eigvalsh(covariance.double())[0] < 0
    assert frechet_from_statistics(torch.zeros(32), covariance, torch.zeros(32), covariance) == pytest.approx(
        0, abs=1e-4
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_b": torch.zeros(3)}, r"got \(2,\), \(2, 2\), \(3,\), \(2, 2\)"),
        ({"cov_a": torch.zeros(2)}, r"got \(2,\), \(2,\), \(2,\), \(2, 2\)"),
        ({"cov_a": torch.tensor([[1.0, 0.5], [0.0, 1.0]])}, "differ from the mirrored by 0.5"),
        ({"cov_b": torch.diag(torch.tensor([1.0, -0.5]))}, "no negative eigenvalue, got -0.5"),
        ({"cov_b": torch.full((2, 2), math.nan)}, "must be symmetric, got .* nan"),
    ],
)
def test_statistics_of_no_gaussian_are_refused(change, message):
    given = {"mean_a": torch.zeros(2), "cov_a": torch.eye(2), "mean_b": torch.zeros(2), "cov_b": torch.eye(2)}
    with pytest.raises(ValueError, match=message):
        frechet_from_statistics(**(given | change))


def test_the_ode_error_is_the_mean_of_the_samples_root_mean_squares():
    sample = torch.zeros(2, 1, 2, 2)
    reference = torch.tensor([[[[3.0, 3.0], [3.0, 3.0]]], [[[0.0, 0.0], [0.0, 2.0]]]])
    assert ode_error(sample, reference) == pytest.approx((3 + 1) / 2)  # over all values at once it would be sqrt(5)
    assert ode_error(sample, sample) == 0


def test_the_ode_error_of_half_precision_is_taken_in_float32():
    sample = torch.full((1, 4096), 300.0, dtype=torch.float16)  # the square overflows float16
    assert ode_error(sample, -sample) == 600


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 4)), ((2, 3), (1, 3)), ((3,), (3,))])
def test_samples_of_other_shapes_have_no_ode_error(a, b):
    with pytest.raises(ValueError, match=r"samples must be .* of one shape, got"):
        ode_error(torch.zeros(a), torch.zeros(b))


@pytest.mark.parametrize("solver", tcd.SOLVERS)
def test_a_perfect_student_s_solving_error_is_the_solver_s_own(solver):
    """It lands where the exact path does, so what is left is the solver's error, which falls with the steps."""
    data = Gaussian(SD)
    x = data.draw(SD.last, (3, 4, 4))
    errors = [solving_error(data.student, data.x0, SD, x, steps, solver) for steps in (25, 100)]
    reference = tcd.solver.solve(data.x0, SD, x, SD.last, SD.clean, 25, solver)
    exact = data.path(x, SD.last, SD.clean)
    wanted = sum((a - b).square().mean().sqrt().item() for a, b in zip(reference, exact, strict=True)) / 3
    assert errors[0] == pytest.approx(wanted, rel=1e-6)
    assert 0 < errors[1] < errors[0] / 2


def test_an_untrained_student_has_the_larger_solving_error():
    """The teacher itself as student: one step of it is far from its own solution, for all but a single point."""
    data = Gaussian(SD)
    x = data.draw(SD.last, (3, 4))
    assert solving_error(data.x0, data.x0, SD, x, 100) > 10 * solving_error(data.student, data.x0, SD, x, 100) > 0


def test_the_solving_error_starts_where_it_is_told():
    data = Gaussian(SD)
    x = data.draw(499, (3, 4))
    assert (
        solving_error(data.student, data.x0, SD, x, 100, t=499)
        < 0.01
        < solving_error(data.student, data.x0, SD, x, 100)
    )


def test_solving_errors_keep_no_gradient():
    weight = torch.ones((), requires_grad=True)
    seen = []

    def student(x, t, s):
        seen.append(weight * x)
        return seen[-1]

    solving_error(student, lambda x, t, s: x, SD, torch.ones(1, 2), 2)
    assert [x0.requires_grad for x0 in seen] == [False]


def path(data: Gaussian, times: torch.Tensor, shape=(3, 4)) -> torch.Tensor:
    """States [n, B, C] of one exact path at the times."""
    start = data.draw(times[0], shape)
    return torch.stack([data.path(start, times[0], t) for t in times])


@NAMES
def test_a_perfect_student_is_self_consistent(name):
    """Eq. 18, with the target on the way and clean; a perfect teacher's single steps are not."""
    sched = SCHEDULES[name]
    data = Gaussian(sched)
    times = torch.tensor([0.9, 0.6, 0.3], dtype=F64) * sched.last
    states = path(data, times)
    for s in torch.tensor([0.2 * sched.last, sched.clean], dtype=F64):
        assert self_consistency(data.student, sched, states, times, s).max() < 1e-9
        assert self_consistency(data.x0, sched, states, times, s).min() > 1e-3


@pytest.mark.parametrize("tcf", tcd.TCF)
def test_a_constant_along_the_path_is_self_consistent_in_every_tcf(tcf):
    predict = self_consistent(SD)
    times = torch.tensor([999.0, 700.0, 400.0], dtype=F64)
    rays = (SD.alpha(times) + 0.5 * SD.sigma(times)).reshape(-1, 1, 1) * cloud(3, 4)
    assert self_consistency(predict, SD, rays, times, 100.0, tcf).max() < 1e-12


def test_self_consistency_is_the_root_mean_square_over_pairs():
    times = torch.tensor([3.0, 2.0, 1.0])
    states = cloud(15, 4).reshape(3, 5, 4)
    drawn = self_consistency(lambda x, t, s: x, SD, states, times, SD.clean)
    pairs = [(states[i] - states[j]).square().mean(-1) for i in range(3) for j in range(i)]
    assert drawn.shape == (5,)
    assert torch.allclose(drawn, torch.stack(pairs).mean(0).sqrt(), rtol=1e-12)
    two = self_consistency(lambda x, t, s: x, SD, states[:2], times[:2], SD.clean)
    assert torch.allclose(two, (states[0] - states[1]).square().mean(-1).sqrt(), rtol=1e-12)


def test_a_recorded_path_can_be_measured():
    x = Gaussian(SD).draw(999, (2, 4))
    trajectory = tcd.Trajectory.record(tcd.sample(self_consistent(SD), SD, x, tcd.timesteps(SD, 4), gamma=0.0))
    assert self_consistency(self_consistent(SD), SD, trajectory.x_t, trajectory.t, SD.clean).max() < 1e-5


@pytest.mark.parametrize(("n", "times"), [(1, 1), (3, 2)])
def test_what_is_no_path_is_refused(n, times):
    with pytest.raises(ValueError, match=f"n >= 2 states and as many times, got {n} and {times}"):
        self_consistency(lambda x, t, s: x, SD, torch.zeros(n, 2, 4), torch.arange(times), 0.0)


def test_unknown_solvers_and_tcfs_are_named():
    x = torch.ones(1, 2)
    with pytest.raises(ValueError, match=r"solver must be one of ddim.*; got 'rk4'"):
        solving_error(lambda x, t, s: x, lambda x, t, s: x, SD, x, 2, "rk4")
    with pytest.raises(ValueError, match=r"tcf must be one of 1.*; got '9'"):
        solving_error(lambda x, t, s: x, lambda x, t, s: x, SD, x, 2, tcf="9")
    with pytest.raises(ValueError, match=r"tcf must be one of 1.*; got '9'"):
        self_consistency(lambda x, t, s: x, SD, torch.zeros(2, 1, 2), torch.zeros(2), 0.0, "9")


def test_drift_is_the_trajectory_s():
    x0 = torch.zeros(3, 2, 4)
    x0[1, 0], x0[2, 1, 0] = 5.0, 2.0
    assert drift(x0).tolist() == [[5.0, 0.0], [5.0, 1.0]]
    x = Gaussian(SD).draw(999, (2, 4))
    trajectory = tcd.Trajectory.record(tcd.sample(Gaussian(SD).x0, SD, x, tcd.timesteps(SD, 4), gamma=0.0))
    assert torch.equal(trajectory.drift(), drift(trajectory.x0))
    with pytest.raises(ValueError, match=r"must be \[n, B, C, \.\.\.\], got \[3, 2\]"):
        drift(torch.zeros(3, 2))


def grating(
    frequency: float, degrees: float = 0.0, height: int = 64, width: int = 64, phase: float = 0.3
) -> torch.Tensor:
    """A picture [1, H, W, 3] of one wave, of so many cycles/pixel in that direction."""
    angle = math.radians(degrees)
    y, x = torch.meshgrid(torch.arange(height, dtype=F64), torch.arange(width, dtype=F64), indexing="ij")
    wave = torch.cos(2 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle)) + phase)
    return (0.5 + 0.4 * wave)[None, ..., None].expand(1, height, width, 3)


@pytest.mark.parametrize("degrees", [0, 30, 45, 77, 90, 135])
def test_a_wave_is_on_its_side_of_the_cutoff_in_every_direction(degrees):
    """Frequencies that fit no whole number of times into the picture, too: the frame is no edge."""
    assert high_frequency_energy(grating(0.31, degrees), cutoff=0.25).item() > 0.999
    assert high_frequency_energy(grating(0.19, degrees), cutoff=0.25).item() < 0.001


@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 96), (33, 57)])
def test_frequencies_are_of_pixels_whatever_the_shape(height, width):
    for degrees in (0, 90):
        assert high_frequency_energy(grating(0.35, degrees, height, width)).item() > 0.99
        assert high_frequency_energy(grating(0.12, degrees, height, width)).item() < 0.01


def test_two_waves_share_the_energy_by_their_squared_amplitudes():
    low, high = grating(8 / 64), grating(24 / 64, 90)
    mixed = 0.5 + 0.75 * (low - 0.5) + 0.25 * (high - 0.5)
    assert high_frequency_energy(mixed).item() == pytest.approx(0.25**2 / (0.75**2 + 0.25**2), rel=1e-5)


def test_white_noise_has_the_energy_of_the_area_above_the_cutoff():
    """All frequencies alike: the square of side 1 without the disc of radius 1/4."""
    noise = torch.rand(8, 128, 128, 3, generator=seeded())
    shares = high_frequency_energy(noise)
    assert shares.shape == (8,)
    assert shares.mean().item() == pytest.approx(1 - math.pi / 16, abs=0.005)


def test_energy_does_not_change_with_contrast_brightness_or_a_quarter_turn():
    image = torch.rand(1, 24, 40, 3, generator=seeded(), dtype=F64)
    share = high_frequency_energy(image).item()
    for same in (0.5 * image, 0.5 * image + 0.5, image.rot90(1, (1, 2)), image.flip(2), image.flip(-1)):
        assert high_frequency_energy(same).item() == pytest.approx(share, rel=1e-6)


def test_a_slope_has_no_high_frequencies_in_spite_of_its_frame():
    slope = torch.linspace(0, 1, 64)[None, None, :, None].expand(1, 64, 64, 3)
    assert high_frequency_energy(slope).item() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64], ids=str)
def test_one_colour_has_no_energy(dtype):
    image = torch.tensor([0.1, 0.7, 0.3], dtype=dtype).expand(2, 16, 16, 3)
    assert high_frequency_energy(image).tolist() == [0, 0]


@pytest.mark.parametrize("cutoff", [0.0, 0.51, -1.0, math.nan])
def test_cutoffs_outside_are_named(cutoff):
    with pytest.raises(ValueError, match=rf"cutoff must be in \(0, 0.5\] cycles/pixel, got {cutoff:g}"):
        high_frequency_energy(torch.zeros(1, 8, 8, 3), cutoff)


def test_pictures_too_small_for_a_spectrum_are_named():
    with pytest.raises(ValueError, match="8 pixels a side at least, got 7 x 20"):
        high_frequency_energy(torch.zeros(1, 7, 20, 3))


@pytest.mark.parametrize("measure", [check_images, to_bytes, high_frequency_energy, compressed_size])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(8, 8, 3), r"must be \[B, H, W, 3\], got \[8, 8, 3\]"),
        (torch.zeros(1, 3, 8, 8), r"must be \[B, H, W, 3\], got \[1, 3, 8, 8\]"),
        (torch.zeros(0, 8, 8, 3), r"must be \[B, H, W, 3\], got \[0, 8, 8, 3\]"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.uint8), "must be floating-point numbers .*, got torch.uint8"),
        (torch.full((1, 8, 8, 3), 1.5), r"must be in \[0, 1\], got 1.5"),
        (torch.full((1, 8, 8, 3), -0.25), r"must be in \[0, 1\], got -0.25"),
        (torch.full((1, 8, 8, 3), math.nan), r"must be in \[0, 1\], got nan"),
    ],
)
def test_what_are_no_images_is_named(measure, images, message):
    with pytest.raises(ValueError, match=message):
        measure(images)


def test_bytes_are_the_nearest():
    values = torch.tensor([0.0, 0.4, 0.6, 254.4, 254.6, 255.0]).div(255).reshape(1, 1, 2, 3)
    assert to_bytes(values).flatten().tolist() == [0, 0, 1, 254, 255, 255]
    every = torch.arange(256).repeat(3).reshape(1, 16, 16, 3).to(torch.uint8)
    assert torch.equal(to_bytes(every.float() / 255), every)


def random_bytes(height: int, width: int) -> np.ndarray:
    return torch.randint(0, 256, (height, width, 3), generator=seeded()).to(torch.uint8).numpy()


def test_the_rows_are_those_of_a_png():
    """Pillow reads the same picture from a file made of them."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is the reference, and is not installed")
    picture = random_bytes(13, 17)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 17, 13, 8, 2, 0, 0, 0))  # 8 bits, RGB
    file = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(png_rows(picture))) + chunk(b"IEND", b"")
    assert np.array_equal(np.asarray(image.open(io.BytesIO(file))), picture)


def test_noise_cannot_be_compressed_and_one_colour_is_nearly_nothing():
    noise = torch.from_numpy(random_bytes(64, 64)).float().div(255)
    sizes = compressed_size(torch.stack([noise, torch.full_like(noise, 0.3)]))
    assert sizes.shape == (2,)
    assert sizes[0].item() == pytest.approx(3, rel=0.02)
    assert sizes[1].item() < 0.02


def test_the_more_a_picture_holds_the_larger_it_is():
    noise = torch.rand(1, 32, 32, 3, generator=seeded())
    images = torch.cat([0.5 + scale * (noise - 0.5) for scale in (0, 0.05, 0.2, 1.0)])
    assert (compressed_size(images).diff() > 0.2).all()


def test_size_is_per_pixel():
    tile = torch.rand(1, 32, 32, 3, generator=seeded())
    other = torch.rand(1, 64, 96, 3, generator=seeded(1))
    assert compressed_size(tile).item() == pytest.approx(compressed_size(other).item(), rel=0.02)
