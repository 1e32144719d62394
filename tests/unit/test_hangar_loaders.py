"""Loaders: batches of numpy arrays, and PyTorch's DataLoader with worker processes (HG-91)."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from storage import Repository
from storage.loaders import make_numpy_dataset, make_tensorflow_dataset, make_torch_dataset

SAMPLES = 60


def image(number):
    return np.full((4, 3), number, np.float32)


@pytest.fixture
def repo(tmp_path):
    with pytest.warns(UserWarning, match="No repository exists"):
        repo = Repository(tmp_path / "repo")
    repo.init("Ada Lovelace", "ada@example.org")
    with repo.checkout(write=True) as co:
        images = co.datasets.init_dataset("images", shape=(4, 3), dtype=np.float32)
        labels = co.datasets.init_dataset("labels", shape=(1,), dtype=np.int64)
        ragged = co.datasets.init_dataset("ragged", shape=(9,), dtype=np.int16, variable_shape=True)
        with images, labels, ragged:
            for number in range(SAMPLES):
                images[str(number)] = image(number)
                labels[str(number)] = np.array([number])
                ragged[str(number)] = np.full(1 + number % 9, number, np.int16)
        few = co.datasets.init_dataset("few", shape=(1,), dtype=np.int64)
        few["1"] = np.array([1])
        co.datasets.init_dataset("none", shape=(1,), dtype=np.int64)
        large = co.datasets.init_dataset("large", shape=(50, 50), dtype=np.float32)  # chunks, not in the tree itself
        for number in range(3):
            large[str(number)] = np.full((50, 50), number, np.float32)
        texts = co.datasets.init_dataset("texts", kind="str")
        pairs = co.datasets.init_dataset("pairs", shape=(2,), dtype=np.float64, contains_subsamples=True)
        for number in range(3):
            texts[str(number)] = "x" * number
            pairs[str(number)] = {"left": np.array([number, 0.5]), "right": np.array([0.5, number])}
        co.commit("samples")
    yield repo
    repo.close()


@pytest.fixture
def datasets(repo):
    with repo.checkout() as co:
        yield co.datasets


def seen(batches):
    return [number for batch in batches for number in np.ravel(batch).tolist()]


class TestNumpy:
    def test_hg91_batches_are_stacked_and_complete(self, datasets):
        made = make_numpy_dataset([datasets["images"], datasets["labels"]], batch_size=7)
        batches = list(made)
        assert [len(labels) for _, labels in batches] == [7] * 8 + [4] and len(made) == 9
        for images, labels in batches:
            assert images.dtype == np.float32 and images.shape[1:] == (4, 3) and labels.shape[1:] == (1,)
            assert (images[:, 0, 0] == labels[:, 0]).all()
        assert sorted(seen(labels for _, labels in batches)) == list(range(SAMPLES))

    def test_hg91_a_short_last_batch_can_be_left_out(self, datasets):
        made = make_numpy_dataset(datasets["labels"], batch_size=7, drop_last=True)
        assert [len(batch) for batch in made] == [7] * 8 and len(made) == 8

    def test_hg91_without_a_batch_size_samples_come_one_by_one(self, datasets):
        made = make_numpy_dataset(datasets["labels"], shuffle=False)
        assert len(made) == SAMPLES
        assert [sample.shape for sample in made] == [(1,)] * SAMPLES
        pairs = make_numpy_dataset([datasets["images"], datasets["labels"]], keys=["3", "1"], shuffle=False)
        assert [(float(a[0, 0]), int(b[0])) for a, b in pairs] == [(3, 3), (1, 1)]

    def test_hg91_arrays_of_varying_shape_come_as_a_list(self, datasets):
        made = make_numpy_dataset(
            [datasets["ragged"], datasets["labels"]], keys=["0", "1"], batch_size=2, shuffle=False
        )
        ((ragged, labels),) = made
        assert [part.tolist() for part in ragged] == [[0], [1, 1]] and labels.tolist() == [[0], [1]]

    def test_hg91_texts_and_nested_samples_come_as_lists(self, datasets):
        keys = ["2", "0"]
        columns = [datasets["texts"], datasets["pairs"], datasets["labels"]]
        ((texts, pairs, labels),) = make_numpy_dataset(columns, keys=keys, batch_size=2, shuffle=False)
        assert texts == ["xx", ""] and labels.tolist() == [[2], [0]]
        assert [sorted(pair) for pair in pairs] == [["left", "right"]] * 2
        assert pairs[0]["left"].tolist() == [2, 0.5] and pairs[0]["right"].flags.writeable
        assert list(make_numpy_dataset(datasets["texts"], keys=keys, shuffle=False)) == ["xx", ""]

    def test_hg91_layouts_must_match_unless_keys_are_named(self, datasets):
        with pytest.raises(ValueError, match="'images' is flat, 'pairs' is nested"):
            make_numpy_dataset([datasets["images"], datasets["pairs"]])

    def test_a_key_may_come_more_than_once(self, datasets):
        keys = ["5", "3", "5", "5"]
        assert [label[0] for label in make_numpy_dataset(datasets["labels"], keys=keys, shuffle=False)] == [5, 3, 5, 5]
        (batch,) = make_numpy_dataset(datasets["labels"], keys=keys, batch_size=4, shuffle=False)
        assert batch[:, 0].tolist() == [5, 3, 5, 5]

    def test_what_is_read_is_nobody_elses_memory(self, datasets):
        columns = [datasets["images"], datasets["ragged"], datasets["large"]]
        for size in (1, None):
            made = make_numpy_dataset(columns, keys=["2"], batch_size=size)
            for _ in range(2):
                (parts,) = made
                for part in parts:
                    assert all((sample == 2).all() for sample in part)
                    (part[0] if isinstance(part, list) else part)[...] = 0

    def test_hg91_the_user_may_collate(self, datasets):
        made = make_numpy_dataset(
            [datasets["images"], datasets["labels"]],
            keys=["2", "5"],
            batch_size=2,
            shuffle=False,
            collate_fn=lambda samples: [int(label[0]) for _, label in samples],
        )
        assert list(made) == [[2, 5]]

    def test_hg91_keys_may_differ_by_column(self, datasets):
        made = make_numpy_dataset([datasets["images"], datasets["labels"]], keys=[("2", 5)], shuffle=False)
        ((first, second),) = made
        assert first[0, 0] == 2 and second[0] == 5

    def test_epochs_have_orders_that_follow_from_the_seed(self, datasets):
        made = [make_numpy_dataset(datasets["labels"], batch_size=7, seed=3) for _ in range(2)]
        first = [seen(each) for each in made]
        second = [seen(each) for each in made]
        assert first[0] == first[1] and second[0] == second[1] and first[0] != second[0] != list(range(SAMPLES))
        assert seen(make_numpy_dataset(datasets["labels"], seed=4)) != first[0]
        # The order is a promise to states that were saved: it may not change with a version.
        assert make_numpy_dataset(datasets["labels"], seed=3).order(3, 0)[:8].tolist() == [20, 28, 0, 31, 4, 47, 9, 51]

    def test_reading_ahead_changes_nothing(self, datasets):
        columns = [datasets["images"], datasets["labels"]]
        plain = list(make_numpy_dataset(columns, batch_size=7, seed=3))
        ahead = list(make_numpy_dataset(columns, batch_size=7, seed=3, prefetch=3))
        assert len(plain) == len(ahead)
        assert all(
            np.array_equal(a, b)
            for one, other in zip(plain, ahead, strict=True)
            for a, b in zip(one, other, strict=True)
        )

    def test_an_error_while_reading_ahead_comes_in_its_turn(self, datasets):
        def collate(samples):
            if any(sample[0] == 20 for sample in samples):
                raise ArithmeticError("twenty")
            return len(samples)

        made = iter(make_numpy_dataset(datasets["labels"], keys=range(SAMPLES), batch_size=5, shuffle=False,
                                       collate_fn=collate, prefetch=4))  # fmt: skip
        assert [next(made) for _ in range(4)] == [5] * 4
        with pytest.raises(ArithmeticError, match="twenty"):
            next(made)

    @pytest.mark.parametrize("prefetch", [0, 3])
    @pytest.mark.parametrize("taken", [0, 1, 5, 9])
    def test_an_epoch_goes_on_where_a_saved_state_says(self, datasets, taken, prefetch):
        columns = [datasets["images"], datasets["labels"]]
        whole = seen(labels for _, labels in make_numpy_dataset(columns, batch_size=7, seed=3))
        with iter(make_numpy_dataset(columns, batch_size=7, seed=3, prefetch=prefetch)) as batches:
            before = seen(labels for _, labels in islice(batches, taken))
            saved = json.loads(json.dumps(batches.state()))
        again = make_numpy_dataset(columns, batch_size=4, prefetch=prefetch)
        after = seen(labels for _, labels in again.resume(saved))
        assert before + after == whole
        following = make_numpy_dataset(columns, batch_size=7, seed=3)
        iter(following)
        assert seen(labels for _, labels in again) == seen(labels for _, labels in following)

    def test_a_state_of_other_keys_is_refused_and_one_of_another_commit_is_not(self, repo, datasets):
        batches = iter(make_numpy_dataset(datasets["labels"], batch_size=7, seed=3))
        rest = 60 - len(next(batches))
        state = batches.state()
        for other in (
            make_numpy_dataset(datasets["labels"], keys=range(SAMPLES - 1)),
            make_numpy_dataset(datasets["labels"], keys=range(SAMPLES - 1, -1, -1)),
            make_numpy_dataset(datasets["images"]),
            make_numpy_dataset(datasets["labels"], shuffle=False),
        ):
            seed = other.seed
            with pytest.raises(ValueError, match="another iterator"):
                other.resume(state)
            assert other.epoch == 0 and other.seed == seed
        for wrong in ({}, state | {"position": 61}, state | {"epoch": -1}, state | {"seed": "3"}, None):
            with pytest.raises(ValueError, match="state"):
                make_numpy_dataset(datasets["labels"]).resume(wrong)
        with repo.checkout(write=True) as co:
            for key in range(SAMPLES):
                co.datasets["labels"][key] = np.array([1000])
            co.commit("others")
        with repo.checkout() as co:
            assert seen(make_numpy_dataset(co.datasets["labels"]).resume(state)) == [1000] * rest


class TestRefusals:
    """What all loaders refuse alike."""

    @pytest.fixture(params=[make_numpy_dataset, make_torch_dataset])
    def make(self, request):
        if request.param is make_torch_dataset:
            pytest.importorskip("torch", reason="PyTorch is not installed")
        return request.param

    def test_hg91_a_writers_datasets(self, repo, make):
        with repo.checkout(write=True) as co, pytest.raises(PermissionError, match="'labels' is a writer's"):
            make(co.datasets["labels"])

    @pytest.mark.parametrize("columns", [[], (), None, "images", {"images": 1}, [np.zeros(3)]])
    def test_hg91_what_is_no_dataset(self, make, columns):
        with pytest.raises(TypeError, match="columns must be"):
            make(columns)

    def test_hg91_different_keys(self, datasets, make):
        with pytest.raises(KeyError, match="59 are in one only, such as '0'"):
            make([datasets["images"], datasets["few"]])
        assert len(make([datasets["images"], datasets["few"]], keys=["1"])) == 1

    def test_hg91_keys_that_are_not_there_or_none(self, datasets, make):
        with pytest.raises(KeyError, match="no sample '60' in dataset 'images'"):
            make([datasets["images"], datasets["labels"]], keys=["60"])
        for wrong in ("5", 5, [2.5], [True], [None]):
            with pytest.raises(TypeError, match="keys"):
                make(datasets["images"], keys=wrong)
        with pytest.raises(ValueError, match="1 keys, there are 2 datasets"):
            make([datasets["images"], datasets["labels"]], keys=[("1",)])

    def test_hg91_no_samples(self, datasets, make):
        with pytest.raises(RuntimeError, match="no sample in none"):
            make(datasets["none"])
        with pytest.raises(RuntimeError, match="no sample in labels"):
            make(datasets["labels"], keys=[])

    def test_hg91_batch_sizes(self, datasets):
        with pytest.raises(RuntimeError, match="more than there are samples: 60"):
            make_numpy_dataset(datasets["labels"], batch_size=61)
        for wrong in (2.0, "2", True):
            with pytest.raises(TypeError, match="batch_size must be an int"):
                make_numpy_dataset(datasets["labels"], batch_size=wrong)
        for wrong in (0, -1):
            with pytest.raises(ValueError, match="at least 1"):
                make_numpy_dataset(datasets["labels"], batch_size=wrong)
        with pytest.raises(TypeError, match="collate_fn"):
            make_numpy_dataset(datasets["labels"], collate_fn=3)


class Processes:
    """Tells which process read a sample."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, number):
        return os.getpid(), self.dataset[number]


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


class TestTorch:
    def test_hg91_samples_are_tensors(self, torch, datasets):
        made = make_torch_dataset([datasets["images"], datasets["labels"]])
        assert isinstance(made, torch.utils.data.Dataset) and len(made) == SAMPLES
        pixels, label = made[-1]
        assert pixels.dtype == torch.float32 and label.tolist() == [9] and (pixels == 9).all()
        with pytest.raises(IndexError, match="none of number 60"):
            made[SAMPLES]

    def test_hg91_as_dict_by_names(self, torch, datasets):
        made = make_torch_dataset([datasets["images"], datasets["labels"]], keys=["7"], as_dict=True)
        assert set(made[0]) == {"images", "labels"} and made[0]["labels"].tolist() == [7]
        with pytest.raises(ValueError, match="each name once"):
            make_torch_dataset([datasets["labels"]] * 2, as_dict=True)

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_hg91_two_workers_shuffling(self, torch, datasets, method):
        made = make_torch_dataset([datasets["images"], datasets["labels"]])
        made[0]  # the parent has the repository open and has read from it
        loader = torch.utils.data.DataLoader(
            made, batch_size=8, shuffle=True, num_workers=2, multiprocessing_context=method, persistent_workers=True,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        for _ in range(2):
            found = []
            for pixels, labels in loader:
                assert (pixels[:, 0, 0] == labels[:, 0]).all()
                found += labels[:, 0].tolist()
            assert sorted(found) == list(range(SAMPLES)) != found
        assert made[0][1].tolist() == [0]

    @pytest.mark.parametrize("method", ["fork", "spawn"])
    def test_hg91_workers_read_after_the_parent_has_closed(self, torch, repo, method):
        co = repo.checkout()
        loader = torch.utils.data.DataLoader(
            Processes(make_torch_dataset(co.datasets["labels"])), batch_size=6, num_workers=2,
            multiprocessing_context=method,
        )  # fmt: skip
        repo.close()
        batches = list(loader)
        assert [n for _, labels in batches for n in labels[:, 0].tolist()] == sorted(range(SAMPLES), key=str)
        readers = Counter(pid for pids, _ in batches for pid in pids.tolist())
        assert len(readers) == 2 and os.getpid() not in readers

    def test_hg91_workers_stay_at_their_commit(self, torch, repo, datasets):
        made = make_torch_dataset(datasets["labels"])
        with repo.checkout(write=True) as co:
            del co.datasets["labels"]["0"]
            co.datasets["labels"]["1"] = np.array([1000])
            co.commit("others")
        batches = torch.utils.data.DataLoader(made, batch_size=6, num_workers=2)
        assert sorted(n for labels in batches for n in labels[:, 0].tolist()) == list(range(SAMPLES))

    def test_hg91_with_a_mount_alive(self, torch, repo, datasets, mounted):
        mount = mounted(repo.path)
        made = make_torch_dataset([datasets["images"], datasets["labels"]])
        found = []
        for pixels, labels in torch.utils.data.DataLoader(made, batch_size=8, shuffle=True, num_workers=2):
            assert (pixels[:, 0, 0] == labels[:, 0]).all()
            found += labels[:, 0].tolist()
            file = np.load(mount.main / "images" / f"{found[-1]}.npy")
            assert np.array_equal(file, pixels[-1].numpy())
        assert sorted(found) == list(range(SAMPLES))

    def test_a_pickled_copy_opens_the_repository_itself(self, torch, repo):
        with repo.checkout() as co:
            stored = pickle.dumps(make_torch_dataset(co.datasets["labels"]))
        repo.close()
        copy = pickle.loads(stored)
        assert copy[0].tolist() == [0] and len(copy) == SAMPLES
        assert pickle.loads(pickle.dumps(copy))[-1].tolist() == [9]

    def test_texts_and_nested_samples(self, torch, datasets):
        made = make_torch_dataset([datasets["texts"], datasets["pairs"]], keys=["0", "1", "2"])
        text, pair = made[2]
        assert text == "xx" and torch.equal(pair["right"], torch.tensor([0.5, 2.0], dtype=torch.float64))
        ((texts, pairs),) = torch.utils.data.DataLoader(made, batch_size=3, num_workers=2)
        assert list(texts) == ["", "x", "xx"] and pairs["left"].tolist() == [[0, 0.5], [1, 0.5], [2, 0.5]]

    def test_tensors_are_nobody_elses_memory(self, torch, datasets):
        made = make_torch_dataset([datasets["images"], datasets["ragged"], datasets["large"]], keys=["2"])
        for _ in range(2):
            for tensor in made[0]:
                assert (tensor == 2).all()
                tensor[:] = 0

    def test_hg91_large_samples_in_batches(self, torch, datasets):
        (batch,) = torch.utils.data.DataLoader(make_torch_dataset(datasets["large"]), batch_size=3, num_workers=2)
        assert batch.shape == (3, 50, 50) and batch[:, 7, 7].tolist() == [0, 1, 2]
        (plain,) = make_numpy_dataset(datasets["large"], batch_size=3, shuffle=False)
        assert plain.shape == (3, 50, 50) and plain[:, 7, 7].tolist() == [0, 1, 2]

    def test_kinds_without_a_tensor_stay_arrays(self, torch, repo):
        with repo.checkout(write=True) as co:
            co.datasets.init_dataset("times", shape=(1,), dtype="datetime64[s]")["0"] = np.array([5], "datetime64[s]")
            co.datasets.init_dataset("big", shape=(1,), dtype=">i4")["0"] = np.array([5], ">i4")
            co.commit("times")
        with repo.checkout() as co:
            time, big = make_torch_dataset([co.datasets["times"], co.datasets["big"]])[0]
            assert isinstance(time, np.ndarray) and time[0] == np.datetime64(5, "s") and big.tolist() == [5]


def test_hg91_tensorflow(datasets):
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    made = make_tensorflow_dataset([datasets["images"], datasets["labels"]], shuffle=True)
    assert isinstance(made, tensorflow.data.Dataset)
    for _ in range(2):
        assert sorted(int(label[0]) for _, label in made) == list(range(SAMPLES))


@pytest.mark.parametrize("library, make", [("torch", make_torch_dataset), ("tensorflow", make_tensorflow_dataset)])
def test_hg91_a_library_that_is_missing_is_named(datasets, monkeypatch, library, make):
    monkeypatch.setitem(sys.modules, library, None)  # what Python itself takes for: cannot be imported
    from storage.loaders import pytorch

    pytorch._dataset_class.cache_clear()
    with pytest.raises(ValueError, match="install"):
        make(datasets["labels"])


def test_loaders_do_not_import_what_is_not_asked_for():
    script = "import sys, storage.loaders; print({'torch', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
