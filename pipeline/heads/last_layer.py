"""The last layer of a head as a linear problem: its rows, their scale, and the weights put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.heads import linear
from pipeline.heads.epochs import Fit
from pipeline.heads.inference import predict_batch
from pipeline.heads.lean import keras
from pipeline.heads.linear import LANDMARKS, Basis, Problem
from pipeline.heads.measures import class_weights, cross_entropy
from pipeline.heads.seeds import derived_seed
from pipeline.heads.source import Array, Float32, Float64, Mask, Rows
from pipeline.heads.statistics import Statistics
from pipeline.heads.streams import streams_in
from pipeline.heads.zoo.kinds import layers

Check = Callable[[], None]
"""Called often; raises to stop."""
MOST_STEPS = 1024
"""Steps that a head over steps is fitted on; of more, every clip gives as many, evenly apart."""
LEAST_STEPS = 2
"""… but never fewer of a clip."""
EXACT = 1 << 22
"""Problems of at most so many numbers are solved in float64 throughout."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solved:
    """The weights of a head's last layers; loss and top-1 on the clips that they were fitted on."""

    columns: list[Array]
    dense: list[Array]
    loss: float
    top1: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """How rows become those of the problem: ((x − centre) · factor, clipped) · unit · directions.

    unit: one number, or (columns,) of streams that are joined early: each counts alike
    """

    centre: Float32
    factor: Float32
    clip: float
    unit: float | Float64
    directions: Float32

    def apply(self, x: Float32) -> Float32:
        """The scaled rows (rows, columns); changes `x`."""
        x -= self.centre
        x *= self.factor
        np.clip(x, -self.clip, self.clip, out=x)
        x *= np.asarray(self.unit, np.float32)
        return x


class LastLayer:
    """A model whose last `Dense` layer, and the `ColumnScale` before it if any, are solved for."""

    def __init__(self, fit: Fit, check: Check) -> None:
        self.fit = fit
        self.check = check
        found = fit.model.layers
        self.dense = [layer for layer in found if isinstance(layer, keras.layers.Dense)][-1]
        self.columns = next((each for each in found if isinstance(each, layers.ColumnScale)), None)
        self.fixed = keras.Model(fit.model.input, (self.columns or self.dense).input)

    def solved(self, positions: Rows, choice: Mapping[str, Any]) -> Solved:
        """The solution for the clips at `positions`. choice: `strength` and `sharpness`."""
        problem, scale = self.problem(positions)
        solution = linear.Solver(problem, self.check).solve(choice["strength"])
        sharpness = choice["sharpness"]
        shares = linear.probabilities(problem, solution.logits(problem.z) * sharpness)
        labels = self.fit.clips.labels[positions]
        factors = np.reshape(scale.unit * sharpness, (-1, 1))
        kernel = (scale.directions @ solution.kernel) * factors
        return Solved(
            columns=[scale.centre, scale.factor],
            dense=[kernel.astype(np.float32), (solution.bias * sharpness).astype(np.float32)],
            loss=cross_entropy(shares.astype(np.float32), labels),
            top1=float((shares.argmax(axis=1) == labels).mean()),
        )

    def put(self, solved: Solved) -> None:
        """Make a solution the weights of the model."""
        if self.columns is not None:
            self.columns.set_weights(solved.columns)
        self.dense.set_weights(solved.dense)

    def problem(self, positions: Rows) -> tuple[Problem, Scale]:
        """The clips at `positions` as a linear problem, and how their rows are scaled for it.

        All rows are held at once, except where there are more than `LANDMARKS`, and more columns too:
        then so many rows are held, and of the others only their coordinates in the span of these.
        """
        columns = int(self.dense.input.shape[-1])
        rows = len(positions) * self._rows_per_clip(len(positions))
        whole = rows <= LANDMARKS or columns <= LANDMARKS
        held = positions if whole else self._drawn(positions)
        x, clip = self._rows(held)
        scale = self._scale(x)
        scaled = scale.apply(x)
        unit = self._unit(scaled)
        scaled *= np.asarray(unit, np.float32)
        basis = Basis.of(scaled)
        scale = replace(scale, unit=unit, directions=basis.directions)
        z: Array = basis.rows
        if not whole:
            blocks = [(scale.apply(x) @ basis.directions, at) for x, at in self._blocks(positions)]
            z = np.concatenate([x for x, _ in blocks])
            clip = np.concatenate([at for _, at in blocks])
        elif z.size > EXACT:
            z = z.astype(np.float32)
        order = np.argsort(clip, kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            z, clip = z[order], clip[order]
        targets, weights = self._targets(positions)
        return Problem(z=z, clip=clip, targets=targets, weights=weights), scale

    def _scale(self, x: Float32) -> Scale:
        if self.columns is None:
            of, clip = Statistics.neutral(x.shape[1]), float("inf")
        else:
            of, clip = Statistics.of(x), self.columns.clip
        nothing = np.zeros((x.shape[1], 0), np.float32)
        return Scale(centre=of.mean, factor=of.scale, clip=clip, unit=1.0, directions=nothing)

    def _unit(self, scaled: Float32) -> float | Float64:
        """What makes the mean squared norm of the rows 1; of joined streams that of each the same."""
        streams = streams_in(self.fit.clips)
        if not streams:
            norms = np.einsum("rc,rc->r", scaled, scaled, dtype=np.float64)
            return 1 / float(np.sqrt(max(norms.mean(), 1e-30)))
        squares = np.einsum("rc,rc->c", scaled, scaled, dtype=np.float64) / len(scaled)
        units = np.zeros(len(squares))
        # The columns of a pooled row are all channels of one statistic after another.
        channel = np.arange(len(squares)) % streams[-1].stop
        for stream in streams:
            its = (channel >= stream.start) & (channel < stream.stop)
            units[its] = 1 / np.sqrt(max(squares[its].sum() * len(streams), 1e-30))
        return units

    def _targets(self, positions: Rows) -> tuple[Float64, Float64]:
        """(targets (clips, classes), weights (clips,)) by the settings of the training."""
        clips, settings = self.fit.clips, self.fit.settings
        labels, classes = clips.labels[positions], len(clips.classes)
        smooth = settings.label_smoothing
        targets = np.eye(classes)[labels] * (1 - smooth) + smooth / classes
        weights = np.ones(len(labels))
        if settings.class_weights:
            weights = class_weights(labels, classes)[labels].astype(np.float64)
        return targets, weights

    def _drawn(self, positions: Rows) -> Rows:
        views = self._rows_per_clip(len(positions))
        rng = np.random.default_rng(derived_seed(self.fit.settings.seed, "landmarks"))
        return np.sort(rng.choice(positions, max(LANDMARKS // views, 1), replace=False))

    def _rows(self, positions: Rows) -> tuple[Float32, Rows]:
        blocks = list(self._blocks(positions))
        return np.concatenate([x for x, _ in blocks]), np.concatenate([at for _, at in blocks])

    def _blocks(self, positions: Rows) -> Iterator[tuple[Float32, Rows]]:
        """(rows, the place in `positions` of each row's clip), a batch of clips at a time.

        From all views, one after another.
        """
        clips, batch = self.fit.clips, self.fit.settings.train_batch
        most = self._steps_per_clip(len(positions))
        sources = [(clips, positions)]
        sources += [(view, places[positions]) for view, places in clips.views]
        for source, places in sources:
            first = 0
            for features, mask, at in source.batches(places, batch):
                self.check()
                outputs = predict_batch(self.fixed, features, mask, batch)
                numbers = np.arange(first, first + len(at))
                first += len(at)
                if outputs.ndim == 3:
                    clip, step = _even_steps(mask, most)
                    outputs, numbers = outputs[clip, step], numbers[clip]
                yield np.array(outputs), numbers

    def _rows_per_clip(self, clips: int) -> int:
        return self._steps_per_clip(clips) * (1 + len(self.fit.clips.views))

    def _steps_per_clip(self, clips: int) -> int:
        shape = (self.columns or self.dense).input.shape
        if len(shape) == 2:
            return 1
        return int(min(shape[1], max(LEAST_STEPS, MOST_STEPS // clips)))


def _even_steps(mask: Mask, most: int) -> tuple[Rows, Rows]:
    """(clip, step) of at most `most` real steps of every clip, evenly apart."""
    clips, steps = [], []
    for number, real in enumerate(mask.sum(axis=1)):
        count = min(int(real), most)
        steps.append(((np.arange(count) + 0.5) * real / count).astype(np.int64))
        clips.append(np.full(count, number, dtype=np.int64))
    return np.concatenate(clips), np.concatenate(steps)
