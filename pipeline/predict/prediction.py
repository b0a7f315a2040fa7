"""Both stages on new clips: frames, features and a saved head's predictions, without any store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.features.extraction import ClipSource
from pipeline.features.joined_stage import JoinedStage
from pipeline.features.sequences import ClipResult
from pipeline.features.stage import FirstStage
from pipeline.heads.alignment import StepTimes, align, at_steps
from pipeline.heads.measures import predicted_classes
from pipeline.heads.saved import Run
from pipeline.heads.skeleton import skeletons
from pipeline.heads.streams import Stream

_GROUP = 16  # clips per call of the extractor: results appear as they come, the CNN stays busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A head's prediction for one clip: labels by falling probability, or why there is none.

    steps: real frames that were seen
    reason: code of a failure or a warning
    detail: its cause
    """

    path: str
    labels: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    steps: int = 0
    reason: str = ""
    detail: str = ""


def predict_clips(
    run: Run, first_stage: FirstStage | JoinedStage, clips: Sequence[ClipSource]
) -> Iterator[Prediction]:
    """Yield one `Prediction` per clip, in order. A run on joined streams needs a `JoinedStage`.

    A clip that cannot be read, or whose probabilities are not finite, has a reason and no labels.
    """
    for start in range(0, len(clips), _GROUP):
        group = clips[start : start + _GROUP]
        if isinstance(first_stage, JoinedStage):
            results = [joined_result(run.streams, each) for each in first_stage.extract(group)]
        else:
            results = first_stage.extractor.extract(group)
        usable = {i: r.features for i, r in enumerate(results) if r.features is not None}
        probabilities = {}
        if usable:
            masks = np.stack([results[i].mask for i in usable])
            predicted = run.predict(np.stack(list(usable.values())), masks)
            probabilities = dict(zip(usable, predicted, strict=True))
        for i, (clip, result) in enumerate(zip(group, results, strict=True)):
            if i not in probabilities:
                yield Prediction(path=clip.path, reason=result.reason, detail=result.detail)
                continue
            seen = Prediction(path=clip.path, steps=int(result.mask.sum()), reason=result.reason)
            if predicted_classes(probabilities[i][None])[0] < 0:
                cause = "the head's probabilities of this clip are not numbers"
                yield replace(seen, reason="not_finite", detail=cause)
                continue
            order = np.argsort(-probabilities[i], kind="stable")
            labels = tuple(run.classes[k] for k in order)
            sure = tuple(float(probabilities[i][k]) for k in order)
            yield replace(seen, labels=labels, probabilities=sure)


def joined_result(streams: Sequence[Stream], results: Sequence[ClipResult]) -> ClipResult:
    """One clip's results of every stream as one sequence, as `JoinedSource` joins rows of stores.

    A clip that failed in a stream has that one's result; a warning is the first that a stream has.
    """
    for stream, result in zip(streams, results, strict=True):
        if result.features is None:
            return replace(result, detail=f"{stream.name}: {result.detail}")
    times = [
        StepTimes(frame=result.frame_index[None], seconds=result.timestamp[None])
        for result in results
    ]
    parts = []
    for stream, result, its in zip(streams, results, times, strict=True):
        assert result.features is not None
        features = result.features[None]
        if stream.skeleton:
            features = skeletons(features, result.mask[None])
        parts.append(at_steps(features, align(times[0], its)))
    first = results[0]
    joined = np.concatenate(parts, axis=2)[0]
    joined[~first.mask] = 0
    warning = next((result.reason for result in results if result.reason), "")
    return replace(first, features=joined, reason=warning)
