"""Kernels that get their values afterwards are not drawn, and nobody else's begin as zeros."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from pipeline.features.backbones.keras_model import _kernels_of_zeros


def test_kernels_that_another_thread_builds_meanwhile_are_drawn() -> None:
    draw = keras.initializers.GlorotUniform(seed=0)
    both = threading.Barrier(2, timeout=60)

    def other() -> np.ndarray:
        both.wait()
        drawn = np.asarray(draw((3, 4)))
        both.wait()
        return drawn

    expected = np.asarray(draw((3, 4)))
    assert expected.any()
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(other)
        with _kernels_of_zeros():
            both.wait()
            assert not np.asarray(draw((3, 4))).any()
            both.wait()
        np.testing.assert_array_equal(future.result(), expected)
    np.testing.assert_array_equal(np.asarray(draw((3, 4))), expected)


def test_two_threads_that_build_at_once_or_fail_leave_kernels_as_they_were() -> None:
    before = keras.initializers.VarianceScaling.__call__
    began = threading.Event()

    def fail() -> None:
        with _kernels_of_zeros():
            began.set()
            time.sleep(0.1)
            raise ZeroDivisionError

    def build() -> None:
        began.wait(60)
        with _kernels_of_zeros():
            time.sleep(0.2)

    with ThreadPoolExecutor(2) as threads:
        failing, building = threads.submit(fail), threads.submit(build)
        with pytest.raises(ZeroDivisionError):
            failing.result()
        building.result()
    assert keras.initializers.VarianceScaling.__call__ is before
