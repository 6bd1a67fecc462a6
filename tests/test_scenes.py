"""Scenes of digits and of told things: what they promise of their boxes and sentences."""

import pytest
import torch

from stn_tutorial.data import (
    COLOURS,
    KINDS,
    WORDS,
    digit_scenes,
    embedded_digits,
    told_scenes,
)
from stn_tutorial.regions import box_iou


@pytest.fixture(scope="module")
def digits():
    return embedded_digits()


@pytest.fixture(scope="module")
def told(digits):
    return told_scenes(digits, 60, seed=3)


def test_scenes_depend_on_the_seed_alone(digits):
    one, two, other = (digit_scenes(digits, 5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.images, two.images)
    assert all(map(torch.equal, one.boxes, two.boxes))
    assert not torch.equal(one.images, other.images)
    assert torch.equal(*(told_scenes(digits, 5, seed=1).images for _ in range(2)))


def test_boxes_hold_their_digits_and_nothing_else_does_without_clutter(digits):
    scenes = digit_scenes(digits, 40, seed=0, clutter=0)
    assert (scenes.images.shape, scenes.images.dtype) == ((40, 1, 64, 64), torch.float32)
    counts = [len(labels) for labels in scenes.labels]
    assert set(counts) == {1, 2, 3}
    for image, boxes in zip(scenes.images[:, 0], scenes.boxes, strict=True):
        assert boxes.min() >= 0
        assert boxes.max() <= 64
        left_over = image.clone()
        for left, top, right, bottom in boxes.tolist():
            inside = image[int(top) : int(bottom) + 1, int(left) : int(right) + 1]
            # The ink reaches each of the four edges, to a pixel and a half.
            assert min(
                inside[:2].max(), inside[-2:].max(), inside[:, :2].max(), inside[:, -2:].max()
            ) > 0.1  # fmt: skip
            left_over[int(top) - 1 : int(bottom) + 2, int(left) - 1 : int(right) + 2] = 0
        assert left_over.max() < 0.3
        apart = box_iou(boxes, boxes).fill_diagonal_(0)
        assert apart.max() == 0


def test_labels_are_those_of_the_digits_shown(digits):
    """Digits of one class only: every label is that class."""
    of = digits.labels == 7
    sevens = type(digits)(digits.images[of], digits.labels[of])
    assert torch.cat(digit_scenes(sevens, 5).labels).unique().tolist() == [7]


def test_clutter_is_strewn(digits):
    plain, busy = (digit_scenes(digits, 10, clutter=n) for n in (0, 8))
    assert busy.images.sum() > 1.5 * plain.images.sum()
    assert busy.images.amax() <= 1


def test_sentences_are_true(told):
    """The first thing named lies left of, or above, the second; words name colours in place."""
    assert (told.images.shape, told.boxes.shape) == ((60, 3, 48, 48), (60, 2, 4))
    paint = torch.tensor(list(COLOURS.values()))
    seen = set()
    for image, boxes, words, about in zip(*told, strict=True):
        said = [WORDS[word] for word in words]
        seen |= set(said)
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        axis = 0 if "left" in said else 1
        assert middle[0, axis] < middle[1, axis]
        away = (middle[1] - middle[0]).abs()
        assert away[axis] >= away[1 - axis]
        for thing in (0, 1):
            colour, kind = words[about == thing].tolist()
            assert WORDS[kind] in KINDS
            left, top, right, bottom = boxes[thing].long().tolist()
            inside = image[:, top : bottom + 1, left : right + 1].flatten(1)
            brightest = inside[:, inside.sum(dim=0).argmax()]
            off = (paint - brightest).norm(dim=1)
            assert WORDS[colour] == list(COLOURS)[off.argmin()]
        assert box_iou(boxes[:1], boxes[1:]) == 0
    assert seen == set(WORDS)


@pytest.mark.parametrize("draw", [digit_scenes, told_scenes])
def test_what_is_none_is_refused(draw, digits):
    with pytest.raises(ValueError, match="n must be a whole number, 1 or more, but 0"):
        draw(digits, 0)
    with pytest.raises(ValueError, match="size must be a whole number"):
        draw(digits, 3, size=20)
