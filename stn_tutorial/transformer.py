"""The spatial transformer, as a module for your own network (chapter 7)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stn_tutorial._checks import (
    Size,
    at_least_float32,
    check_choice,
    check_picture,
    check_size,
)
from stn_tutorial.sampling import MODES, PADDINGS

__all__ = ["SpatialTransformer"]


class SpatialTransformer(nn.Module):
    """Look at U, choose an affine θ, and return U seen through it.

    Three parts, as in the paper: `localisation` makes features of U and a last linear layer turns
    them into θ; `affine_grid` makes the sampling grid; `grid_sample` reads U there. The last layer
    gives θ − identity and starts with zero weights and biases, so that a new module returns U
    unchanged (when the sizes agree), whatever the localisation net says.

    θ maps output to input, in normalised coordinates, `align_corners=False`. The grid is computed
    in float32 at least and outside autocast, then used to read U; V has U's dtype.

    Args:
        localisation: any module that takes U, shape (N, C, H, W), and returns (N, features).
        features: the number of features that `localisation` returns.
        size: (H', W') of the output; U's own when left out.
        mode: `"bilinear"`, `"nearest"` (no gradient reaches θ) or `"bicubic"`.
        padding: `"zeros"`, `"border"` or `"reflection"`.

    Example:
        >>> look = SpatialTransformer(nn.Sequential(nn.Flatten(), nn.Linear(784, 32)), 32)
        >>> look(torch.rand(8, 1, 28, 28)).shape
        torch.Size([8, 1, 28, 28])
    """

    def __init__(
        self,
        localisation: nn.Module,
        features: int,
        *,
        size: Size | None = None,
        mode: str = "bilinear",
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        check_choice("mode", mode, MODES)
        check_choice("padding", padding, PADDINGS)
        self.localisation = localisation
        self.regression = nn.Linear(features, 6)
        nn.init.zeros_(self.regression.weight)
        nn.init.zeros_(self.regression.bias)
        self.size = None if size is None else check_size(size)
        self.mode = mode
        self.padding = padding

    def extra_repr(self) -> str:
        """Show the settings that are not modules."""
        return f"size={self.size}, mode={self.mode!r}, padding={self.padding!r}"

    def theta(self, U: Tensor) -> Tensor:
        """θ for each picture of U: shape (N, 2, 3), float32 at least."""
        check_picture(U)
        features = self.localisation(U)
        expected = (U.shape[0], self.regression.in_features)
        if not isinstance(features, Tensor) or tuple(features.shape) != expected:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features)
            raise ValueError(
                f"localisation must return shape (N, features) = {expected}, but {shape} was given"
            )
        offset = self.regression(features)
        # Widened before the identity is added: in bfloat16, 1 + 0.001 is 1.
        offset = offset.to(at_least_float32(offset.dtype)).view(-1, 2, 3)
        return offset + torch.eye(2, 3, dtype=offset.dtype, device=offset.device)

    def forward(self, U: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return V, shape (N, C, H', W'), in U's dtype; with `return_theta`, (V, θ)."""
        theta = self.theta(U)
        size = U.shape[-2:] if self.size is None else self.size
        with torch.autocast(U.device.type, enabled=False):
            if U.shape[0] > 0:
                grid = F.affine_grid(theta, [U.shape[0], 1, *size], align_corners=False)
            else:  # which `affine_grid` refuses; an empty grid, still joined to θ
                grid = theta[:, None, :1, :2].expand(0, *size, 2)
            wide = U.to(torch.promote_types(U.dtype, grid.dtype))
            V = F.grid_sample(
                wide, grid.to(wide.dtype), self.mode, self.padding, align_corners=False
            ).to(U.dtype)
        return (V, theta) if return_theta else V
