"""A store's rows as a data set of TensorFlow. Imported only where `Store.tf_dataset` is called."""

from __future__ import annotations

import itertools
from typing import Any

import tensorflow as tf

from store.labelled import LabelledBatches


def tf_dataset(batches: LabelledBatches) -> Any:
    """A `tf.data.Dataset` of whole batches (see `store.labelled.Batch`), an epoch an iteration."""
    source, epoch = batches.source, itertools.count()
    signature = {
        "features": tf.TensorSpec((None, source.steps, *source.shape), source.dtype),
        "mask": tf.TensorSpec((None, source.steps), tf.bool),
        "label": tf.TensorSpec((None,), tf.int64),
        "rows": tf.TensorSpec((None,), tf.int64),
    }
    return tf.data.Dataset.from_generator(
        lambda: batches.epoch(next(epoch)), output_signature=signature
    )
