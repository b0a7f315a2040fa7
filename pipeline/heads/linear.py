"""A linear softmax classifier as a convex problem: solved, with its strength chosen by inner folds.

Multinomial logistic regression with an L2 penalty: it minimises strength · Σ weight · cross-entropy
+ ½ · ‖kernel‖² over rows of mean squared norm 1. A support vector machine is as good on few clips, but
its outputs are no probabilities; those of a logistic regression are, up to a temperature that the
inner folds give for nothing, and so they can be averaged with another head's.

With fewer rows than columns the problem is solved in the span of the rows: of their Gram matrix
K = L·Lᵀ the rows of L have the same inner products, and so the same solution, with as many columns as
rows. Of more than `LANDMARKS` rows so many are drawn, and the kernel is sought in their span (the
Nyström method: C. Williams and M. Seeger, 2001).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.heads.source import Array, Float32, Float64, Rows

STRENGTHS = tuple(float(10 ** (power / 2)) for power in range(-4, 5))
"""0.01 to 100, two to a decade; from the strongest penalty to the weakest."""
SHARPNESS = tuple(float(2 ** (power / 8)) for power in range(-24, 25))
"""What logits may be multiplied by, 1/8 to 8: the inverse of a temperature."""
LANDMARKS = 4096
RIDGE = 1e-6
"""Added to a Gram matrix of mean diagonal 1 before its Cholesky decomposition."""
BLOCK = 4096
ITERATIONS = 300


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """Rows to classify, in the coordinates in which they are solved.

    z: (rows, coordinates), of mean squared norm 1
    clip: (rows,) which clip a row belongs to, ascending; each clip has at least one
    targets: (clips, classes) float64, in sum 1
    weights: (clips,) float64, of mean 1
    """

    z: Array
    clip: Rows
    targets: Float64
    weights: Float64

    def of(self, clips: Rows) -> Problem:
        """The problem of these clips (ascending) alone."""
        rows = np.isin(self.clip, clips)
        return Problem(
            z=self.z[rows],
            clip=np.searchsorted(clips, self.clip[rows]),
            targets=self.targets[clips],
            weights=self.weights[clips],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """kernel (coordinates, classes) and bias (classes,), float64."""

    kernel: Float64
    bias: Float64

    def logits(self, z: Array) -> Float64:
        """(rows, classes) of rows `z` (rows, coordinates)."""
        return np.asarray(z @ self.kernel.astype(z.dtype), np.float64) + self.bias


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A strength and what the inner folds say of it: mean loss and top-1 of clips not fitted on."""

    strength: float
    loss: float
    top1: float
    sharpness: float


def choose(
    problem: Problem,
    parts: Rows,
    strengths: Sequence[float],
    check: Callable[[], None],
) -> tuple[list[Candidate], Candidate]:
    """Every strength by inner folds, and the one of the lowest loss.

    parts: (clips,) the fold that leaves a clip out, from 0; the loss is that at the best sharpness
    check: called between solutions and their iterations; raises to stop
    """
    classes = problem.targets.shape[1]
    logits = np.zeros((len(strengths), len(problem.clip), classes))
    for part in range(int(parts.max()) + 1):
        fitted = problem.of(np.flatnonzero(parts != part))
        rows = parts[problem.clip] == part
        for number, solution in enumerate(path(fitted, strengths, check)):
            logits[number, rows] = solution.logits(problem.z[rows])
    candidates = [
        _candidate(problem, strength, logits[number]) for number, strength in enumerate(strengths)
    ]
    return candidates, min(candidates, key=lambda candidate: candidate.loss)


def path(
    problem: Problem, strengths: Sequence[float], check: Callable[[], None]
) -> Iterator[Solution]:
    """The solution at each strength, each begun at the one before."""
    solution = None
    for strength in strengths:
        solution = solve(problem, strength, check, solution)
        yield solution


def solve(
    problem: Problem,
    strength: float,
    check: Callable[[], None],
    start: Solution | None = None,
) -> Solution:
    """The solution at one strength by L-BFGS; equal problems give equal bits."""
    from scipy.optimize import minimize

    classes, coordinates = problem.targets.shape[1], problem.z.shape[1]
    counts = np.bincount(problem.clip, minlength=len(problem.targets))
    of_row = (problem.weights / np.maximum(counts, 1))[problem.clip]
    share, targets = of_row / of_row.sum(), problem.targets[problem.clip]
    penalty = 1 / (strength * of_row.sum())

    def cost(values: Float64) -> tuple[float, Float64]:
        check()
        kernel, bias = values[:-classes].reshape(coordinates, classes), values[-classes:]
        logits = Solution(kernel=kernel, bias=bias).logits(problem.z)
        logs = logits - _logsumexp(logits)[:, None]
        gaps = share[:, None] * (np.exp(logs) * targets.sum(axis=1, keepdims=True) - targets)
        loss = -float(share @ (targets * logs).sum(axis=1)) + penalty / 2 * float(
            np.vdot(kernel, kernel)
        )
        slope = np.asarray(problem.z.T @ gaps.astype(problem.z.dtype), np.float64)
        return loss, np.concatenate([(slope + penalty * kernel).ravel(), gaps.sum(axis=0)])

    first = np.zeros((coordinates + 1) * classes)
    if start is not None:
        first = np.concatenate([start.kernel.ravel(), start.bias])
    options = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "ftol": 1e-10, "gtol": 1e-6}
    found: Any = minimize(cost, first, jac=True, method="L-BFGS-B", options=options)
    values = np.asarray(found.x, np.float64)
    return Solution(kernel=values[:-classes].reshape(coordinates, classes), bias=values[-classes:])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """The coordinates of rows in the span of landmark rows: K = L·Lᵀ of `landmarks`, `lower` = L."""

    landmarks: Float32
    lower: Float64

    @classmethod
    def of(cls, landmarks: Float32) -> Span:
        """The span of these rows (rows, columns), whose mean squared norm is 1."""
        gram = np.zeros((len(landmarks), len(landmarks)))
        for start in range(0, landmarks.shape[1], BLOCK):
            part = landmarks[:, start : start + BLOCK]
            gram += part @ part.T
        gram[np.diag_indices_from(gram)] += RIDGE
        return cls(landmarks=landmarks, lower=np.linalg.cholesky(gram))

    def coordinates(self, rows: Float32) -> Float64:
        """(rows, landmarks) of rows (rows, columns)."""
        from scipy.linalg import solve_triangular

        products = np.asarray(self.landmarks @ rows.T, np.float64)
        return np.asarray(solve_triangular(self.lower, products, lower=True)).T

    def kernel(self, kernel: Float64) -> Float64:
        """(columns, classes): the kernel in columns, of one in coordinates."""
        from scipy.linalg import solve_triangular

        duals = np.asarray(solve_triangular(self.lower, kernel, lower=True, trans="T"))
        return np.asarray(self.landmarks.T @ duals.astype(np.float32), np.float64)


def probabilities(problem: Problem, logits: Float64) -> Float64:
    """(clips, classes): the mean over a clip's rows of the softmax of `logits` (rows, classes)."""
    shares = np.exp(logits - _logsumexp(logits)[:, None])
    counts = np.bincount(problem.clip)
    if len(counts) == len(problem.clip):
        return shares
    starts = np.cumsum(counts) - counts
    return np.asarray(np.add.reduceat(shares, starts, axis=0) / counts[:, None])


def _candidate(problem: Problem, strength: float, logits: Float64) -> Candidate:
    # As if one clip more had been predicted at random: of clips that are all right the likeliest
    # sharpness is without bounds (J. Platt, 1999).
    clips, classes = problem.targets.shape
    targets = (problem.targets * clips + 1 / classes) / (clips + 1)
    problem = replace(problem, targets=targets)
    losses = [_loss(problem, probabilities(problem, logits * sharp)) for sharp in SHARPNESS]
    best = int(np.argmin(losses))
    shares = probabilities(problem, logits * SHARPNESS[best])
    hits = shares.argmax(axis=1) == problem.targets.argmax(axis=1)
    return Candidate(
        strength=strength,
        loss=losses[best],
        top1=float(hits.mean()),
        sharpness=SHARPNESS[best],
    )


def _loss(problem: Problem, shares: Float64) -> float:
    logs = np.log(np.maximum(shares, 1e-12))
    return -float(np.average((problem.targets * logs).sum(axis=1), weights=problem.weights))


def _logsumexp(logits: Float64) -> Float64:
    top = logits.max(axis=1)
    return np.asarray(top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))
