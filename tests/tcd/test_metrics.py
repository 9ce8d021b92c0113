"""Frechet distance against closed forms."""

import pytest
import torch

from tcd.metrics import frechet_distance

F64 = torch.float64


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
