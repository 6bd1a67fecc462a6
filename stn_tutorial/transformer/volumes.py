"""Transforms of volumes: θ of shape (N, 3, 4), rows and columns in the order x, y, z."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stn_tutorial._checks import Size, check_volume_size
from stn_tutorial.transformer.transforms import Transform, _plus_identity

__all__ = ["Affine3d", "Rotation3d", "Similarity3d", "Translation3d"]


class Translation3d(Transform):
    """Move the volume by (o₁, o₂, o₃) along x, y and z, in normalised units: θ = [I | −o].

    Example:
        >>> Translation3d().theta(torch.tensor([[0.5, 0.0, 0.0]]))
        tensor([[[ 1.0000,  0.0000,  0.0000, -0.5000],
                 [ 0.0000,  1.0000,  0.0000,  0.0000],
                 [ 0.0000,  0.0000,  1.0000,  0.0000]]])
    """

    dof = 3
    axes = 3

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 3, 4)."""
        shift = 0 - self._checked(offsets)
        turn = torch.eye(3, dtype=shift.dtype, device=shift.device).expand(shift.shape[0], 3, 3)
        return torch.cat([turn, shift[:, :, None]], dim=2)


class _KeepsAngles3d(Transform):
    """What turns: in voxels or in the lengths given, and not in normalised units."""

    axes = 3
    in_pixels = True

    def __init__(self, extent: Sequence[float] | None = None) -> None:
        super().__init__()
        if extent is not None and (len(extent) != 3 or not all(side > 0 for side in extent)):
            raise ValueError(
                f"extent must be (depth, height, width), each above 0, but {extent!r} was given"
            )
        self.extent = None if extent is None else tuple(float(side) for side in extent)

    def extra_repr(self) -> str:
        """Show the setting."""
        return "" if self.extent is None else f"extent={self.extent}"

    def _corrected(self, turn: Tensor, size: Size | None) -> Tensor:
        """D⁻¹ R D with D = diag(width, height, depth): from lengths to normalised units."""
        sides: Sequence[float] = (1.0, 1.0, 1.0)
        if self.extent is not None:
            sides = self.extent
        elif size is not None:
            sides = check_volume_size(size)
        # Entry by entry, as ratios: sizes may be numbers of a compiler's graph, and a cube's
        # entries are left as they are.
        rows = []
        for i, row in enumerate(turn.unbind(-2)):
            entries = [
                entry * (sides[2 - j] / sides[2 - i]) for j, entry in enumerate(row.unbind(-1))
            ]
            rows.append(torch.stack(entries, dim=-1))
        return torch.stack(rows, dim=-2)


def _turned(vector: Tensor) -> Tensor:
    """The rotation about each vector, (N, 3), by its length in radians: (N, 3, 3) (Rodrigues).

    R = I + a K + b K², K the matrix of the cross product, a = sin φ/φ and b = (1 − cos φ)/φ².
    """
    squares = vector.square().sum(-1)
    # Both factors from their series where φ is small, so that their slopes are finite at 0.
    small = squares < 1e-4
    angle = torch.where(small, 1, squares).sqrt()
    near = 1 - squares / 6 * (1 - squares / 20 * (1 - squares / 42))
    a = torch.where(small, near, angle.sin() / angle)
    near = (1 - squares / 12 * (1 - squares / 30 * (1 - squares / 56))) / 2
    b = torch.where(small, near, 2 * (angle / 2).sin().square() / angle.square())
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [(zero, -z, y), (z, zero, -x), (-y, x, zero)]
    cross = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    # K² = v vᵀ − φ² I, written out: a product of matrices may be rounded.
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    squared = vector[:, :, None] * vector[:, None, :] - squares[:, None, None] * eye
    return eye + a[:, None, None] * cross + b[:, None, None] * squared


class Rotation3d(_KeepsAngles3d):
    """Turn the volume about its centre; the offsets are an axis times an angle in radians.

    θ = [R | 0], where R turns about the vector (o₁, o₂, o₃) by its length: offsets (0, 0, α) do to
    each slice what `Rotation` does by α. In voxels, as there: θᵢⱼ is multiplied by side j over
    side i of the input.

    Args:
        extent: (depth, height, width) of the volume in any unit, where its voxels are no cubes.

    Example:
        >>> Rotation3d().theta(torch.tensor([[0.0, 0.0, torch.pi / 2]])).round(decimals=4)
        tensor([[[ 0., -1.,  0.,  0.],
                 [ 1.,  0.,  0.,  0.],
                 [ 0.,  0.,  1.,  0.]]])
    """

    dof = 3

    def theta(self, offsets: Tensor, size: Size | None = None) -> Tensor:
        """θ of shape (N, 3, 4), for an input of that size, (D, H, W); without one, for a cube."""
        turn = self._corrected(_turned(self._checked(offsets)), size)
        return torch.cat([turn, torch.zeros_like(turn[:, :, :1])], dim=2)


class Similarity3d(_KeepsAngles3d):
    """Turn, scale and move: θ = [s R | t], s = 1 + o₁, R as in `Rotation3d`, t = (o₅, o₆, o₇).

    The volume is read at s times its size, turned about the vector (o₂, o₃, o₄) and about t.

    Args:
        extent: (depth, height, width) of the volume in any unit, where its voxels are no cubes.

    Example:
        >>> Similarity3d().theta(torch.zeros(1, 7))
        tensor([[[1., 0., 0., 0.],
                 [0., 1., 0., 0.],
                 [0., 0., 1., 0.]]])
    """

    dof = 7

    def theta(self, offsets: Tensor, size: Size | None = None) -> Tensor:
        """θ of shape (N, 3, 4), for an input of that size, (D, H, W); without one, for a cube."""
        scale, turn, shift = self._checked(offsets).split([1, 3, 3], dim=1)
        turn = (1 + scale[:, :, None]) * self._corrected(_turned(turn), size)
        return torch.cat([turn, shift[:, :, None]], dim=2)


class Affine3d(Transform):
    """All twelve numbers of a volume's θ, each an offset from the identity.

    Example:
        >>> Affine3d().theta(torch.zeros(1, 12)).shape
        torch.Size([1, 3, 4])
    """

    dof = 12
    axes = 3

    def theta(self, offsets: Tensor) -> Tensor:
        """θ of shape (N, 3, 4); rows and columns in the order x, y, z."""
        return _plus_identity(self._checked(offsets), 3, 4)
