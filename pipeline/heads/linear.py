"""A linear softmax classifier as a convex problem: solved, with its strength chosen by inner folds.

Multinomial logistic regression with an L2 penalty: it minimises strength · Σ weight · cross-entropy
+ ½ · ‖kernel‖² over rows of mean squared norm 1. A support vector machine is as good on few clips, but
its outputs are no probabilities; those of a logistic regression are, up to a temperature that the
inner folds give for nothing, and so they can be averaged with another head's.

The problem is solved in the directions of the rows' own second moments (`Basis`): at most as many
as there are rows, in which a bound of the Hessian is all but diagonal. Of more than `LANDMARKS` rows
so many are drawn, and the kernel is sought in their span (the Nyström method: C. Williams and
M. Seeger, 2001).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.heads.source import Array, Float32, Float64, Rows

STRENGTHS = tuple(float(10 ** (power / 2)) for power in range(-2, 9))
"""0.1 to 10,000, two to a decade; from the strongest penalty to the weakest."""
WORSE = 2
"""So many strengths in a row that are worse than the best end the search: the loss has one minimum."""
SHARPNESS = tuple(float(2 ** (power / 8)) for power in range(-24, 25))
"""What logits may be multiplied by, 1/8 to 8: the inverse of a temperature."""
LANDMARKS = 2048
NULL = 1e-6
"""Directions of less than this share of the largest moment are left out."""
BLOCK = 4096
ITERATIONS = 100
MEMORY = 10
SHORTEST = 1e-6
PRECISION = 1e-6
"""A solution is done where the loss can be lowered by about half of this …"""
ROUGH = 1e-4
"""… and where strengths are compared, by half of this."""
SMALL = 1 << 22
"""Up to so many numbers one thread of the BLAS is faster: more wait for each other at every product."""


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
) -> tuple[list[Candidate], Candidate, Float64]:
    """Strengths tried by inner folds, the one of the lowest loss, and its probabilities (clips, classes).

    From the strongest penalty on, each solution begun at that before it, until the loss rises.

    parts: (clips,) the fold that leaves a clip out, from 0; the loss is that at the best sharpness, and
        the probabilities are of the solution that was not fitted on the clip
    check: called before every iteration; raises to stop
    """
    folds = range(int(parts.max()) + 1)
    solvers = [Solver(problem.of(np.flatnonzero(parts != part)), check) for part in folds]
    rows = [np.flatnonzero(parts[problem.clip] == part) for part in folds]
    solutions: list[Solution | None] = [None for _ in folds]
    candidates: list[Candidate] = []
    best, held_out = 0, np.zeros_like(problem.targets)
    for strength in strengths:
        logits = np.zeros((len(problem.clip), problem.targets.shape[1]))
        for part, solver in enumerate(solvers):
            solution = solver.solve(strength, solutions[part], precision=ROUGH)
            solutions[part] = solution
            logits[rows[part]] = solution.logits(problem.z[rows[part]])
        candidates.append(_candidate(problem, strength, logits))
        best = min(range(len(candidates)), key=lambda number: candidates[number].loss)
        if best == len(candidates) - 1:
            held_out = probabilities(problem, logits * candidates[best].sharpness)
        if len(candidates) - 1 - best >= WORSE:
            break
    return candidates, candidates[best], held_out


class Solver:
    """Solves one problem at any strength, by L-BFGS that begins with a bound of the Hessian.

    The Hessian of the cross-entropy is at most half of the rows' weighted second moments (D. Böhning,
    1992). The inverse of that, with the penalty, makes the first step of every iteration a good one
    however alike the rows are, so tens of iterations are enough. It is taken to be diagonal, as it is
    in a `Basis` of the same rows. Equal problems give equal bits.

    check: called before every iteration; raises to stop
    """

    def __init__(self, problem: Problem, check: Callable[[], None]) -> None:
        self.check = check
        counts = np.bincount(problem.clip, minlength=len(problem.targets))
        weights = (problem.weights / np.maximum(counts, 1))[problem.clip]
        self.total = float(weights.sum())
        self.shares = weights / self.total
        self.targets = problem.targets[problem.clip]
        # The bias is the weight of a column of ones, which no penalty is on.
        ones = np.ones((len(problem.z), 1), problem.z.dtype)
        self.z = np.concatenate([problem.z, ones], axis=1)
        self.moments = np.einsum("r,rc,rc->c", self.shares.astype(self.z.dtype), self.z, self.z)

    def solve(
        self, strength: float, start: Solution | None = None, *, precision: float = PRECISION
    ) -> Solution:
        """The solution at one strength, begun at another."""
        with one_thread(self.z.size):
            return self._solved(strength, start, precision)

    def _solved(self, strength: float, start: Solution | None, precision: float) -> Solution:
        penalty = np.full((len(self.moments), 1), 1 / (strength * self.total))
        penalty[-1] = 0
        bound = self.moments[:, None] / 2 + penalty
        x = np.zeros((len(bound), self.targets.shape[1]))
        if start is not None:
            x = np.concatenate([start.kernel, start.bias[None]])
        value, slope = self._cost(x, penalty)
        steps: list[tuple[Float64, Float64]] = []
        for _ in range(ITERATIONS):
            self.check()
            move = _two_loops(slope, steps, bound)
            expected = float(np.vdot(slope, move))
            if expected < precision:
                break
            length = 1.0
            while length > SHORTEST:
                reached = x - length * move
                new_value, new_slope = self._cost(reached, penalty)
                if new_value <= value - 1e-4 * length * expected:
                    break
                length /= 2
            else:
                break  # rounding: nothing lower is to be found
            steps = [*steps[1 - MEMORY :], (reached - x, new_slope - slope)]
            x, value, slope = reached, new_value, new_slope
        return Solution(kernel=x[:-1], bias=x[-1])

    def _cost(self, x: Float64, penalty: Float64) -> tuple[float, Float64]:
        """The mean cross-entropy with the penalty, and its gradient; `x` (coordinates + 1, classes)."""
        logits = np.asarray(self.z @ x.astype(self.z.dtype), np.float64)
        logs = logits - _logsumexp(logits)[:, None]
        gaps = self.shares[:, None] * (np.exp(logs) - self.targets)
        loss = -float(self.shares @ (self.targets * logs).sum(axis=1))
        slope = np.asarray(self.z.T @ gaps.astype(self.z.dtype), np.float64)
        return loss + float((penalty * x * x).sum()) / 2, slope + penalty * x


@contextlib.contextmanager
def one_thread(size: int) -> Iterator[None]:
    """Within it the BLAS computes with one thread, where arrays of this size are `SMALL`."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1 if size <= SMALL else None, user_api="blas"):
        yield


def _two_loops(slope: Float64, steps: Sequence[tuple[Float64, Float64]], bound: Float64) -> Float64:
    """The L-BFGS direction (J. Nocedal, 1980) of (step, change of slope) pairs, oldest first."""
    kept = [(s, y, 1 / float(np.vdot(s, y))) for s, y in steps if float(np.vdot(s, y)) > 0]
    move, shares = slope, []
    for s, y, rho in reversed(kept):
        shares.append(rho * float(np.vdot(s, move)))
        move = move - shares[-1] * y
    move = move / bound
    for (s, y, rho), share in zip(kept, reversed(shares), strict=True):
        move = move + (share - rho * float(np.vdot(y, move))) * s
    return move


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Basis:
    """The directions of the second moments of some rows: `directions` (columns, coordinates).

    rows: these rows in it, (rows, coordinates) float64, the largest moment first
    """

    directions: Float32
    rows: Float64

    @classmethod
    def of(cls, rows: Float32) -> Basis:
        """That of `rows` (rows, columns), by the smaller of Gram and moment matrix."""
        wide = len(rows) <= rows.shape[1]
        side = min(rows.shape)
        with one_thread(side * side):
            values, vectors = np.linalg.eigh(_products(rows if wide else rows.T))
        keep = np.flatnonzero(values > NULL * values[-1])[::-1]
        values, vectors = values[keep], vectors[:, keep]
        if wide:
            directions = rows.T @ (vectors / np.sqrt(values)).astype(np.float32)
            return cls(directions=directions, rows=vectors * np.sqrt(values))
        directions = vectors.astype(np.float32)
        return cls(directions=directions, rows=np.asarray(rows @ directions, np.float64))


def _products(rows: Float32) -> Float64:
    """rows · rowsᵀ, added up in float64 over blocks of columns."""
    products = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], BLOCK):
        part = rows[:, start : start + BLOCK]
        products += part @ part.T
    return products


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
