r"""Attention that weighs instead of moving: of channels, of places, of a fixed grid (chapter 15).

*Convention.* U is (N, C, H, W); factors and weights are differentiable in U and in the parameters,
and nothing looks at values. `SqueezeExcitation` and `CBAM` multiply, and return U's shape;
`SoftAttention` sums, and returns one vector for each picture. None of them can move, turn or zoom:
that is `stn_tutorial.transformer`.
"""

import torch
from torch import Tensor, nn

from stn_tutorial._checks import check_count, check_picture, check_shape

__all__ = ["CBAM", "SoftAttention", "SqueezeExcitation"]


def _check_channels(U: object, channels: int) -> None:
    check_picture(U)
    assert isinstance(U, Tensor)
    if U.shape[1] != channels:
        raise ValueError(f"U must have {channels} channels, but shape {tuple(U.shape)} was given")


def _squeeze(channels: int, reduction: int) -> nn.Sequential:
    """Two dense layers, C → C/r → C, a ReLU between them."""
    channels = check_count("channels", channels)
    reduction = check_count("reduction", reduction)
    if reduction > channels:
        raise ValueError(
            f"reduction must be at most channels = {channels}, but {reduction} was given"
        )
    middle = channels // reduction
    return nn.Sequential(nn.Linear(channels, middle), nn.ReLU(), nn.Linear(middle, channels))


class SqueezeExcitation(nn.Module):
    r"""Squeeze and excitation: a factor between 0 and 1 for each channel (Hu et al. 2018).

    z is each channel's mean over all places, s = σ(W₂ max(0, W₁ z + b₁) + b₂) is the factor, and
    V = s · U: what matters here, and nothing about where.

    Args:
        channels: C of U.
        reduction: r; the hidden layer has ⌊C / r⌋ units. The paper has 16.

    Raises:
        ValueError: channels or reduction below 1, or a reduction above channels.

    Example:
        >>> look = SqueezeExcitation(32)
        >>> U = torch.rand(8, 32, 7, 7)
        >>> look(U).shape, look.factors(U).shape
        (torch.Size([8, 32, 7, 7]), torch.Size([8, 32]))
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.excite = _squeeze(channels, reduction)
        self.channels = channels

    def factors(self, U: Tensor) -> Tensor:
        """Each channel's factor, shape (N, C), in (0, 1)."""
        _check_channels(U, self.channels)
        return self.excite(U.mean(dim=(2, 3))).sigmoid()

    def forward(self, U: Tensor) -> Tensor:
        """Return U, each channel times its factor: shape (N, C, H, W)."""
        return self.factors(U)[:, :, None, None] * U


class CBAM(nn.Module):
    r"""First a factor for each channel, then one for each place (Woo et al. 2018).

    The channels' is σ(f(mean) + f(max)), mean and maximum over all places, f two dense layers with
    a ReLU between them, the same for both. The places' is σ(k ∗ [mean; max]), mean and maximum over
    the channels of what the first factor left, k a convolution. Both factors multiply U. (Some
    implementations have a batch norm behind the convolution; the equations have none.)

    Args:
        channels: C of U.
        reduction: r; the hidden layer has ⌊C / r⌋ units. The paper has 16.
        kernel: side of the convolution, an odd number. The paper has 7.

    Raises:
        ValueError: a number below 1, a reduction above channels, or an even kernel.

    Example:
        >>> look = CBAM(32)
        >>> U = torch.rand(8, 32, 7, 7)
        >>> look(U).shape, look.channel_factors(U).shape, look.place_factors(U).shape
        (torch.Size([8, 32, 7, 7]), torch.Size([8, 32]), torch.Size([8, 7, 7]))
    """

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        self.excite = _squeeze(channels, reduction)
        if check_count("kernel", kernel) % 2 == 0:
            raise ValueError(f"kernel must be odd, but {kernel} was given")
        self.convolution = nn.Conv2d(2, 1, kernel, padding=kernel // 2)
        self.channels = channels

    def channel_factors(self, U: Tensor) -> Tensor:
        """Each channel's factor, shape (N, C), in (0, 1)."""
        _check_channels(U, self.channels)
        return (self.excite(U.mean(dim=(2, 3))) + self.excite(U.amax(dim=(2, 3)))).sigmoid()

    def place_factors(self, U: Tensor) -> Tensor:
        """Each place's factor, shape (N, H, W), in (0, 1), of U as it comes in."""
        return self._place_factors(self.channel_factors(U)[:, :, None, None] * U)

    def _place_factors(self, weighted: Tensor) -> Tensor:
        summary = torch.stack([weighted.mean(dim=1), weighted.amax(dim=1)], dim=1)
        return self.convolution(summary).sigmoid()[:, 0]

    def forward(self, U: Tensor) -> Tensor:
        """Return U times both factors: shape (N, C, H, W)."""
        weighted = self.channel_factors(U)[:, :, None, None] * U
        return self._place_factors(weighted)[:, None] * weighted


class SoftAttention(nn.Module):
    r"""A weighted mean over the places of a feature map, the weights learned (Xu et al. 2015).

    The deterministic, *soft* form of *Show, Attend and Tell*: with aᵢ the C numbers of place i and
    h what is asked for, eᵢ = wᵀ tanh(W a_i + W_h h + b), αᵢ = exp eᵢ / Σⱼ exp eⱼ, z = Σᵢ αᵢ aᵢ. The
    places are those of the grid, all of one size: it can choose among them, and put none between
    two. Without a query only the picture is asked. Weights of zero for `score` give the plain mean,
    and that is how a new module starts.

    Args:
        channels: C of U.
        hidden: units of the layer under the tanh.
        query: how many numbers h has; 0 for no query.

    Raises:
        ValueError: channels or hidden below 1, or a query below 0.

    Example:
        >>> look = SoftAttention(32)
        >>> U = torch.rand(8, 32, 7, 7)
        >>> look(U).shape, look.weights(U).shape, look.weights(U).sum(dim=(1, 2))[0].item()
        (torch.Size([8, 32]), torch.Size([8, 7, 7]), 1.0)

        With a query, such as the state of a network that writes a caption:

        >>> look = SoftAttention(32, query=10)
        >>> look(U, torch.rand(8, 10)).shape
        torch.Size([8, 32])
    """

    def __init__(self, channels: int, hidden: int = 32, query: int = 0) -> None:
        super().__init__()
        self.channels = check_count("channels", channels)
        self.query = check_count("query", query, 0)
        self.places = nn.Conv2d(channels, check_count("hidden", hidden), 1)
        self.asked = nn.Linear(query, hidden, bias=False) if query else None
        self.score = nn.Conv2d(hidden, 1, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def weights(self, U: Tensor, h: Tensor | None = None) -> Tensor:
        """Each place's weight α, shape (N, H, W), adding up to 1 in each picture.

        Args:
            U: shape (N, C, H, W).
            h: shape (N, query) where the module has a query, else left out.
        """
        _check_channels(U, self.channels)
        features = self.places(U)
        if self.asked is None:
            if h is not None:
                raise ValueError("h must be left out where query is 0, but one was given")
        else:
            check_shape("h", h, f"(N, {self.query})", self.query, ndim=2)
            features = features + self.asked(h)[:, :, None, None]
        scores = self.score(features.tanh())[:, 0]
        return scores.flatten(1).softmax(dim=1).view_as(scores)

    def forward(self, U: Tensor, h: Tensor | None = None) -> Tensor:
        """Return z, the weighted mean over the places: shape (N, C)."""
        return torch.einsum("nhw,nchw->nc", self.weights(U, h), U)
