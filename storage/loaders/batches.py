"""Batches of numpy arrays: shuffled by seed, read ahead in threads, resumed from a position."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np

from storage.dataset_reader import Key
from storage.errors import TooFewSamples, Unsupported, WrongType
from storage.loaders.columns import Batch, Columns, make_columns, own

Collate = Callable[[list[Any]], Any]
STATE_FORMAT = 1
THREADS = 4
"""Batches are read ahead by at most so many threads: reading and unpacking leave Python's lock for part of the time."""


class NumpyDataset(Iterable[Any]):
    """Batches of samples of commits, epoch after epoch.

    Each `iter` begins the next epoch, from its first sample. The order of epoch number e follows from seed, e and the
    number of samples alone, on every machine. See `make_numpy_dataset`. Iterators are independent of each other.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        batch_size: int | None,
        drop_last: bool,
        shuffle: bool,
        collate: Collate | None,
        seed: int,
        prefetch: int,
    ) -> None:
        self._columns = columns
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._shuffle = shuffle
        self._collate = collate
        self._prefetch = prefetch
        self.seed = seed
        """What the orders of all epochs follow from."""
        self.epoch = 0
        """The number of the epoch that the next `iter` begins."""

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch; None where samples come one by one."""
        return self._batch_size

    @property
    def shuffle(self) -> bool:
        """Whether the order changes with each epoch."""
        return self._shuffle

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return len(self._columns)

    def __len__(self) -> int:
        """Batches in an epoch; samples, where they come one by one."""
        size = self._batch_size or 1
        return len(self._columns) // size if self._drop_last else -(-len(self._columns) // size)

    def __iter__(self) -> BatchIterator:
        """The batches of the next epoch."""
        self.epoch += 1
        return BatchIterator(self, self.seed, self.epoch - 1, 0)

    def resume(self, state: Mapping[str, Any]) -> BatchIterator:
        """The rest of an epoch, from where an iterator gave that `state`; the next `iter` begins the epoch after it.

        Nothing comes twice and nothing is left out, also with another batch size, and the seed becomes the state's. The
        datasets must have the same names and the same keys in the same order: else Unsupported (a ValueError), and
        nothing has changed. They may be those of another commit: then the samples are what that one holds.
        """
        seed, epoch, position = self._checked(state)
        self.seed, self.epoch = seed, epoch + 1
        return BatchIterator(self, seed, epoch, position)

    def state_at(self, seed: int, epoch: int, position: int) -> dict[str, Any]:
        """What `resume` takes."""
        return {
            "format": STATE_FORMAT,
            "seed": seed,
            "shuffle": self._shuffle,
            "epoch": epoch,
            "position": position,
            "samples": len(self._columns),
            "keys": self._columns.fingerprint(),
        }

    def _checked(self, state: Mapping[str, Any]) -> tuple[int, int, int]:
        """Seed, epoch and position of a state. Unsupported."""
        if not isinstance(state, Mapping) or state.get("format") != STATE_FORMAT:
            raise Unsupported("this is not the state of an iterator")
        wanted = self.state_at(0, 0, 0)
        for name in ("samples", "keys", "shuffle"):
            if state.get(name) != wanted[name]:
                raise Unsupported(f"the state is of another iterator: {name} {state.get(name)!r}, not {wanted[name]!r}")
        numbers: list[Any] = [state.get(name) for name in ("seed", "epoch", "position")]
        for number in numbers:
            if type(number) is not int or number < 0:
                raise Unsupported(f"the state cannot be: {number!r} is not a number of it")
        seed, epoch, position = numbers
        if position > len(self._columns):
            raise Unsupported(f"the state cannot be: {position} of {len(self._columns)} samples were handed out")
        return seed, epoch, position

    def order(self, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The numbers of the samples in the order of that epoch."""
        count = len(self._columns)
        if not self._shuffle:
            return np.arange(count)
        # Not Generator.permutation: numpy may change what its methods draw, but not what the bits of a generator are.
        return np.argsort(np.random.PCG64([seed, epoch]).random_raw(count), kind="stable")

    def spans(self, seed: int, epoch: int, position: int) -> Iterator[Sequence[int]]:
        """The numbers of the samples of each batch from `position` on."""
        size = self._batch_size or 1
        rest = self.order(seed, epoch)[position:].tolist()
        for first in range(0, len(rest), size):
            span = rest[first : first + size]
            if len(span) == size or not self._drop_last:
                yield span

    def read(self, numbers: Sequence[int]) -> Any:
        """The batch of those samples."""
        columns = self._columns.read(numbers)
        if self._batch_size is not None and self._collate is None:
            batch = tuple(map(_joined, columns, self._columns.stackable))
            return batch if len(batch) > 1 else batch[0]
        fresh = [column if isinstance(column, np.ndarray) else list(map(own, column)) for column in columns]
        samples = list(zip(*fresh, strict=True)) if len(fresh) > 1 else list(fresh[0])
        return samples[0] if self._collate is None or self._batch_size is None else self._collate(samples)

    def batches(self, spans: Iterable[Sequence[int]]) -> Generator[tuple[int, Any], None, None]:
        """Batches with the number of samples in each, `prefetch` of them read ahead."""
        if not self._prefetch:
            for span in spans:
                yield len(span), self.read(span)
            return
        waiting: deque[tuple[int, Future[Any]]] = deque()
        with ThreadPoolExecutor(min(THREADS, self._prefetch), "arborfs-loader") as pool:
            try:
                for span in spans:
                    waiting.append((len(span), pool.submit(self.read, span)))
                    if len(waiting) > self._prefetch:
                        yield _awaited(waiting)
                while waiting:
                    yield _awaited(waiting)
            finally:
                for _, future in waiting:
                    future.cancel()


class BatchIterator(Iterator[Any]):
    """The batches of one epoch. Not thread-safe."""

    def __init__(self, dataset: NumpyDataset, seed: int, epoch: int, position: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._epoch = epoch
        self._position = position
        self._batches = dataset.batches(dataset.spans(seed, epoch, position))

    def __next__(self) -> Any:
        """The next batch."""
        count, batch = next(self._batches)
        self._position += count
        return batch

    def state(self) -> dict[str, Any]:
        """How far this iterator has come, counted in samples handed out, for `NumpyDataset.resume`.

        Numbers and texts only: it can be kept as JSON. What was read ahead does not count.
        """
        return self._dataset.state_at(self._seed, self._epoch, self._position)

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()

    def __enter__(self) -> Self:
        """The iterator itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()


def make_numpy_dataset(
    columns: object,
    keys: Iterable[Key | Sequence[Key]] | None = None,
    batch_size: int | None = None,
    drop_last: bool = False,
    shuffle: bool = True,
    collate_fn: Collate | None = None,
    *,
    seed: int | None = None,
    prefetch: int = 0,
) -> NumpyDataset:
    """Iterate over datasets of a read-only checkout in batches of numpy arrays.

    One dataset, or a list of datasets whose samples belong together by key; `keys` as in `make_torch_dataset`. A batch is
    one array of `batch_size` samples, a list where they vary in shape or are no arrays (nested ones are dicts), and for
    several datasets a tuple of these; or what `collate_fn` makes of a list of samples (tuples of samples for several
    datasets). Without a `batch_size` samples come one by one. With `drop_last` a last batch that is too short is left
    out. A `seed` gives the same orders again; else one is drawn. `prefetch` batches are read ahead by threads, which run
    `collate_fn`, too.

    Errors as of `make_torch_dataset`; TooFewSamples (a RuntimeError) for a `batch_size` above the number of samples,
    WrongType (a TypeError) or Unsupported (a ValueError) for one that is no positive int.
    """
    found = make_columns(columns, keys)
    if batch_size is not None:
        _require_int("batch_size", batch_size, 1)
        if batch_size > len(found):
            raise TooFewSamples(
                f"batch_size {batch_size} is more than there are samples: {len(found)}",
                wanted=batch_size,
                found=len(found),
            )
    _require_int("prefetch", prefetch, 0)
    if seed is not None:
        _require_int("seed", seed, 0)
    if collate_fn is not None and not callable(collate_fn):
        raise WrongType(f"collate_fn must be a function, not {type(collate_fn).__name__}")
    return NumpyDataset(
        found,
        batch_size=batch_size,
        drop_last=bool(drop_last),
        shuffle=bool(shuffle),
        collate=collate_fn,
        seed=secrets.randbits(63) if seed is None else seed,
        prefetch=prefetch,
    )


def _require_int(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongType(f"{name} must be an int, not {type(value).__name__}")
    if value < least:
        raise Unsupported(f"{name} must be at least {least}, not {value}")


def _joined(column: Batch, stackable: bool) -> Batch:
    """The samples of a column as one array where that can be, else as a list: fresh memory in any case."""
    if isinstance(column, np.ndarray):
        return column
    return np.stack(column) if stackable else list(map(own, column))


def _awaited(waiting: deque[tuple[int, Future[Any]]]) -> tuple[int, Any]:
    count, future = waiting.popleft()
    return count, future.result()
