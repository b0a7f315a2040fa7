"""One Keras model per backbone: uint8 RGB in, pooled features out, scaling inside the graph."""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.features.backbones.keras_models import KERAS_MODELS, Scaling

if TYPE_CHECKING:
    from pipeline.features.backbones.family import Weights
    from pipeline.spec import Precision

# What `preprocess_input` of keras.applications multiplies by and adds, for all channels or each.
_SCALES: dict[Scaling, tuple[Any, Any]] = {
    "tf": (1 / 127.5, -1.0),
    "torch": (
        [1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)],
        [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225],
    ),
    "caffe": ([1.0] * 3, [-103.939, -116.779, -123.68]),  # of BGR
    "none": (1.0, 0.0),
}


def build_model(
    name: str, *, size: int, weights: Weights, precision: Precision, fold: bool = False
) -> Any:
    """The Keras model of a backbone with its weights in place.

    Input (size, size, 3) uint8 RGB named "frames"; output (channels,) float32. Scaling is computed
    in float32 whatever the precision: it costs nothing and bfloat16 would round the pixels. `fold`:
    put normalisations into the convolutions before them (`folded`).

    Raises `ConfigError` where the weights file does not fit the model.
    """
    engine.prepare()
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(engine.keras_policy(precision))
    try:
        function = getattr(keras.applications, KERAS_MODELS[name].function)
        shape = (size, size, 3)
        with _kernels_of_zeros():
            body = function(include_top=False, weights=None, pooling="avg", input_shape=shape)
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


_building = threading.Lock()


@contextmanager
def _kernels_of_zeros() -> Iterator[None]:
    """Kernels of layers that are built here begin as zeros: every one gets its values afterwards.

    Drawing those of InceptionV3, which nobody would read, takes half of the time that JAX needs to
    build it: each shape is a function of its own to trace. What other threads build is drawn as ever.
    """
    import keras

    kind = keras.initializers.VarianceScaling  # of every kernel of `keras.applications`
    builder = threading.get_ident()
    with _building:  # two at once would put back each other's
        drawn = kind.__call__

        def values(self: Any, shape: Any, dtype: Any = None, **more: Any) -> Any:
            if threading.get_ident() == builder:
                return np.zeros(shape, dtype or "float32")
            return drawn(self, shape, dtype=dtype, **more)

        kind.__call__ = values
        try:
            yield
        finally:
            kind.__call__ = drawn


def _scaled(keras: Any, frames: Any, scaling: Scaling) -> Any:
    scale, offset = _SCALES[scaling]
    pixels = frames[..., ::-1] if scaling == "caffe" else frames
    return keras.layers.Rescaling(scale, offset, dtype="float32")(pixels)


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


_FOLDS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")


def folded(model: Any) -> tuple[Any, int]:
    """The model with every normalisation folded that directly follows a convolution, and how many.

    Inference normalises by constants, so conv → normalise is one convolution with other weights:
    kernel · γ/σ and β + (bias − mean) · γ/σ. Values differ by float32's rounding, and a half-precision
    product is rounded once instead of twice. OpenVINO folds by itself. XLA on an H100 hides the
    normalisations already: InceptionV3 in bfloat16 gains 0.3 % there.

    A convolution whose output is also used elsewhere, or that has an activation of its own, keeps
    its normalisation, and so does a normalisation with no convolution before it (ResNetV2,
    DenseNet). The model itself where there is nothing to fold. Weights are copied, not shared.
    """
    import keras

    pairs = _pairs(model)
    if not pairs:
        return model, 0
    norms = {norm.name for norm in pairs.values()}

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in pairs:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if layer.name in norms else layer(*inputs, **options)

    with _kernels_of_zeros():
        copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.name in pairs:
            copy.get_layer(layer.name).set_weights(_weights(layer, pairs[layer.name]))
        elif layer.name not in norms and layer.weights:
            copy.get_layer(layer.name).set_weights(layer.get_weights())
    return copy, len(pairs)


def _pairs(model: Any) -> dict[str, Any]:
    """Normalisation layers by the name of the convolution that each may be folded into."""
    pairs = {}
    for layer in model.layers:
        if type(layer).__name__ not in _FOLDS or len(layer._inbound_nodes) != 1:
            continue
        after = [node.operation for node in layer._outbound_nodes]
        if len(after) != 1 or type(after[0]).__name__ != "BatchNormalization":
            continue
        linear = getattr(layer.activation, "__name__", "") == "linear"
        last = layer.data_format == "channels_last" and after[0].axis in (-1, 3)
        if linear and last and len(after[0]._inbound_nodes) == 1:
            pairs[layer.name] = after[0]
    return pairs


def _weights(layer: Any, norm: Any) -> list[NDArray[np.float32]]:
    """The convolution's weights with the normalisation in them, in Keras' order."""
    values = {v.name: np.asarray(v.numpy(), np.float64) for v in norm.variables}
    scale = values.get("gamma", 1.0) / np.sqrt(values["moving_variance"] + norm.epsilon)
    weights = [np.asarray(w, np.float64) for w in layer.get_weights()]
    bias = weights.pop() if layer.use_bias else np.zeros_like(values["moving_mean"])
    # A depthwise kernel is (height, width, channels, multiplier), its outputs in that order.
    kernel = weights[-1]
    depthwise = type(layer).__name__ == "DepthwiseConv2D"
    weights[-1] = kernel * (scale.reshape(kernel.shape[-2:]) if depthwise else scale)
    weights.append(values.get("beta", 0.0) + (bias - values["moving_mean"]) * scale)
    return [w.astype(np.float32) for w in weights]
