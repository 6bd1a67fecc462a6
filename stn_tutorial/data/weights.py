"""Pretrained weights that lie in the data folder, found and checked (chapters 14 and 15)."""

import re
from pathlib import Path

from stn_tutorial.data.digits import data_folder
from stn_tutorial.data.fetching import file_hash

__all__ = ["weights_file"]

KNOWN = {
    "squeezenet1_0-songhan-deepcompression.pth": (
        "94dda1f23854ce1e26774ca3e1231a7b78a894a2d715589860b6d5dd889d17bf"
    ),
}
"""The SHA-256 of files that bear no hash in their names. This one: ImageNet weights decoded from
the model that Han et al. published with *Deep Compression*."""
NAMED = re.compile(r"-([0-9a-f]{8})\.pth$")


def weights_file(name: str) -> Path:
    """Return the file of a torchvision network's weights in `weights` of the data folder, checked.

    It is the one whose name begins with the network's and a hyphen, such as torchvision's own
    `resnet50-11ad3fa6.pth`, the end of whose name is how its SHA-256 must begin.

    Args:
        name: of the network, `"squeezenet1_0"`.

    Raises:
        RuntimeError: no such file, or several.
        ValueError: another hash than is recorded, or none to check it by.
    """
    folder = data_folder() / "weights"
    found = sorted(folder.glob(f"{name}-*.pth"))
    if len(found) != 1:
        raise RuntimeError(
            f"there must be one file of the weights of {name} in {folder}, but there are "
            f"{len(found)}. STN_TUTORIAL_DATA names the folder above; torchvision fetches its own "
            "weights where `models.backbone` is called with weights='imagenet'."
        )
    path = found[0]
    named = NAMED.search(path.name)
    expected = named[1] if named else KNOWN.get(path.name)
    if expected is None:
        raise ValueError(
            f"{path} bears no hash in its name, and is none of {', '.join(KNOWN)}: it cannot be "
            "checked"
        )
    if not (actual := file_hash(path)).startswith(expected):
        raise ValueError(
            f"{path} is damaged: its SHA-256 must begin with {expected[:16]}, "
            f"but begins with {actual[:16]}. Fetch it again."
        )
    return path
