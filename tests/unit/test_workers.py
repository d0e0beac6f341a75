"""Pictures read ahead: the same tensors for any number of processes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from nsvit import runtime
from nsvit.config import FinetuneConfig, MixingConfig
from nsvit.data.loading import load_pixels, read_spans, spans_of
from nsvit.data.training import Round
from nsvit.data.workers import in_order
from nsvit.errors import NsvitError
from nsvit.inputs import Pictures
from tests.small import image_tree, read_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return image_tree(tmp_path_factory.mktemp("tree"), per_class=5, size=24)


def refusing(index: int) -> int:
    if index == 2:
        raise NsvitError("picture 2 is damaged")
    return index


def test_items_come_in_order_and_a_refusal_is_a_users_error():
    assert list(in_order(partial(max, 3), 6, workers=2)) == [3, 3, 3, 3, 4, 5]
    found = in_order(refusing, 5, workers=2)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(NsvitError, match=r"^picture 2 is damaged$"):
        next(found)


def test_the_global_random_state_is_left_alone():
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()
    list(in_order(refusing, 2, workers=1))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_evaluation_reads_the_same_for_any_number_of_workers(pictures, workers, monkeypatch):
    monkeypatch.setattr(runtime, "_workers", workers)
    whole = (read_pictures(pictures) * 255).round().to(torch.uint8)
    spans = [(3, 7), (0, 2), (12, 20)]
    found = list(read_spans(pictures, spans))
    for (start, stop), (pixels, labels) in zip(spans, found, strict=True):
        assert torch.equal(pixels, whole[start:stop])
        assert labels.tolist() == pictures.labels[start:stop].tolist()
    assert torch.equal(load_pixels(pictures), whole)
    streamed = list(Pictures(pictures).batches(6, torch.device("cpu")))
    kept = list(Pictures(pictures, whole).batches(6, torch.device("cpu")))
    assert [len(labels) for _, labels in streamed] == [6, 6, 6, 2]
    for one, other in zip(streamed, kept, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_spans_cover_the_rows_once():
    assert spans_of(7, 3) == [(0, 3), (3, 6), (6, 7)]
    assert spans_of(0, 3) == []


def round_of(pictures, **config) -> Round:
    settings = {"steps": 3, "batch_size": 8, "augmentation": "imagenet", **config}
    batches = np.random.default_rng(0).integers(0, len(pictures), (3, 8))
    return Round(pictures, batches, FinetuneConfig(**settings), (16, 16), 4, seed=5, number=2)


MIXED = MixingConfig(mixup=0.8, cutmix=1.0)


@pytest.mark.parametrize("mixing", [MixingConfig(), MIXED])
def test_training_reads_the_same_for_any_number_of_workers(pictures, mixing):
    own = round_of(pictures, mixing=mixing)
    expected = list(own.stream(workers=0))
    assert len(expected) == 3
    for workers in (1, 2):
        for one, other in zip(expected, own.stream(workers=workers), strict=True):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    late = list(own.stream(first=2, workers=0))
    assert len(late) == 1 and torch.equal(late[0][0], expected[2][0])


@pytest.mark.parametrize("mixing", [MixingConfig(), MIXED])
@pytest.mark.parametrize("augmentation", ["none", "light", "imagenet", "crop"])
def test_parts_of_a_batch_are_parts_of_the_whole(pictures, mixing, augmentation, tmp_path):
    if augmentation in ("none", "light"):
        pictures = image_tree(tmp_path, per_class=5)
    own = round_of(pictures, mixing=mixing, augmentation=augmentation)
    for step in range(3):
        images, targets = own.rows(step)
        for rows in (slice(0, 3), slice(3, 5), slice(5, 8), slice(2, 6)):
            part, labels = own.rows(step, rows)
            assert torch.equal(part, images[rows]) and torch.equal(labels, targets[rows])


def test_jobs_read_ahead_with_all_threads_but_one(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(runtime, "_workers", 0)
    try:
        runtime.prepare(3)
        assert runtime.workers() == 2
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory  # a pass over every tensor
        runtime.prepare(1)
        assert runtime.workers() == 0
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True
