"""LSTM and GRU as Keras has them."""

from keras.layers import GRU, LSTM

__all__ = ["GRU", "LSTM"]
