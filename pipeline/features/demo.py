"""The built-in clips: six actions in three pairs that differ only in the order of time.

The second action of a pair is drawn exactly like the first and then played backwards, so that
the frames of a clip, put together without their order, say which pair it is and nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.features.files import whole

Picture = NDArray[np.uint8]

ACTIONS = {
    "Opening": ("aperture", False),
    "Closing": ("aperture", True),
    "Approaching": ("ball", False),
    "Receding": ("ball", True),
    "Dawn": ("light", False),
    "Dusk": ("light", True),
}
"""Class → (what changes, whether it is played backwards)."""

GROUPS = 10
SIDE = 112
RATE = 12
SHORTEST, LONGEST = 28, 48  # frames: some clips fill their 40 steps, some are masked at the end
_SUPER = 16  # cv2 draws at sixteenths of a pixel, so that growth is smooth


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the clips of one group share, whatever their action: colours, backdrop, pace.

    Colours are RGB; `pace` is the share of a clip that the change takes.
    """

    backdrop: tuple[int, int, int]
    thing: tuple[int, int, int]
    inside: tuple[int, int, int]
    grain: int
    pace: float


def write_demo_clips(folder: Path, *, clips_per_class: int = 20, seed: int = 0) -> None:
    """Write the demo clips to `folder/CLASS/v_CLASS_gNN_cMM.mp4`; the folder appears whole or not.

    clips_per_class: spread over ten groups. The same arguments give the same bytes on machines
    with the same PyAV (MPEG-4 part 2, every frame a key frame, so that compression too is blind
    to the direction of time). Raises `FileExistsError` where the folder is there and not empty.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: take another folder, or remove it")
    with whole(folder) as making:
        for action in ACTIONS:
            (making / action).mkdir(parents=True)
            for number in range(clips_per_class):
                group, clip = number % GROUPS + 1, number // GROUPS + 1
                frames = render_clip(action, group=group, clip=clip, seed=seed)
                write_clip(making / action / f"v_{action}_g{group:02d}_c{clip:02d}.mp4", frames)


def render_clip(action: str, *, group: int, clip: int, seed: int = 0) -> Picture:
    """The frames of one demo clip, (n, 112, 112, 3) uint8 RGB."""
    change, backwards = ACTIONS[action]
    look = look_of(group, seed)
    rng = np.random.default_rng([seed, list(ACTIONS).index(action), group, clip])
    frames = render_change(change, look, rng)
    return frames[::-1] if backwards else frames


def look_of(group: int, seed: int = 0) -> Look:
    """The look that all clips of a group share."""
    rng = np.random.default_rng([seed, 1000, group])
    return Look(
        backdrop=_colour(rng, 60, 130),
        thing=_colour(rng, 150, 250),
        inside=_colour(rng, 10, 50),
        grain=int(rng.integers(4, 12)),
        pace=float(rng.uniform(0.7, 1.0)),
    )


def render_change(change: str, look: Look, rng: np.random.Generator) -> Picture:
    """One clip of `aperture`, `ball` or `light`, growing; (n, 112, 112, 3) uint8 RGB.

    Everything but the growth is alike in both directions of time: place, drift and noise.
    """
    count = int(rng.integers(SHORTEST, LONGEST + 1))
    begin = rng.uniform(0, 1 - look.pace)
    share = np.clip((np.linspace(0, 1, count) - begin) / look.pace, 0, 1)
    growth = share * share * (3 - 2 * share)
    place = rng.uniform(0.38, 0.62, 2)
    drift = rng.uniform(-0.12, 0.12, 2)
    weak, strong = rng.uniform(0.0, 0.12), rng.uniform(0.88, 1.0)
    backdrop = _backdrop(look, rng)
    frames = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    for k in range(count):
        where = place + drift * (k / (count - 1) - 0.5)
        size = weak + (strong - weak) * float(growth[k])
        picture = _draw(change, backdrop.copy(), look, where, size)
        noisy = picture + rng.normal(0, 3, picture.shape)
        frames[k] = np.clip(noisy, 0, 255).astype(np.uint8)
    return frames


def write_clip(path: Path, frames: Picture) -> None:
    """Write (n, height, width, 3) uint8 RGB frames as MPEG-4, key frames only, at 12 per second."""
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = 1
        stream.options = {"flags": "+bitexact+qscale", "global_quality": str(5 * 118)}
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _draw(
    change: str, picture: Picture, look: Look, where: NDArray[np.float64], size: float
) -> Picture:
    """Draw on a backdrop what changes, grown by `size` (0..1) at `where` (2,), a share of the picture."""
    if change == "ball":
        centre = _fine(where[0] * SIDE), _fine(where[1] * SIDE)
        radius = _fine((0.05 + 0.27 * size) * SIDE)
        cv2.circle(picture, centre, radius, look.thing, cv2.FILLED, cv2.LINE_AA, 4)
    elif change == "aperture":  # two leaves of a door, and the gap between them
        _rectangle(picture, where, 0.62, look.thing)
        _rectangle(picture, where, 0.04 + 0.5 * size, look.inside)
    else:  # a roof before the sky; the light on all of it
        _rectangle(picture, np.array([where[0], 0.85]), 0.5, look.thing)
        return (picture.astype(np.float64) * (0.15 + 0.85 * size)).astype(np.uint8)
    return picture


def _rectangle(
    picture: Picture, where: NDArray[np.float64], width: float, colour: tuple[int, int, int]
) -> None:
    half = np.array([width, 0.5]) / 2
    corners = [(where + half * sign) * SIDE for sign in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    points = np.array([[_fine(x), _fine(y)] for x, y in corners], dtype=np.int32)
    cv2.fillPoly(picture, [points], colour, cv2.LINE_AA, 4)


def _fine(pixels: float) -> int:
    return round(pixels * _SUPER)


def _backdrop(look: Look, rng: np.random.Generator) -> Picture:
    """Soft blotches of the group's colour; another pattern in every clip."""
    blotches = rng.uniform(0.6, 1.4, (look.grain, look.grain)).astype(np.float32)
    wide: NDArray[np.float32] = np.empty((SIDE, SIDE), dtype=np.float32)
    cv2.resize(blotches, (SIDE, SIDE), dst=wide, interpolation=cv2.INTER_CUBIC)
    tinted = wide[:, :, None] * np.array(look.backdrop, dtype=np.float32)
    return tinted.clip(0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int]:
    red, green, blue = rng.integers(low, high, 3).tolist()
    return red, green, blue
