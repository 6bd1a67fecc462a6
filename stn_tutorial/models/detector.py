"""A small detector of digits: R-CNN, Fast R-CNN and Faster R-CNN in one (chapter 16).

One set of weights, used in three ways that differ in what is computed how often:

- `"r-cnn"`: every box of a fixed grid is cut out of the *picture*, warped to one size, and goes
  through the convolutions on its own (Girshick et al. 2014);
- `"fast"`: the convolutions see the picture once, and every box of the grid is read from the
  *features* by RoIAlign (Girshick 2015; there by RoIPool);
- `"faster"`: as `"fast"`, but a small layer on the features proposes which few boxes to read (Ren
  et al. 2015).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import ops

from stn_tutorial._checks import check_choice, check_picture
from stn_tutorial.regions import box_iou, roi_align, roi_warp

__all__ = [
    "WAYS",
    "Detection",
    "Detector",
    "average_precision",
    "move_boxes",
    "offsets_between",
]

WAYS = ("r-cnn", "fast", "faster")
"""How a `Detector` may be used."""

STRIDE = 4
LARGEST = 2.0
"""By how much, as a logarithm, a side may be changed at most."""


class Detection(NamedTuple):
    """What a detector finds in one picture, the surest first."""

    boxes: Tensor
    """(K, 4), in pixels."""
    scores: Tensor
    """(K,), from 0 to 1."""
    labels: Tensor
    """int64 (K,)."""


def move_boxes(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Move and stretch boxes, each in its own frame: R-CNN's box regression.

    Offsets (a, b, c, d) move the middle by a widths and b heights, and multiply the sides by exp(c)
    and exp(d): the transform `Attention` of a transformer, with a zoom for each axis, in the frame
    of the box. All zero leaves the box. c and d count as 2 at most.

    Args:
        boxes: (left, top, right, bottom), shape (K, 4).
        offsets: shape (K, 4).

    Example:
        >>> move_boxes(torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[0.5, 0.0, 0.0, 0.0]]))
        tensor([[2., 0., 6., 2.]])
    """
    middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    middle = middle + offsets[:, :2] * side
    half = side * offsets[:, 2:].clamp(max=LARGEST).exp() / 2
    return torch.cat([middle - half, middle + half], dim=1)


def offsets_between(boxes: Tensor, wanted: Tensor) -> Tensor:
    """Return the offsets with which `move_boxes` takes each box to the wanted one: (K, 4) both.

    Example:
        >>> offsets_between(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[2.0, 0, 6, 2]]))
        tensor([[0.5000, 0.0000, 0.0000, 0.0000]])
    """
    middles, sides = zip(
        *(((b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]) for b in (boxes, wanted)), strict=True
    )
    return torch.cat([(middles[1] - middles[0]) / sides[0], (sides[1] / sides[0]).log()], dim=1)


class Detector(nn.Module):
    """Find digits of about 12 to 20 pixels in pictures (N, 1, S, S), S a multiple of 4.

    Args:
        classes: how many kinds of things there are.
        width: of the features.
        anchors: (width, height) in pixels of the boxes of the grid, of which one of each stands at
            every position of the features.
    """

    out = 5
    """Side of what is read of a box."""

    def __init__(
        self,
        classes: int = 10,
        width: int = 32,
        anchors: tuple[tuple[float, float], ...] = ((9.0, 17.0), (14.0, 17.0)),
    ) -> None:
        super().__init__()
        self.classes = classes
        self.shapes = torch.tensor(anchors)
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, width // 2, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.neck = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.proposals = nn.Conv2d(width, 5 * len(anchors), 1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width * self.out**2, 96), nn.ReLU())
        self.judge = nn.Linear(96, classes + 1 + 4)

    def grid(self, size: tuple[int, int]) -> Tensor:
        """Return the anchors of a picture of that size, (A·h·w, 4), position by position."""
        rows, columns = (side // STRIDE for side in size)
        y, x = torch.meshgrid(
            *(STRIDE * (torch.arange(side) + 0.5) for side in (rows, columns)), indexing="ij"
        )
        middle = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
        half = self.shapes / 2
        return torch.cat([middle - half, middle + half], dim=-1).flatten(0, 1)

    def weigh(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return of each anchor how likely it holds a thing, (N, A), and its offsets, (N, A, 4)."""
        said = self.proposals(self.neck(features)).permute(0, 2, 3, 1)
        said = said.reshape(len(features), -1, 5)
        return said[..., 0], said[..., 1:]

    @torch.no_grad()
    def propose(self, features: Tensor, size: tuple[int, int], count: int) -> list[Tensor]:
        """Return the boxes of each picture that are worth reading, `count` at most."""
        anchors, found = self.grid(size), []
        for score, offsets in zip(*self.weigh(features), strict=True):
            first = score.topk(min(4 * count, len(score))).indices
            boxes = move_boxes(anchors[first], offsets[first])
            found.append(boxes[ops.nms(boxes, score[first], 0.6)[:count]])
        return found

    def read(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        """Read boxes from the features: (K, width, 5, 5)."""
        return roi_align(features, boxes, (self.out, self.out), 1 / STRIDE, sampling_ratio=1)

    def cut(self, U: Tensor, boxes: list[Tensor]) -> Tensor:
        """Cut boxes out of the picture, and send each through the convolutions."""
        side = self.out * STRIDE
        return self.convolutions(roi_warp(U, boxes, (side, side)))

    def describe(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores before softmax, the last for nothing, (K, classes + 1), and offsets."""
        said = self.judge(self.head(read))
        return said[:, : self.classes + 1], said[:, self.classes + 1 :]

    @torch.no_grad()
    def detect(
        self, U: Tensor, way: str = "faster", count: int = 20, boxes: list[Tensor] | None = None
    ) -> list[Detection]:
        """Find things in pictures, shape (N, 1, S, S), in one of the three `WAYS`.

        Args:
            U: pictures.
            way: one of `WAYS`.
            count: boxes that are proposed in each picture, of `"faster"`.
            boxes: to read instead of the grid or the proposals, for an experiment.

        Raises:
            ValueError: an unknown way, or a wrong shape.
        """
        check_picture(U)
        check_choice("way", way, WAYS)
        size = (U.shape[2], U.shape[3])
        if way == "r-cnn":
            boxes = boxes or len(U) * [self.grid(size)]
            read = self.cut(U, boxes)
        else:
            features = self.convolutions(U)
            if boxes is None:
                boxes = len(U) * [self.grid(size)]
                if way == "faster":
                    boxes = self.propose(features, size, count)
            read = self.read(features, boxes)
        scores, offsets = self.describe(read)
        return self.sift(boxes, scores, offsets)

    def sift(self, boxes: list[Tensor], scores: Tensor, offsets: Tensor) -> list[Detection]:
        """Move each box, keep what is likely a thing, and of boxes on one another the surest."""
        found = []
        counts = [len(one) for one in boxes]
        parts = zip(boxes, scores.split(counts), offsets.split(counts), strict=True)
        for mine, score, offset in parts:
            share, label = score.softmax(dim=1)[:, :-1].max(dim=1)
            kept = (share > 0.05).nonzero()[:, 0]
            moved = move_boxes(mine[kept], offset[kept])
            kept, moved, share = label[kept], moved, share[kept]
            first = ops.nms(moved, share, 0.3)
            found.append(Detection(moved[first], share[first], kept[first]))
        return found

    def loss(
        self, U: Tensor, boxes: list[Tensor], labels: list[Tensor], way: str = "faster"
    ) -> Tensor:
        """Return the loss: which class a box holds and where; which anchors to propose and where.

        The boxes that are judged are those that are proposed and the true ones; without proposals,
        some of the grid, good ones among them, drawn from PyTorch's own generator.

        Args:
            U: pictures, shape (N, 1, S, S).
            boxes: of their things, (Kₙ, 4) each.
            labels: of their things, (Kₙ,) each.
            way: one of `WAYS`: how the network will be used.
        """
        check_choice("way", way, WAYS)
        size = (U.shape[2], U.shape[3])
        anchors, first = self.grid(size), torch.zeros(())
        features = U if way == "r-cnn" else self.convolutions(U)
        if way == "faster":
            first = self._proposal_loss(features, anchors, boxes)
            mine = self.propose(features, size, 16)
            mine = [torch.cat([p, t]) for p, t in zip(mine, boxes, strict=True)]
        else:
            mine = [self._some(anchors, truth) for truth in boxes]
        classes, wanted = [], []
        for box, truth, label in zip(mine, boxes, labels, strict=True):
            best, of = box_iou(box, truth).max(dim=1)
            classes.append(torch.where(best >= 0.5, label[of], self.classes))
            wanted.append(offsets_between(box, truth[of]))
        read = self.cut(U, mine) if way == "r-cnn" else self.read(features, mine)
        scores, moves = self.describe(read)
        target = torch.cat(classes)
        there = target < self.classes
        near = F.smooth_l1_loss(
            moves[there], torch.cat(wanted)[there], beta=0.1, reduction="sum"
        ) / there.sum().clamp(min=1) / 4  # fmt: skip
        return first + F.cross_entropy(scores, target) + near

    def _proposal_loss(self, features: Tensor, anchors: Tensor, boxes: list[Tensor]) -> Tensor:
        score, offsets = self.weigh(features)
        which, where = [], []
        for n, truth in enumerate(boxes):
            overlap = box_iou(anchors, truth)
            best, of = overlap.max(dim=1)
            # Each thing's own best anchors count too, however little they overlap.
            good = (best >= 0.5) | (overlap == overlap.max(dim=0).values).any(dim=1)
            known = good | (best < 0.3)
            weight = torch.where(good, (known & ~good).sum() / (3.0 * good.sum()), 1.0)
            one = F.binary_cross_entropy_with_logits(score[n], good.float(), reduction="none")
            which.append((one * weight)[known].sum() / (weight * known).sum())
            target = offsets_between(anchors[good], truth[of[good]])
            where.append(F.smooth_l1_loss(offsets[n, good], target, beta=0.1))
        return torch.stack(which).mean() + torch.stack(where).mean()

    @staticmethod
    def _some(anchors: Tensor, truth: Tensor) -> Tensor:
        """Return eight anchors that hold a thing, at most, and twelve whatever they hold."""
        good = (box_iou(anchors, truth).amax(dim=1) >= 0.5).nonzero()[:, 0]
        good = good[torch.randperm(len(good))[:8]]
        return anchors[torch.cat([good, torch.randint(len(anchors), (12,))])]


def average_precision(
    found: list[Detection], boxes: list[Tensor], labels: list[Tensor], overlap: float = 0.5
) -> float:
    """Return the mean, over the classes, of the area under precision against recall, from 0 to 1.

    Of each class, all findings of all pictures are taken, the surest first. One is right when it
    overlaps a thing of its class that none before it has taken. Precision at a recall is the best
    that is reached there or further on.

    Args:
        found: one for each picture.
        boxes: of the things in each picture.
        labels: of the things in each picture.
        overlap: the intersection over union from which on a box is right.

    Example:
        >>> box, label = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([7])
        >>> average_precision([Detection(box, torch.tensor([0.9]), label)], [box], [label])
        1.0
    """
    areas = []
    for label in torch.cat(labels).unique().tolist():
        rows, total = [], 0
        for one, truth, names in zip(found, boxes, labels, strict=True):
            truth = truth[names == label]
            total += len(truth)
            mine = one.labels == label
            free = torch.ones(len(truth), dtype=torch.bool)
            order = one.scores[mine].argsort(descending=True)
            for box, score in zip(one.boxes[mine][order], one.scores[mine][order], strict=True):
                meets = box_iou(box[None], truth)[0] * free
                right = bool(len(truth)) and bool(meets.max() >= overlap)
                if right:
                    free[meets.argmax()] = False
                rows.append((float(score), right))
        rows.sort(key=lambda row: -row[0])
        hits = torch.tensor([right for _, right in rows], dtype=torch.float64).cumsum(0)
        precision = hits / torch.arange(1, len(hits) + 1)
        best = precision.flip(0).cummax(0).values.flip(0)
        recall = torch.cat([torch.zeros(1, dtype=torch.float64), hits / total])
        areas.append(float((recall.diff() * best).sum()))
    return sum(areas) / len(areas)
