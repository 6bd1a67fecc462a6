"""Readers of birds: a pretrained backbone, and transformers that look twice or more (chapter 14).

The paper's 2×ST-CNN: one localisation net looks at the whole picture and places K windows of half
its side; each window is read by a network of its own, and what they say of it, one *descriptor*
each, is put side by side for one linear classifier. Here the network is any of torchvision's
classifiers, by its name. `BIRD_FACTS` says what of it is the paper's.
"""

import copy
import difflib
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models as zoo

from stn_tutorial._checks import Size, check_count, check_picture, check_size
from stn_tutorial._facts import Fact
from stn_tutorial.transformer import Attention, ParallelTransformer, tiling

__all__ = ["BIRD_FACTS", "BirdReader", "Describer", "MapLocalisation", "backbone"]

BIRD_FACTS = (
    Fact("two or four transformers that choose their place alone, at a scale of 50 %; one "
         "localisation net for all of them", "b"),
    Fact("each window is read at 224×224 pixels by a stream of its own, and the descriptors are "
         "put side by side", "b"),
    Fact("the windows start so as to tile the picture, and the localisation net's rate is 0.0001 "
         "of the rest's", "b"),
    Fact("Inception with batch norm, pretrained on ImageNet", "b"),
    Fact("any of torchvision's classifiers in its place", "c"),
    Fact("a batch norm and dropout before the one linear layer", "c"),
    Fact("what a window reads beyond the picture is its edge, repeated", "c"),
)  # fmt: skip
"""What the reader of birds rests on, and how sure we are of each."""

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, as all of torchvision's weights expect it."""


def backbone(name: str = "squeezenet1_0", weights: str | Path | None = "imagenet") -> nn.Module:
    """Return one of torchvision's classifiers, in evaluation mode, and print its weights' source.

    Args:
        name: as `torchvision.models.list_models(torchvision.models)` has it: `"resnet50"`, …
        weights: `"imagenet"`: torchvision's own, which it fetches where they are missing and
            checks; a file of a state dict of the same layers, whose name torchvision's hash may
            close (`resnet50-11ad3fa6.pth`: the SHA-256 must begin so); None for random ones.

    Raises:
        ValueError: an unknown name, a file with another hash than its name says, damaged, or of
            other layers.
        RuntimeError: a file that is not there, or weights that cannot be fetched.
    """
    known = zoo.list_models(module=zoo)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 3)
        raise ValueError(
            f"backbone must be one of torchvision's classifiers, but {name!r} was given"
            + (f" (near it: {', '.join(near)})" if near else "")
        )
    if weights is None:
        print(f"{name}, random weights")
        return zoo.get_model(name, weights=None, **_quiet(name)).eval()
    if weights == "imagenet":
        own = zoo.get_model_weights(name).DEFAULT
        try:
            net = zoo.get_model(name, weights=own)
        except OSError as error:  # no network, no such file, or no room for it
            reason = " ".join(str(error).split())
            raise RuntimeError(
                f"torchvision's weights of {name} could not be fetched from {own.url} ({reason}). "
                "Either fetch that file elsewhere and give its path as `weights`, or take random "
                "weights, None."
            ) from error
        print(f"{name}, torchvision's weights {own}")
        return net.eval()
    path = Path(weights)
    net = zoo.get_model(name, weights=None, **_quiet(name))
    _load(net, name, path)
    print(f"{name}, weights {path.name}")
    return net.eval()


def _quiet(name: str) -> dict[str, bool]:
    """Return what the two Inceptions want to be told, so as to read as their weights expect."""
    if name in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    return {}


def _load(net: nn.Module, name: str, path: Path) -> None:
    """Load a state dict into a network, or say why it cannot be."""
    if not path.is_file():
        raise RuntimeError(
            f"the weights of {name} are not there: {path}. torchvision fetches its own with "
            "weights='imagenet', and weights=None is random ones."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged, or holds more than weights: {error}") from error
    try:
        net.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold the weights of {name}: {reason}") from error


class Describer(nn.Module):
    """A classifier without its last layer: of a picture it gives a descriptor, (N, features).

    The last layer with as many outputs as the classifier has classes is taken out, and what stays
    of the rest, a pooling for instance, still runs. Pictures are normalised as ImageNet's are.

    Args:
        net: a classifier, as `backbone` returns it; it is copied.
        size: (H, W) of the pictures that it shall read.
        frozen: whether its weights stay as they are; it then stays in evaluation mode for good.

    Raises:
        ValueError: it cannot read pictures of that size (too small for its pools, say, or not the
            one size of a ViT), or has no such layer.

    Example:
        >>> from torchvision.models import resnet18
        >>> describe = Describer(resnet18(weights=None), (64, 64))
        >>> describe.features, describe(torch.rand(2, 3, 64, 64)).shape
        (512, torch.Size([2, 512]))
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, net: nn.Module, size: Size = (224, 224), *, frozen: bool = True) -> None:
        super().__init__()
        self.size = check_size(size)
        self.frozen = frozen
        net = copy.deepcopy(net).eval()
        if getattr(net, "aux_logits", False):  # the two Inceptions' heads for training alone
            net.aux_logits = False  # type: ignore[assignment]
            for name in ("aux1", "aux2", "AuxLogits"):
                if hasattr(net, name):
                    setattr(net, name, None)
        classes = self._width(net)
        self.net = _without_last(net, classes)
        self.features = self._width(self.net)
        """How many numbers a descriptor has."""
        for buffer, values in (("mean", MEAN), ("spread", SPREAD)):
            self.register_buffer(buffer, torch.tensor(values)[:, None, None], persistent=False)
        if frozen:
            self.net.requires_grad_(False)
        self.train()

    @torch.no_grad()
    def _width(self, net: nn.Module) -> int:
        try:
            made = net(torch.zeros(1, 3, *self.size))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"a {type(net).__name__} cannot read pictures of {tuple(self.size)}: {reason}"
            ) from error
        return made.flatten(1).shape[1]

    def train(self, mode: bool = True) -> "Describer":
        """Set the mode; a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.net.eval()
        return self

    def forward(self, U: Tensor) -> Tensor:
        """Return the descriptors of U, (N, 3, H, W) in [0, 1]: (N, features)."""
        check_picture(U)
        return self.net((U - self.mean) / self.spread).flatten(1)


def _without_last(net: nn.Module, classes: int) -> nn.Module:
    """Put an `Identity` in the place of the layer that gives the classes."""
    found = None
    for name, module in net.named_modules():
        outputs = getattr(module, "out_features", getattr(module, "out_channels", None))
        if isinstance(module, nn.Linear | nn.Conv2d) and outputs == classes:
            found = name
    if not found:
        raise ValueError(
            f"net must have a linear layer or a convolution of its {classes} classes, "
            f"but a {type(net).__name__} without one was given"
        )
    parent, _, last = found.rpartition(".")
    setattr(net.get_submodule(parent), last, nn.Identity())
    return net


class MapLocalisation(nn.Sequential):
    """A localisation net on feature maps: a 1×1 convolution, a batch norm, and one dense layer.

    It is small because the maps are made already, by a backbone's convolutions that run before it:
    `nn.Sequential(net.features, MapLocalisation(512, (6, 6)))`, with `features` given by hand. The
    batch norm makes them small: without it, on maps of large numbers, no rate let windows move in
    our trials that did not throw them out of the picture.

    Args:
        channels: of the maps.
        size: (H, W) of the maps.
        squeezed: channels after the 1×1 convolution.
        features: units of the dense layer.

    Example:
        >>> MapLocalisation(512, (6, 6))(torch.rand(8, 512, 6, 6)).shape
        torch.Size([8, 32])
    """

    def __init__(
        self, channels: int, size: Size, *, squeezed: int = 32, features: int = 32
    ) -> None:
        height, width = check_size(size)
        super().__init__(
            nn.Conv2d(channels, squeezed, 1),
            nn.BatchNorm2d(squeezed),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(squeezed * height * width, features),
            nn.ReLU(),
        )
        self.features = features
        """How many numbers it gives for each input."""


class BirdReader(nn.Module):
    """The paper's 2×ST-CNN, or K×: windows, a stream for each, and one linear classifier.

    Args:
        describe: what reads a window: a module with `features`, (N, 3, h, w) to (N, features), such
            as a `Describer`.
        localisation: one net for all windows, on the whole picture; it has `features` too.
        classes: how many.
        windows: K.
        scale: the windows' side, as a share of the picture's.
        size: (h, w) of what each window hands to its stream.
        share: whether one stream reads all windows; else each has its own, which start alike.
        dropout: the share of the descriptors that is dropped in training.

    The windows start so as to tile the picture (`transformer.tiling`), and move as the loss says;
    `look` is the `ParallelTransformer`.

    Raises:
        TypeError: `describe` has no `features`.
        ValueError: as its parts raise it.

    Example:
        >>> from torchvision.models import squeezenet1_1
        >>> describe = Describer(squeezenet1_1(weights=None), (64, 64))
        >>> from stn_tutorial.transformer import ConvolutionalLocalisation
        >>> net = BirdReader(describe, ConvolutionalLocalisation(3), 50, size=(64, 64))
        >>> scores, thetas = net(torch.rand(2, 3, 128, 128), return_theta=True)
        >>> scores.shape, thetas.shape
        (torch.Size([2, 50]), torch.Size([2, 2, 2, 3]))
    """

    def __init__(
        self,
        describe: nn.Module,
        localisation: nn.Module,
        classes: int,
        *,
        windows: int = 2,
        scale: float = 0.5,
        size: Size = (112, 112),
        share: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = getattr(describe, "features", None)
        if not isinstance(width, int):
            raise TypeError(
                "describe must say by an attribute `features` how many numbers it gives, "
                f"but a {type(describe).__name__} without one was given"
            )
        self.scale, self.size = scale, check_size(size)
        self.look = ParallelTransformer(
            localisation,
            windows,
            Attention(scale=scale),
            start=tiling(windows, scale),
            join="stack",
            size=self.size,
            padding="border",
        )
        others = [describe if share else copy.deepcopy(describe) for _ in range(windows - 1)]
        self.streams = nn.ModuleList([describe, *others])
        self.classify = nn.Sequential(
            nn.BatchNorm1d(windows * width),
            nn.Dropout(dropout),
            nn.Linear(windows * width, check_count("classes", classes)),
        )

    def descriptors(self, views: Tensor) -> Tensor:
        """Return the views' descriptors side by side: (N, K, 3, h, w) to (N, K·features)."""
        pairs = zip(self.streams, views.unbind(1), strict=True)
        return torch.cat([describe(view) for describe, view in pairs], dim=1)

    def forward(self, U: Tensor, return_theta: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the scores of U, (N, 3, H, W): (N, classes); and with it θ, (N, K, 2, 3).

        Raises:
            ValueError: U has another shape, or so few pixels that a window would have fewer than
                what is read of it.
        """
        check_picture(U)
        for have, wanted in zip(U.shape[2:], self.size, strict=True):
            if have * self.scale < wanted - 0.5:
                raise ValueError(
                    f"U must be large enough for windows of {tuple(self.size)} pixels at a scale "
                    f"of {self.scale:g}, but shape {tuple(U.shape)} was given"
                )
        views, thetas = self.look(U, return_theta=True)
        scores = self.classify(self.descriptors(views))
        return (scores, torch.stack(thetas, dim=1)) if return_theta else scores
