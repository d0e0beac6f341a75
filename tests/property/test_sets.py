"""Properties of taking from and splitting sets of any composition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from nsvit.data.layouts import ImageSet, split_dev

counts = st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(lambda c: sum(c) >= 2)


def image_set(each: list[int], cells: int = 0) -> ImageSet:
    """A set without files: `each[k]` pictures of class k, in every one of `cells` cells."""
    keys = [(f"c{k // 2}", k % 2 + 1) for k in range(cells)] or [("", 0)]
    rows = [
        (f"{corruption}/{severity}/{label}/{k}", label, corruption, severity)
        for corruption, severity in keys
        for label, count in enumerate(each)
        for k in range(count)
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "corruption", "severity"])
    names = tuple(map(str, range(len(each))))
    return ImageSet("s", Path("x"), frame, names, names)


@given(each=counts, n=st.integers(0, 60))
def test_take_is_balanced_and_nested(each, n):
    whole = image_set(each)
    taken, more = whole.take(n), whole.take(n + 1)
    assert len(taken) == min(n, sum(each))
    assert taken.frame["path"].tolist() == more.frame["path"].tolist()[: len(taken)]
    got = np.bincount(taken.labels, minlength=len(each))
    # No class is two ahead of one that still has pictures.
    assert all(
        got[a] <= got[b] + 1 for a in range(len(each)) for b in range(len(each)) if got[b] < each[b]
    )


@given(each=counts, n=st.integers(1, 20), cells=st.integers(2, 6))
def test_take_of_cells_is_take_of_each_cell(each, n, cells):
    taken = image_set(each, cells).take(n)
    expected = [path.split("/", 2)[2] for path in image_set(each).take(n).frame["path"]]
    found = [
        [path.split("/", 2)[2] for path in cell["path"]]
        for _, cell in taken.frame.groupby(["corruption", "severity"], sort=False)
    ]
    assert found == [expected] * cells


@given(each=counts, seed=st.integers(0, 2**31), data=st.data())
@settings(max_examples=60)
def test_split_is_a_stratified_partition(each, seed, data):
    whole = image_set(each)
    dev_images = data.draw(st.integers(1, sum(each) - 1))
    train, dev = split_dev(whole, dev_images, seed)
    assert len(dev) == dev_images
    both = train.frame["path"].tolist() + dev.frame["path"].tolist()
    assert sorted(both) == sorted(whole.frame["path"])
    share = dev_images * np.array(each) / sum(each)
    assert np.abs(np.bincount(dev.labels, minlength=len(each)) - share).max() < 1
    again = split_dev(whole, dev_images, seed)[1]
    assert again.frame.equals(dev.frame)


def test_splits_of_two_seeds_differ():
    whole = image_set([20, 20, 20])
    first, second = (split_dev(whole, 15, seed)[1] for seed in (0, 1))
    assert first.frame["path"].tolist() != second.frame["path"].tolist()
