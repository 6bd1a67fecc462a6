"""The small detector: its boxes, its three ways, its precision; and the two models of words."""

import pytest
import torch
from torch.nn import functional as F

from stn_tutorial import affine
from stn_tutorial.data import WORDS, digit_scenes, embedded_digits, told_scenes
from stn_tutorial.models import (
    LOOKS,
    WAYS,
    Aligner,
    Detection,
    Detector,
    Teller,
    attention_box,
    average_precision,
    count_parameters,
    move_boxes,
    offsets_between,
    ranking_loss,
)
from stn_tutorial.regions import box_iou, box_theta, theta_box


def some_boxes(count=20):
    low = 40 * torch.rand(count, 2, dtype=torch.float64)
    return torch.cat([low, low + 5 + 20 * torch.rand(count, 2, dtype=torch.float64)], dim=1)


@pytest.fixture(scope="module")
def scenes():
    return digit_scenes(embedded_digits(), 12, seed=0)


@pytest.fixture(scope="module")
def told():
    return told_scenes(embedded_digits(), 16, seed=0)


# --- Boxes that are corrected ---


def test_offsets_and_back():
    a, b = some_boxes(), some_boxes()
    torch.testing.assert_close(move_boxes(a, offsets_between(a, b)), b, rtol=0, atol=1e-9)
    assert torch.equal(offsets_between(a, a), torch.zeros_like(a))


def test_a_correction_is_a_transform_in_the_box_s_own_frame():
    boxes, offsets = some_boxes(), 0.3 * torch.randn(20, 4, dtype=torch.float64)
    a, b, c, d = offsets.unbind(1)
    own = torch.zeros(20, 2, 3, dtype=torch.float64)
    own[:, 0, 0], own[:, 1, 1] = c.exp(), d.exp()
    own[:, 0, 2], own[:, 1, 2] = 2 * a, 2 * b
    composed = affine.compose(box_theta(boxes, (64, 64)), own)
    want = theta_box(composed, (64, 64))
    torch.testing.assert_close(move_boxes(boxes, offsets), want, rtol=0, atol=1e-9)


def test_a_wild_correction_stays_finite():
    assert move_boxes(some_boxes(), torch.full((20, 4), 1e4).double()).isfinite().all()


# --- The detector ---


def test_anchors_stand_on_the_features():
    net = Detector()
    anchors = net.grid((64, 48))
    assert anchors.shape == (2 * 16 * 12, 4)
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert torch.equal(middle[::2], middle[1::2])
    assert middle[0].tolist() == [2, 2]
    assert middle[-1].tolist() == [46, 62]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_learns_and_finds(way, scenes):
    torch.manual_seed(0)
    net = Detector()
    loss = net.loss(*scenes, way)
    loss.backward()
    unused = {name for name, p in net.named_parameters() if p.grad is None}
    proposing = {
        f"{part}.{kind}" for part in ("neck.0", "proposals") for kind in ("weight", "bias")
    }
    assert unused == (set() if way == "faster" else proposing)
    found = net.eval().detect(scenes.images, way)
    assert len(found) == 12
    for boxes, scores, labels in found:
        assert boxes.shape == (len(scores), 4)
        assert len(labels) == len(scores)
        assert (scores.diff() <= 0).all()


def test_a_little_training_finds_digits_and_another_picture_does_not():
    digits = embedded_digits()
    digits = type(digits)(digits.images, 0 * digits.labels)  # digit or not, which is soon learned
    train, test = (digit_scenes(digits, n, seed=n) for n in (150, 30))
    torch.manual_seed(0)
    net = Detector(1, width=24)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=150)
    for _ in range(150):
        some = torch.randint(150, (12,)).tolist()
        loss = net.loss(train.images[some], [train.boxes[k] for k in some],
                        [train.labels[k] for k in some])  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        proposed = net.propose(net.convolutions(test.images), (64, 64), 20)
    anchors = net.grid((64, 64))
    best = torch.cat([box_iou(b, p).amax(dim=1) for b, p in zip(test.boxes, proposed, strict=True)])
    drawn = torch.cat(
        [box_iou(b, anchors[torch.randperm(512)[:20]]).amax(dim=1) for b in test.boxes]
    )
    assert best.mean() > drawn.mean() + 0.15
    own = average_precision(net.detect(test.images), test.boxes, test.labels)
    others = net.detect(test.images.roll(1, 0))
    other = average_precision(others, test.boxes, test.labels)
    assert own > 0.4
    assert other < own / 3


def test_an_unknown_way_is_refused(scenes):
    with pytest.raises(ValueError, match="way must be one of r-cnn, fast, faster"):
        Detector().detect(scenes.images, "slow")
    with pytest.raises(ValueError, match="way must be one of"):
        Detector().loss(*scenes, "slow")


# --- Average precision ---


def finding(*rows):
    """Boxes at x, with score and label."""
    x, scores, labels = (torch.tensor(column) for column in zip(*rows, strict=True))
    boxes = torch.stack([x, 0 * x, x + 10, 0 * x + 10], dim=1).float()
    return Detection(boxes, scores, labels)


def test_average_precision_by_hand():
    truth = finding((0, 1.0, 3), (20, 1.0, 3), (40, 1.0, 3))
    boxes, labels = [truth.boxes], [truth.labels]
    # Right, wrong, right: precisions 1, 1/2, 2/3 at recalls 1/3, 1/3, 2/3.
    found = finding((1, 0.9, 3), (70, 0.8, 3), (21, 0.7, 3))
    assert average_precision([found], boxes, labels) == pytest.approx(1 / 3 + (1 / 3) * (2 / 3))
    # The second finding of one thing is wrong, another class is nothing, order is by score.
    twice = finding((1, 0.2, 3), (0, 0.9, 3), (20, 0.99, 4))
    assert average_precision([twice], boxes, labels) == pytest.approx(1 / 3)
    # At a stricter overlap nothing is right.
    assert average_precision([finding((3, 0.9, 3))], boxes, labels, 0.9) == 0
    none = Detection(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    assert average_precision([none], boxes, labels) == 0
    assert average_precision([truth], boxes, labels) == 1


def test_average_precision_counts_over_pictures():
    truth = finding((0, 1.0, 1))
    sure_and_wrong, right = finding((50, 0.9, 1)), finding((0, 0.5, 1))
    boxes, labels = 2 * [truth.boxes], 2 * [truth.labels]
    assert average_precision([sure_and_wrong, right], boxes, labels) == pytest.approx(0.25)


# --- Words ---


def test_ranking_loss_by_hand():
    scores = torch.tensor([[1.0, 0.5], [2.0, 3.0]], requires_grad=True)
    # Row 0: 0.5 − 1 + 1; row 1: 0; column 0: 2 − 1 + 1; column 1: 0. Over two pairs.
    loss = ranking_loss(scores)
    assert loss.item() == pytest.approx((0.5 + 2) / 2)
    loss.backward()
    assert scores.grad.tolist() == [[-1, 0.5], [0.5, 0]]


def test_aligner_sums_each_words_best_region(told):
    net = Aligner(len(WORDS)).eval()
    U, words = told.images, told.words
    boxes = net.boxes((48, 48))
    assert boxes.shape == (50, 4)
    assert boxes[-1].tolist() == [0, 0, 48, 48]
    assert boxes[:-1].min() == 0
    assert boxes[:-1].max() == 48
    regions, vectors = net.regions(U), net.sentences(words)
    fits = regions[3] @ vectors[5].T  # regions × words
    want = fits.max(dim=0).values[words[5] > 0].sum()
    torch.testing.assert_close(net(U, words)[3, 5], want)
    assert torch.equal(net.answers(U, words)[5], (regions[5] @ vectors[5].T).argmax(dim=0))


def test_aligner_learns_pairs(told):
    torch.manual_seed(0)
    net = Aligner(len(WORDS))
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = ranking_loss(net(told.images, told.words))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("look", LOOKS)
def test_teller_says_and_looks(look, told):
    torch.manual_seed(0)
    net = Teller(len(WORDS), look)
    scores, looks = net(told.images, told.words)
    assert scores.shape == (16, 9, len(WORDS))
    if look == "grid":
        assert looks.shape == (16, 9, 12, 12)
        torch.testing.assert_close(looks.sum(dim=(2, 3)), torch.ones(16, 9))
    else:
        assert looks.shape == (16, 9, 2, 3)
        side = 1.0 if look == "still" else 0.3 + 0.7 * torch.tensor(1.0).sigmoid().item()
        torch.testing.assert_close(
            looks, (affine.identity() * side).expand(16, 9, 2, 3), rtol=0, atol=1e-6
        )
    F.cross_entropy(scores.flatten(0, 1), told.words.flatten()).backward()
    if look == "window":
        assert net.place.weight.grad.abs().max() > 0
    elif look == "still":
        assert net.place.weight.grad is None  # nothing can move it


def test_teller_does_not_hear_the_word_that_it_is_to_say(told):
    net = Teller(len(WORDS)).eval()
    other = told.words.clone()
    other[:, 4] = (other[:, 4] + 1) % len(WORDS)
    one, two = (net(told.images, words)[0] for words in (told.words, other))
    assert torch.equal(one[:, :5], two[:, :5])
    assert not torch.equal(one[:, 5:], two[:, 5:])


def test_the_frozen_window_has_as_many_parameters():
    assert len({count_parameters(Teller(len(WORDS), look)) for look in ("window", "still")}) == 1
    with pytest.raises(ValueError, match="look must be one of"):
        Teller(len(WORDS), "stare")


def test_attention_box():
    share = torch.zeros(2, 4, 6)
    share[0, 1, 2], share[0, 2, 4], share[0, 3, 0] = 1.0, 0.5, 0.4
    share[1, 0, 5] = 0.1
    assert attention_box(share, (8, 12)).tolist() == [[4, 2, 10, 6], [10, 0, 12, 2]]
