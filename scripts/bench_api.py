"""The Python API: 50,000 images of 784 bytes with their labels, and 2,000 images of 256 KiB.

Floors, in the same run: raw LMDB with the same bytes, `np.load` of the whole stack, a plain file of the compressed bytes,
unpacking alone, by two threads; where PyTorch is installed, a DataLoader over one .npy file per sample.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import numpy as np
from bench_common import Figures, Row, medians, quiet, repository, seconds

from storage import Repository
from storage.checkout import WriterCheckout
from storage.model.chunking import pack, pack_many, unpack, unpack_many
from storage.stacking import MANY_LEAVES
from storage.tree.cut import LEAF_TARGET

COUNT, SIDE = 50_000, 28
NAKED = 10_000
READS = 50_000
EPOCH = 10_000
LARGE_COUNT, LARGE_SIDE = 2_000, 256
_NBYTES = COUNT * (SIDE * SIDE + 8)


def handwriting(count: int, side: int = SIDE, grid: int = 7, seed: int = 0) -> np.ndarray:
    """Images that compress like handwriting: smooth strokes with soft edges in the middle of nothing. Always the same.

    Noise on a coarse grid, smoothly interpolated, cut off from below: uint8 of shape (count, side, side).
    """
    rng = np.random.default_rng(seed)
    at = np.linspace(0, grid - 1, side)
    left = np.clip(at.astype(int), 0, grid - 2)
    weight = at - left
    weight = weight * weight * (3 - 2 * weight)
    spread = np.zeros((side, grid), np.float32)
    spread[np.arange(side), left] = 1 - weight
    spread[np.arange(side), left + 1] = weight
    window = np.sqrt(np.outer(np.hanning(side + 2)[1:-1], np.hanning(side + 2)[1:-1])).astype(np.float32)
    images = np.empty((count, side, side), np.uint8)
    for start in range(0, count, 5_000):
        noise = rng.standard_normal((min(5_000, count - start), grid, grid)).astype(np.float32)
        smooth = np.einsum("ij,njk,lk->nil", spread, noise, spread, optimize=True) * window
        images[start : start + 5_000] = np.clip((smooth - 0.3) * 3, 0, 1) * 255
    return images


def photographs(count: int, side: int = LARGE_SIDE) -> np.ndarray:
    """float32 images: smooth shapes under the noise of a sensor of 10 bits."""
    rng = np.random.default_rng(5)
    found = handwriting(count, side, grid=16, seed=6).astype(np.float32)
    for image in found:
        image += rng.integers(0, 32, image.shape).astype(np.float32) / 4
    return found / 256


def api(work: Path, runs: int, figures: Figures) -> list[Row]:
    """What scientists do with the Python API, beside floors that keep the same bytes."""
    images = handwriting(COUNT).reshape(COUNT, -1)
    labels = np.random.default_rng(1).integers(0, 10, (COUNT, 1))
    large = photographs(LARGE_COUNT)
    for _ in range(runs):
        _floors(work, images, labels, figures)
        _write(work, images, labels, figures)
        _read(work, images, figures)
        _stacked(work, images, figures)
        _large(work, large, figures)
        if importlib.util.find_spec("torch"):
            _loaded(work, images[:EPOCH], figures)
    return _rows(medians(figures))


def _floors(work: Path, images: np.ndarray, labels: np.ndarray, figures: Figures) -> None:
    """Raw LMDB puts and random gets of the same bytes; np.save and np.load of the stack."""
    rows = [(f"i/{i}".encode(), image.tobytes()) for i, image in enumerate(images)]
    rows += [(f"l/{i}".encode(), label.tobytes()) for i, label in enumerate(labels)]
    shutil.rmtree(work / "lmdb", ignore_errors=True)
    environment = lmdb.open(str(work / "lmdb"), map_size=1 << 32, sync=False)

    def put() -> None:
        with environment.begin(write=True) as txn:
            for key, value in rows:
                txn.put(key, value)

    def get() -> None:
        with environment.begin() as txn:
            for key in keys:
                txn.get(key)

    figures.setdefault("raw LMDB put", []).append(seconds(put) / len(rows))
    keys = [rows[i][0] for i in np.random.default_rng(2).integers(0, COUNT, READS)]
    figures.setdefault("raw LMDB get", []).append(seconds(get) / READS)
    environment.close()
    np.save(work / "stack.npy", images)
    figures.setdefault("np.load", []).append(seconds(lambda: np.load(work / "stack.npy")))
    figures.setdefault("unpack leaves", []).append(_unpacked(images))


def _unpacked(images: np.ndarray) -> float:
    """Seconds in which two threads unpack the images, packed in pieces as long as leaves, and keep nothing."""
    raw = images.tobytes()
    pieces = [raw[at : at + LEAF_TARGET] for at in range(0, len(raw), LEAF_TARGET)]
    packed = [
        (codec, memoryview(data), len(piece)) for (codec, data), piece in zip(pack_many(pieces), pieces, strict=True)
    ]
    portions = [packed[at : at + MANY_LEAVES] for at in range(0, len(packed), MANY_LEAVES)]
    with ThreadPoolExecutor(2) as threads:
        return seconds(lambda: _exhaust(threads.map(lambda portion: len(unpack_many(portion)), portions)))


def _datasets(co: WriterCheckout) -> None:
    quiet(lambda: co.datasets.init_dataset(name="images", shape=(SIDE * SIDE,), dtype=np.uint8))
    quiet(lambda: co.datasets.init_dataset(name="labels", shape=(1,), dtype=np.int64))


def _write(work: Path, images: np.ndarray, labels: np.ndarray, figures: Figures) -> None:
    repo = repository(work / "repo")
    with repo.checkout(write=True) as co:
        _datasets(co)
        first, second = co.datasets["images"], co.datasets["labels"]

        def batch() -> None:
            with first, second:
                for i in range(COUNT):
                    first[str(i)] = images[i]
                    second[str(i)] = labels[i]

        def naked() -> None:
            for i in range(NAKED):
                first[f"n{i}"] = images[i]

        figures.setdefault("write", []).append(seconds(batch) / (2 * COUNT))
        figures.setdefault("commit", []).append(seconds(lambda: co.commit("all")))
        figures.setdefault("disk", []).append(repo.size_nbytes)
        figures.setdefault("naked", []).append(seconds(naked) / NAKED)
        co.reset_staging_area()
    repo.close()


def _read(work: Path, images: np.ndarray, figures: Figures) -> None:
    """Reads by an engine that has nothing in memory yet."""
    repo = Repository(work / "repo")
    figures.setdefault("checkout", []).append(seconds(lambda: repo.checkout().close()))
    keys = [str(i) for i in np.random.default_rng(3).permutation(COUNT)[:READS]]
    with repo.checkout() as co:
        dataset = co.datasets["images"]

        def read() -> None:
            with dataset:
                for key in keys:
                    dataset[key]

        figures.setdefault("random", []).append(seconds(read) / READS)
        if not np.array_equal(dataset[keys[0]], images[int(keys[0])]):
            raise SystemExit("what was read differs from what was written")
    repo.close()
    repo = Repository(work / "repo")
    with repo.checkout() as co:
        values = co.datasets["images"].values()
        figures.setdefault("in order", []).append(seconds(lambda: _exhaust(values)) / COUNT)
    repo.close()
    repo = Repository(work / "repo")
    with repo.checkout() as co:
        dataset = co.datasets["images"]
        figures.setdefault("stack", []).append(seconds(lambda: dataset.stack()))
    repo.close()


def _exhaust(values: Iterable[object]) -> None:
    for _ in values:
        pass


def _stacked(work: Path, images: np.ndarray, figures: Figures) -> None:
    """One call for all samples, and the commit."""
    keys = [str(i) for i in range(COUNT)]
    repo = repository(work / "stacked")
    with repo.checkout(write=True) as co:
        _datasets(co)
        dataset = co.datasets["images"]

        def update() -> None:
            dataset.update(keys, images)
            co.commit("all")

        figures.setdefault("update", []).append(seconds(update) / COUNT)
        if not np.array_equal(dataset["777"], images[777]):
            raise SystemExit("what was read differs from what was written")
    repo.close()


def _large(work: Path, images: np.ndarray, figures: Figures) -> None:
    """Images of 256 KiB: a chunk each."""
    packed = [pack(image.tobytes(), image.itemsize) for image in images]

    def plain() -> None:
        with (work / "plain").open("wb") as file:
            for _, data in packed:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())

    figures.setdefault("plain file", []).append(seconds(plain))
    repo = repository(work / "large")
    with repo.checkout(write=True) as co:
        quiet(lambda: co.datasets.init_dataset(name="images", prototype=images[0]))
        dataset = co.datasets["images"]

        def write() -> None:
            with dataset:
                for i, image in enumerate(images):
                    dataset[str(i)] = image
            co.flush()

        figures.setdefault("write large", []).append(seconds(write))
        co.commit("all")
    repo.close()
    with ThreadPoolExecutor(2) as threads:

        def decode() -> None:
            _exhaust(threads.map(lambda one: unpack(*one, images[0].nbytes), packed))

        figures.setdefault("unpack", []).append(seconds(decode))
    repo = Repository(work / "large")
    with repo.checkout() as co:
        dataset, keys = co.datasets["images"], list(map(str, range(LARGE_COUNT)))
        groups = [keys[at : at + 100] for at in range(0, len(keys), 100)]
        figures.setdefault("read large", []).append(seconds(lambda: _exhaust(dataset[group] for group in groups)))
    repo.close()


def _loaded(work: Path, images: np.ndarray, figures: Figures) -> None:
    """An epoch of a shuffling DataLoader with two workers, which have begun: over the repository, and over files."""
    from torch.utils.data import DataLoader

    from storage.loaders import make_torch_dataset

    folder = work / "files"
    if not folder.exists():
        folder.mkdir()
        for i, image in enumerate(images):
            np.save(folder / f"{i}.npy", image)

    def epoch(samples: object) -> float:
        loader = DataLoader(samples, batch_size=64, shuffle=True, num_workers=2, persistent_workers=True)
        _exhaust(loader)
        return seconds(lambda: _exhaust(loader)) / len(images)

    figures.setdefault("epoch of files", []).append(epoch(_Files(folder, len(images))))
    with Repository(work / "repo") as repo, repo.checkout() as co:
        keys = list(map(str, range(len(images))))
        figures.setdefault("epoch", []).append(epoch(make_torch_dataset([co.datasets["images"]], keys)))


class _Files:
    """Arrays in files of their own, as a map-style dataset."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> np.ndarray:
        return np.load(self._folder / f"{number}.npy")


def _rows(m: dict[str, float]) -> list[Row]:
    put, get, load = m["raw LMDB put"], m["raw LMDB get"], m["np.load"]

    def rate(what: str, name: str, floor: str, goal: str) -> Row:
        return (what, f"{1 / m[name]:,.0f} samples/s", floor, goal)

    loader: list[Row] = []
    if "epoch" in m:
        ratio = f"{m['epoch of files'] / m['epoch']:.2f} x one .npy file each"
        loader = [rate("DataLoader, two workers", "epoch", ratio, ">= 1 x")]
    return [
        rate("write images and labels, batch", "write", f"{put / m['write']:.2f} x raw LMDB", ">= 150,000/s"),
        rate("write images, one by one", "naked", f"{put / m['naked']:.2f} x raw LMDB", ">= 50,000/s"),
        rate("update(keys, array) and commit", "update", f"{put / m['update']:.2f} x raw LMDB", ">= 1,000,000/s"),
        (
            "commit of the batch",
            f"{m['commit']:.3f} s",
            f"{m['commit'] / (2 * COUNT * put):.2f} x raw LMDB",
            "<= 0.3 s",
        ),
        ("its size on disk", f"{m['disk'] / 1e6:.1f} MB", f"{m['disk'] / _NBYTES:.2f} x raw bytes", "<= 18 MB"),
        ("checkout", f"{m['checkout'] * 1e3:.2f} ms", "", "<= 10 ms"),
        rate("read at random", "random", f"{get / m['random']:.2f} x raw LMDB", ">= 100,000/s"),
        rate("read in order", "in order", f"{get / m['in order']:.2f} x raw LMDB", ">= 300,000/s"),
        ("stack of all", f"{m['stack'] * 1e3:.0f} ms", f"{load / m['stack']:.2f} x np.load", ">= 0.3 x"),
        ("", "", f"{m['unpack leaves'] / m['stack']:.2f} x unpacking", ""),
        _large_row("write", m["write large"], f"{m['plain file'] / m['write large']:.2f} x a plain file", ">= 0.5 x"),
        _large_row("read", m["read large"], f"{m['unpack'] / m['read large']:.2f} x unpacking", ">= 0.7 x"),
        *loader,
    ]


def _large_row(what: str, took: float, floor: str, goal: str) -> Row:
    rate = LARGE_COUNT * LARGE_SIDE**2 * 4 / 1e6 / took
    return (f"{what} {LARGE_COUNT:,} x 256 KiB float32", f"{rate:,.0f} MB/s", floor, goal)
