"""Regions and words: which region answers which word, and a teller that looks (chapter 16).

`Aligner` is the idea of Karpathy and Fei-Fei (2015): regions and words become vectors of one space,
and a picture and a sentence fit as well as each word's best region. `Teller` writes the sentence
itself, and for each word looks somewhere: with soft attention over a fixed grid (Xu et al. 2015),
or through a window, a transformer for each word.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn_tutorial._checks import check_choice, check_picture
from stn_tutorial.grids import affine_grid, regular_grid
from stn_tutorial.regions import roi_align

__all__ = ["LOOKS", "Aligner", "Teller", "attention_box", "ranking_loss"]

STRIDE = 4
LOOKS = ("grid", "window", "still")
"""How a `Teller` may look: softly at a fixed grid, through a moving window, or always at all."""


def _convolutions(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width // 2, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(width // 2, width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def ranking_loss(scores: Tensor) -> Tensor:
    r"""Return how far pictures and sentences are from fitting their own better than the others'.

    .. math:: \sum_k \Big[ \sum_l \max(0, S_{kl} - S_{kk} + 1) + \sum_l \max(0, S_{lk} - S_{kk} + 1)
        \Big]

    over l ≠ k, divided by the number of pairs.

    Args:
        scores: of picture k and sentence l, shape (N, N).

    Example:
        >>> ranking_loss(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
        tensor(0.)
    """
    own = scores.diagonal()
    over = (scores - own[:, None] + 1).clamp(min=0) + (scores - own + 1).clamp(min=0)
    return (over - torch.diag(over.diagonal())).sum() / len(scores)


class Aligner(nn.Module):
    """Vectors of regions and of words in one space, whose inner products say what fits.

    A scene's regions are a lattice of squares that overlap, each a third of it wide, and the whole
    of it.

    Args:
        words: how many words there are; number 0 is none.
        width: of the vectors, and of the features.
        side: squares in a row and in a column.
    """

    def __init__(self, words: int, width: int = 32, side: int = 7) -> None:
        super().__init__()
        self.side = side
        self.convolutions = _convolutions(width)
        self.region = nn.Linear(9 * width, width)
        self.embedding = nn.Embedding(words, width)
        self.context = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.word = nn.Linear(width, width)

    def boxes(self, size: tuple[int, int]) -> Tensor:
        """Return a scene's regions, (side² + 1, 4), in pixels; the last is the whole."""
        height, width = size
        places = torch.linspace(0, 1, self.side)
        y, x = torch.meshgrid(places * 2 / 3 * height, places * 2 / 3 * width, indexing="ij")
        low = torch.stack([x, y], dim=-1).reshape(-1, 2)
        squares = torch.cat([low, low + torch.tensor([width, height]) / 3], dim=1)
        return torch.cat([squares, torch.tensor([[0.0, 0.0, width, height]])])

    def regions(self, U: Tensor) -> Tensor:
        """Return the vectors of the regions of pictures (N, 3, S, S): (N, side² + 1, width)."""
        check_picture(U)
        boxes = self.boxes((U.shape[2], U.shape[3]))
        features = self.convolutions(U)
        read = roi_align(features, len(U) * [boxes], (3, 3), 1 / STRIDE, sampling_ratio=1)
        return self.region(read.flatten(1)).unflatten(0, (len(U), len(boxes)))

    def sentences(self, words: Tensor) -> Tensor:
        """Return the vectors of words, int64 (N, T), each knowing its neighbours: (N, T, width)."""
        told, _ = self.context(self.embedding(words))
        return self.word(told)

    def forward(self, U: Tensor, words: Tensor) -> Tensor:
        """Return how well picture k fits sentence l, (N, M): of each word its best region, summed.

        Args:
            U: pictures, shape (N, 3, S, S).
            words: sentences, int64 (M, T).
        """
        fits = torch.einsum("krd,ltd->kltr", self.regions(U), self.sentences(words))
        return (fits.amax(dim=-1) * (words > 0)).sum(dim=-1)

    def answers(self, U: Tensor, words: Tensor) -> Tensor:
        """Return which region answers each word of a picture's own sentence, int64 (N, T)."""
        return torch.einsum("nrd,ntd->ntr", self.regions(U), self.sentences(words)).argmax(dim=-1)


class Teller(nn.Module):
    """Write a sentence about a picture, looking before each word.

    The state begins with a glance, the brightness of 6×6 parts of the picture: enough to see where
    something stands, and not what. It hears the words, and what was seen is not kept in it: for
    each word the teller must look again.

    Args:
        words: how many words there are; number 0 ends a sentence.
        look: one of `LOOKS`.
        width: of the features.
        units: of the state.
    """

    def __init__(self, words: int, look: str = "window", width: int = 32, units: int = 64) -> None:
        super().__init__()
        check_choice("look", look, LOOKS)
        self.look = look
        self.convolutions = _convolutions(width)
        self.begin = nn.Sequential(nn.Linear(36, units), nn.ReLU(), nn.Linear(units, units))
        self.embedding = nn.Embedding(words, 16)
        self.memory = nn.GRUCell(16, units)
        self.say = nn.Sequential(
            nn.Linear(units + width, units), nn.ReLU(), nn.Linear(units, words)
        )
        if look == "grid":
            self.ask = nn.Linear(units, 32)
            self.key = nn.Linear(width + 2, 32)
            self.weigh = nn.Linear(32, 1)
        else:
            self.see = nn.Linear(9 * width, width)
            self.place = nn.Linear(units, 3)
            nn.init.zeros_(self.place.weight)
            nn.init.zeros_(self.place.bias)

    def forward(self, U: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of every word, given those before it, and where each was looked for.

        Args:
            U: pictures, shape (N, 3, S, S).
            words: the sentences, int64 (N, T).

        Returns:
            Scores (N, T, words), and where it looked: of `"grid"` the weights, (N, T, S/4, S/4), of
            the others θ, from the window to the picture, (N, T, 2, 3).
        """
        check_picture(U)
        features = self.convolutions(U)
        state = self.begin(F.adaptive_avg_pool2d(U.amax(dim=1), 6).flatten(1))
        given = torch.cat([torch.zeros_like(words[:, :1]), words[:, :-1]], dim=1)
        told, looks = [], []
        for t in range(words.shape[1]):
            state = self.memory(self.embedding(given[:, t]), state)
            read, where = self._read(features, state)
            told.append(self.say(torch.cat([state, read], dim=1)))
            looks.append(where)
        return torch.stack(told, dim=1), torch.stack(looks, dim=1)

    def _read(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Look once: what is read, (N, width), and where."""
        n, _, rows, columns = features.shape
        if self.look == "grid":
            places = regular_grid((rows, columns)).permute(2, 0, 1).expand(n, -1, -1, -1)
            keys = self.key(torch.cat([features, places], dim=1).flatten(2).transpose(1, 2))
            energy = self.weigh(torch.tanh(keys + self.ask(state)[:, None]))[..., 0]
            share = energy.softmax(dim=1)
            read = torch.einsum("np,ncp->nc", share, features.flatten(2))
            return read, share.unflatten(1, (rows, columns))
        offsets = self.place(state)
        zero = torch.zeros_like(offsets[:, 0])
        # From a third of the picture to nearly all of it, which is the start; never beyond an edge.
        zoom = 0.3 + 0.7 * torch.sigmoid(offsets[:, 0] + 1)
        x, y = ((1 - zoom) * torch.tanh(offsets[:, k]) for k in (1, 2))
        if self.look == "still":
            zoom, x, y = torch.ones_like(zoom), zero, zero
        theta = torch.stack([zoom, zero, x, zero, zoom, y], dim=1).unflatten(1, (2, 3))
        # One window for each picture: what `read_regions` does, all at once.
        grid = affine_grid(theta, (6, 6))
        read = F.grid_sample(features, grid, padding_mode="border", align_corners=False)
        read = F.avg_pool2d(read, 2)
        return F.relu(self.see(read.flatten(1))), theta


def attention_box(share: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the smallest box around all places that get at least half of the largest share.

    Args:
        share: weights over a grid, shape (K, h, w).
        size: (H, W) of the picture that the grid covers.

    Returns:
        (left, top, right, bottom) in pixels, shape (K, 4).

    Example:
        >>> share = torch.tensor([[[0.1, 0.4], [0.1, 0.4]]])
        >>> attention_box(share, (8, 8))
        tensor([[4., 0., 8., 8.]])
    """
    there = share >= share.amax(dim=(1, 2), keepdim=True) / 2
    edges = []
    for axis, side, length in ((1, share.shape[2], size[1]), (2, share.shape[1], size[0])):
        along = there.any(dim=axis).float()
        first, last = along.argmax(dim=1), side - along.flip(1).argmax(dim=1)
        edges.append(torch.stack([first, last], dim=1) * length / side)
    return torch.stack([edges[0][:, 0], edges[1][:, 0], edges[0][:, 1], edges[1][:, 1]], dim=1)
