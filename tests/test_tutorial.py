"""The tutorial, from top to bottom, with the digits of scikit-learn in place of MNIST.

One test, because each step stands on the one before. What the tutorial shows is compared with what comes
out; ids and times, which differ from run to run, are replaced by their forms.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import Repository
from storage.dataset_reader import DatasetDataReader

LOCKED = (
    "Cannot acquire the writer lock. Only one instance of a writer checkout can be active at a time. If the last "
    "checkout of this repository did not properly close, or a crash occurred, the lock must be manually freed before "
    "another writer can be instantiated."
)

WRITER = """\
Arborfs WriterCheckout
    Writer       : True
    Base Branch  : main"""

NO_DATASETS = """\
Arborfs Datasets
    Writeable: True
    Dataset Names:
        -"""

NO_METADATA = """\
Arborfs Metadata
    Number of Keys : 0
    Access Mode    : a"""

DATASET = """\
Arborfs DatasetDataWriter
    Dataset Name     : mnist_training_images
    Schema UUID      : UUID
    Schema Hash      : HASH
    Variable Shape   : False
    (max) Shape      : (64,)
    Datatype         : <class 'numpy.uint8'>
    Named Samples    : True
    Access Mode      : a
    Num Samples      : {}"""

SUMMARY = """\
Summary of Contents Contained in Data Repository

==================
| Repository Info
|-----------------
|  Directory: {path}/.arborfs
|  Disk Usage: SIZE

===================
| Commit Details
-------------------
|  Commit: {commit}
|  Created: TIME
|  By: Rick Izzo
|  Email: foo@email.com
|  Message: 'hello world, this is my first hangar commit'

==================
| DataSets
|-----------------
|  Number of Named Datasets: 3
|
|  * Dataset Name: mnist_training_images
|    Num Arrays: 3
|    Details:
|    - schema_uuid: UUID
|    - schema_hash: HASH
|    - schema_dtype: 2
|    - schema_is_var: False
|    - schema_max_shape: [64]
|    - schema_is_named: True
|
|  * Dataset Name: train_images
|    Num Arrays: 1797
|    Details:
|    - schema_uuid: UUID
|    - schema_hash: HASH
|    - schema_dtype: 2
|    - schema_is_var: False
|    - schema_max_shape: [64]
|    - schema_is_named: True
|
|  * Dataset Name: train_labels
|    Num Arrays: 1797
|    Details:
|    - schema_uuid: UUID
|    - schema_hash: HASH
|    - schema_dtype: 7
|    - schema_is_var: False
|    - schema_max_shape: [1]
|    - schema_is_named: True

==================
| Metadata:
|-----------------
|  Number of Keys: 0
"""


def forms(text: object) -> str:
    """The text with ids, sizes and times replaced by their forms."""
    shown = re.sub(r"\b[0-9a-f]{32}\b", "UUID", str(text))
    shown = re.sub(r"(?i)(schema[ _]hash *: )[0-9a-f]{16}\b", r"\1HASH", shown)
    shown = re.sub(r"(Disk Usage: )\d+\.\d\d [kM]?B\b", r"\1SIZE", shown)
    return re.sub(r"(Created: )[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\b", r"\1TIME", shown)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """1797 images of 64 pixels, and which digit each one shows."""
    loaded = pytest.importorskip("sklearn.datasets", reason="the digits come with scikit-learn").load_digits()
    return loaded.images.reshape(-1, 64).astype(np.uint8), loaded.target.astype(np.int64)


def test_the_tutorial_from_top_to_bottom(tmp_path: Path, digits: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trimgs, trlabels = digits
    sample_trimg = trimgs[0]
    sample_trlabel = np.array([trlabels[0]])

    with pytest.warns(UserWarning, match=r"init\(\)"):
        repo = Repository(path=str(tmp_path))
    where = repo.init(user_name="Rick Izzo", user_email="foo@email.com")
    assert where == f"{tmp_path}/.arborfs"
    assert capsys.readouterr().out == f"directory initialized at: {tmp_path}/.arborfs\n"

    co = repo.checkout(write=True)
    assert repr(co) == WRITER
    assert repr(co.datasets) == NO_DATASETS
    assert repr(co.metadata) == NO_METADATA

    made = co.datasets.init_dataset(name="mnist_training_images", prototype=trimgs[0])
    assert capsys.readouterr().out == "Dataset prototype shape: (64,), dtype: uint8\n"
    assert forms(repr(made)) == DATASET.format(0)
    assert forms(repr(co.datasets["mnist_training_images"])) == DATASET.format(0)
    _a_few_samples(co.datasets["mnist_training_images"], trimgs)

    dset_trimgs = co.datasets.init_dataset(name="train_images", prototype=sample_trimg)
    dset_trlabels = co.datasets.init_dataset(name="train_labels", prototype=sample_trlabel)
    with dset_trimgs, dset_trlabels:
        for idx, img in enumerate(trimgs):
            dset_trimgs.add(data=img, name=str(idx))
            dset_trlabels.add(data=np.array([trlabels[idx]]), name=str(idx))
    assert len(dset_trimgs) == len(dset_trlabels) == 1797
    for idx in (0, 1000, 1796):
        assert np.array_equal(dset_trimgs[str(idx)], trimgs[idx])
        assert dset_trlabels[str(idx)].tolist() == [trlabels[idx]]

    digest = co.commit("hello world, this is my first hangar commit")
    assert re.fullmatch("[0-9a-f]{64}", digest)
    _the_writer_lock(repo, co)

    capsys.readouterr()
    repo.summary()
    assert forms(capsys.readouterr().out) == SUMMARY.format(path=tmp_path, commit=digest[:16])
    repo.log()
    line = capsys.readouterr().out
    moment = r"\d\d[A-Z][a-z]{2}\d{4} \d\d:\d\d:\d\d"
    message = "hello world, this is my first hangar commit"
    assert re.fullmatch(rf"\* {digest[:16]} \({moment}\) \(Rick Izzo\): {message}\n", line)
    repo.close()


def _a_few_samples(train_dset: DatasetDataReader, trimgs: Any) -> None:
    """Adding data, counting, containment, retrieval, iteration."""
    train_dset["0"] = trimgs[0]
    train_dset.add(data=trimgs[1], name="1")
    train_dset["51"] = trimgs[51]
    assert len(train_dset) == 3
    assert "hi" not in train_dset
    assert "0" in train_dset

    out = train_dset["0"]
    assert out.dtype == np.uint8
    assert np.array_equal(out.reshape(8, 8), trimgs[0].reshape(8, 8))
    assert forms(repr(train_dset)) == DATASET.format(3)

    expected = {"0": trimgs[0], "1": trimgs[1], "51": trimgs[51]}
    assert [k for k in train_dset] == [k for k in train_dset.keys()] == list(expected)  # noqa: C416, SIM118
    assert [v.tolist() for v in train_dset.values()] == [v.tolist() for v in expected.values()]
    assert {k: v.tolist() for k, v in train_dset.items()} == {k: v.tolist() for k, v in expected.items()}


def _the_writer_lock(repo: Repository, co: Any) -> None:
    """Closing releases it; a forgotten checkout keeps it until it is released by force."""
    assert co.close() is True
    forgotten = repo.checkout(write=True)
    with pytest.raises(PermissionError) as refused:
        repo.checkout(write=True)
    assert str(refused.value).startswith(LOCKED)
    with pytest.warns(UserWarning, match=r"^USER WARNING: Writer lock force released\.$"):
        assert repo.force_release_writer_lock() is True
    with repo.checkout(write=True) as again:
        assert len(again.datasets["train_images"]) == 1797
    assert forgotten.close() is True
