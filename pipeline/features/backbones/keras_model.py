"""One Keras model per backbone: uint8 RGB in, pooled features out, scaling inside the graph."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.features.backbones.folding import folded
from pipeline.features.backbones.keras_models import KERAS_MODELS, Scaling

if TYPE_CHECKING:
    from pipeline.features.backbones.family import Weights
    from pipeline.spec import Precision

# From keras.applications: BGR means of the "caffe" nets, RGB mean and deviation of "torch".
_CAFFE_MEAN = (103.939, 116.779, 123.68)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_DEVIATION = (0.229, 0.224, 0.225)


def build_model(
    name: str, *, size: int, weights: Weights, precision: Precision, fold: bool = False
) -> Any:
    """The Keras model of a backbone with its weights in place.

    Input (size, size, 3) uint8 RGB named "frames"; output (channels,) float32. Scaling is computed
    in float32 whatever the precision: it costs nothing and bfloat16 would round the pixels. `fold`:
    put normalisations into the convolutions before them (`folding`).

    Raises `ConfigError` where the weights file does not fit the model.
    """
    engine.prepare()
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(engine.keras_policy(precision))
    try:
        body = _body(keras, name, size)
    finally:
        keras.config.set_dtype_policy(before)
    if weights.kind == "random":
        fill_random(body, weights.seed)
    else:
        _load(body, name, weights)
    if fold:
        body, _ = folded(body)
    frames = keras.Input((size, size, 3), dtype="uint8", name="frames")
    features = body(_scaled(keras, frames, KERAS_MODELS[name].scaling))
    # The last layer only casts: products in half precision still leave as float32.
    return keras.Model(frames, keras.layers.Activation("linear", dtype="float32")(features))


def _body(keras: Any, name: str, size: int) -> Any:
    function = getattr(keras.applications, KERAS_MODELS[name].function)
    return function(include_top=False, weights=None, pooling="avg", input_shape=(size, size, 3))


def _scaled(keras: Any, frames: Any, scaling: Scaling) -> Any:
    def rescaled(scale: Any, offset: Any, values: Any) -> Any:
        return keras.layers.Rescaling(scale, offset, dtype="float32")(values)

    if scaling == "tf":
        return rescaled(1 / 127.5, -1.0, frames)
    if scaling == "torch":
        scale = [1 / (255 * deviation) for deviation in _TORCH_DEVIATION]
        offset = [-m / d for m, d in zip(_TORCH_MEAN, _TORCH_DEVIATION, strict=True)]
        return rescaled(scale, offset, frames)
    if scaling == "caffe":
        return rescaled([1.0] * 3, [-mean for mean in _CAFFE_MEAN], frames[..., ::-1])
    return rescaled(1.0, 0.0, frames)


def _load(body: Any, name: str, weights: Weights) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with _named_for_keras(Path(str(weights.path))) as path:
                body.load_weights(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error).strip().partition("\n")[0]
        else:
            # Keras only warns where a file lacks some layers, and leaves those at their initial values.
            why = next((str(w.message) for w in caught if "freshly-init" in str(w.message)), "")
    if why:
        raise ConfigError(
            f"the weights file {str(weights.path)!r} does not fit {name} without its top "
            f"({why.rstrip('.')}): give a no-top .h5 or .weights.h5 file of this model"
        )


@contextmanager
def _named_for_keras(path: Path) -> Iterator[str]:
    """The weights file under a name whose ending says its format: Keras goes by that alone.

    Keras 3's `save_weights` writes groups `layers` and `vars`; the older format, which all files of
    `keras.applications` have, lists `layer_names`, or holds a whole model in `model_weights`.
    """
    import h5py

    with h5py.File(path) as file:
        older = "layer_names" in file.attrs or "model_weights" in file
    ending = ".h5" if older else ".weights.h5"
    if path.name.endswith(".weights.h5") == (not older) and path.suffix == ".h5":
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="pixels-once-") as folder:
        link = Path(folder) / f"model{ending}"
        link.symlink_to(path.absolute())
        yield str(link)


def fill_random(model: Any, seed: int) -> None:
    """Give every kernel of a model values that depend on the seed alone.

    Uniform with variance gain/fan_in: gain 2 (He) keeps the scale of activations through a plain
    chain of ReLU layers, so that pooled features are of order 0.1 to 1 and survive float16; with
    Keras' Glorot start those of InceptionV3 average 7e-4 and a sixth vanish. Nets that add branches
    up get gain 1, or their sums would overflow. Vectors (biases, normalisation) stay as built.

    The numbers come from NumPy's frozen `RandomState` stream: the same on every backend.
    """
    random = np.random.RandomState(seed)
    gain = 1.0 if any(type(layer).__name__ == "Add" for layer in model.layers) else 2.0
    for variable in model.weights:
        shape = tuple(variable.shape)
        if len(shape) < 2:
            continue
        # A depthwise kernel's third axis is not summed over; its fan-in is its window.
        window = shape[:-2] if "depthwise" in variable.path else shape[:-1]
        limit = np.sqrt(3 * gain / max(1, int(np.prod(window))))
        variable.assign(((random.random_sample(shape) * 2 - 1) * limit).astype(np.float32))
