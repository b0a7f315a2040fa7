"""LSTM and GRU as Keras has them."""

from pipeline.heads.lean import keras

LSTM, GRU = keras.layers.LSTM, keras.layers.GRU
