"""Loaders: the samples of commits in batches, for training.

    make_numpy_dataset         batches of arrays, shuffled by seed, read ahead in threads, to be resumed from a position
    make_torch_dataset         a map-style dataset for PyTorch's DataLoader and its worker processes
    make_tensorflow_dataset    a tf.data.Dataset

Each takes one dataset of a read-only checkout, or several whose samples belong together by key. PyTorch and TensorFlow
are imported when they are asked for.
"""

from __future__ import annotations

from storage.loaders.batches import BatchIterator, NumpyDataset, make_numpy_dataset
from storage.loaders.pytorch import make_torch_dataset
from storage.loaders.tensorflow_data import make_tensorflow_dataset

__all__ = ["BatchIterator", "NumpyDataset", "make_numpy_dataset", "make_tensorflow_dataset", "make_torch_dataset"]
