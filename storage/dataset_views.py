"""The keys, values and items of a dataset, and what of it is here."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from storage.dataset_reader import DatasetDataReader


class Values(ValuesView[Any]):
    """The values of a dataset."""

    _mapping: DatasetDataReader

    def __iter__(self) -> Iterator[Any]:
        """Each sample, read when its turn comes."""
        return self._mapping.samples_in_order()

    def __contains__(self, value: object) -> bool:
        """Whether some sample equals `value`; reads all of them."""
        return any(bool(np.array_equal(array, value)) for array in self)  # type: ignore[arg-type]


class Items(ItemsView[str, Any]):
    """The keys and values of a dataset."""

    _mapping: DatasetDataReader

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Each key and its sample, read when its turn comes."""
        return self._mapping.pairs()

    def __contains__(self, item: object) -> bool:
        """Whether the sample of that key equals that value."""
        if not isinstance(item, tuple) or len(item) != 2 or item[0] not in self._mapping:
            return False
        return bool(np.array_equal(self._mapping[item[0]], item[1]))


class Local(Mapping[str, Any]):
    """A dataset without the samples that would have to be fetched from elsewhere."""

    def __init__(self, dataset: DatasetDataReader) -> None:
        self._dataset = dataset

    def __getitem__(self, key: str) -> Any:
        """The sample under `key`. KeyError where it is not here."""
        if key not in self:
            raise KeyError(key)
        return self._dataset[key]

    def __contains__(self, key: object) -> bool:
        """Whether the sample under `key` is here."""
        return self._dataset.is_here(key)

    def __iter__(self) -> Iterator[str]:
        """The keys of the samples that are here, in order."""
        return (key for key, here in self._dataset.places() if here)

    def __len__(self) -> int:
        """How many samples are here; costs a walk over them."""
        return sum(here for _, here in self._dataset.places())
