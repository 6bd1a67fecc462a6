"""How a digit stands in its frame, as a trait: what the explorables with trained networks share."""

from collections.abc import Callable
from typing import Any

import traitlets

from stn_tutorial.explorables.base import as_array


def checked_pose(value: Any) -> list[float]:
    """Turn what was given as a pose into four floats; raise `TraitError` for anything else."""
    pose = as_array(value)
    low, high = (-180, 0.3, -1, -1), (180, 2.5, 1, 1)
    if pose is None or pose.shape != (4,) or not ((low <= pose) & (pose <= high)).all():
        raise traitlets.TraitError(
            "pose must be (degrees, size, right, down), from −180 to 180, 0.3 to 2.5 and −1 to 1, "
            f"but {value!r} was given"
        )
    return (pose + 0.0).tolist()


class Checked(traitlets.TraitType):
    """A trait that holds what a function makes of what it is given."""

    def __init__(self, check: Callable[[Any], list], default: Any) -> None:
        super().__init__(check(default))
        self._check = check

    def validate(self, obj: Any, value: Any) -> list:
        """Return what the function makes of it; it raises `TraitError`."""
        return self._check(value)
