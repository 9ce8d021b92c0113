"""Measures of samples and trajectories that need no downloaded weights."""

import numpy as np
from torch import Tensor


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Squared Frechet distance of two Gaussians fitted to features [n, d] and reference [m, d]:

        |mu_a - mu_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2))

    With C = R^T R, the trace of the root is the sum of the singular values of R_a R_b^T: no root of a rounding error
    is taken, so singular covariances are safe. Raises ValueError for fewer than two samples, or different widths.
    """
    a, b = (np.asarray(f.detach().cpu().double()) for f in (features, reference))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"features must be [n >= 2, d] of one width, got {a.shape} and {b.shape}")
    root_a, root_b = _root(a), _root(b)
    shared = np.linalg.norm(root_a @ root_b.T, "nuc")
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * shared)


def _root(features: np.ndarray) -> np.ndarray:
    """R [min(n, d), d] with R^T R the covariance of features [n, d]."""
    return np.linalg.qr(features - features.mean(0), mode="r") / np.sqrt(len(features) - 1)
