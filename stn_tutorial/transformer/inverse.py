"""Points back through a map: linear maps in closed form, any other by Newton's method.

Nothing here looks at values, so that it may stand in a forward pass: what has no inverse is NaN.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["adjugate", "newton", "tolerance"]

STEPS = 20
LATTICE = 9
"""Points along each axis of the lattice from which the best first guess is taken."""


def tolerance(dtype: torch.dtype) -> float:
    """How far from the wanted point the map may send what `newton` gives, in normalised units.

    1.2e-5 in float32, a 750th of a pixel where a side has 224; 1e-10 in float64.
    """
    return max(1e-10, 100 * torch.finfo(dtype).eps)


def adjugate(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return adj(M) and det(M), of shapes (…, n, n) and (…), n = 2 or 3: M⁻¹ = adj(M) / det(M).

    Written out, since a matrix product may be rounded on a GPU, and a solver looks at values.
    """
    if matrix.shape[-1] == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in matrix.unbind(-2))
        rows = [torch.stack([d, -b], dim=-1), torch.stack([-c, a], dim=-1)]
        return torch.stack(rows, dim=-2), a * d - b * c
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(-2))
    columns = [
        torch.stack([e * i - f * h, f * g - d * i, d * h - e * g], dim=-1),
        torch.stack([c * h - b * i, a * i - c * g, b * g - a * h], dim=-1),
        torch.stack([b * f - c * e, c * d - a * f, a * e - b * d], dim=-1),
    ]
    first = columns[0]
    det = a * first[..., 0] + b * first[..., 1] + c * first[..., 2]
    return torch.stack(columns, dim=-1), det


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """M⁻¹ r for matrices (…, n, n) and r (…, n); not finite where M is singular."""
    adj, det = adjugate(matrix)
    return (adj * right[..., None, :]).sum(-1) / det[..., None]


def _slopes(mapped: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The map's value and its Jacobian at each point, (N, P, n) and (N, P, n, n)."""
    # Each point's position depends on that point alone, so a sum's slope is each point's own.
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = mapped(x)
        rows = [
            torch.autograd.grad(value[..., axis].sum(), x, retain_graph=True)[0]
            for axis in range(x.shape[-1])
        ]
    return value.detach(), torch.stack(rows, dim=-2)


def newton(mapped: Callable[[Tensor], Tensor], wanted: Tensor) -> Tensor:
    """Find the points that a map sends to the wanted ones, by a damped Newton's method.

    The first guess is the nearest point of a lattice over the picture, since the maps meant here
    may be far from the identity. A step that would lead away from what is wanted is halved. Where
    the map folds, a point may have several sources: one of them is given.

    Args:
        mapped: the map, from points (N, P, n) to points (N, P, n), each on its own.
        wanted: shape (N, P, n), n = 2 or 3.

    Returns:
        Points of shape (N, P, n), each sent to within `tolerance` of the wanted one, in each
        coordinate and relative to its size where that is above 1; NaN where none was found in
        20 steps. Differentiable in what is wanted and in what the map depends on, once (by the
        implicit function theorem).
    """
    axes = wanted.shape[-1]
    with torch.no_grad():
        goal = wanted.detach()
        side = torch.linspace(-1, 1, LATTICE, dtype=goal.dtype, device=goal.device)
        lattice = torch.stack(torch.meshgrid(*[side] * axes, indexing="ij"), dim=-1)
        lattice = lattice.view(1, -1, axes).expand(goal.shape[0], -1, -1)
        best = torch.cdist(goal, mapped(lattice)).argmin(dim=-1)
        x = lattice.gather(1, best[..., None].expand(-1, -1, axes))
        value, slopes = _slopes(mapped, x)
        left = value - goal
        damping = torch.ones_like(left[..., :1])
        for _ in range(STEPS):
            step = _solved(slopes, left)
            # Where the map is flat there is no step; one longer than the picture helps nobody.
            step = step.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp(-1, 1)
            trial = x - damping * step
            value, trial_slopes = _slopes(mapped, trial)
            trial_left = value - goal
            better = trial_left.square().sum(-1, True) < left.square().sum(-1, True)
            x = torch.where(better, trial, x)
            left = torch.where(better, trial_left, left)
            slopes = torch.where(better[..., None], trial_slopes, slopes)
            damping = torch.where(better, (2 * damping).clamp(max=1), damping / 2)
        most = tolerance(goal.dtype) * goal.abs().clamp(min=1)
        # Not `> most`, which is false of NaN.
        lost = ~(left.abs() <= most).all(-1, keepdim=True)
    # One step more, which carries the gradient: −J⁻¹ (T(x) − q), where T(x) − q is all but zero.
    step = _solved(slopes, mapped(x) - wanted)
    return torch.where(lost, torch.nan, x - torch.where(lost, 0.0, step))
