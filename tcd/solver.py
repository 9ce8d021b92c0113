"""Teacher solvers Phi(x_t, t, s): one step of the empirical probability-flow ODE."""

from .tcf import tcf1

# DDIM is the first-order exponential integrator: the very step of TCF(1), with the teacher's prediction.
SOLVERS = {"ddim": tcf1}
