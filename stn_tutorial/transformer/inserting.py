"""A transformer in front of a network that is there already, or of one of its layers."""

from typing import Any

from torch import nn

from stn_tutorial._checks import layer_named

__all__ = ["insert"]


class _LookFirst:
    """What a layer does before it runs: it sends its first argument through the transformer.

    An object and not a closure, so that a deep copy of the network holds a copy of the transformer.
    """

    def __init__(self, transformer: nn.Module, layer: str) -> None:
        self.transformer = transformer
        self.layer = layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not args:
            raise TypeError(
                f"{self.layer} must be called with its input as the first argument, for the "
                "transformer to see, but only keywords were given"
            )
        return (self.transformer(args[0]), *args[1:])


def insert(
    network: nn.Module, transformer: nn.Module, before: str | None = None, name: str = "transformer"
) -> nn.Module:
    """Put a transformer at the input of a network, or before one of its layers.

    The network is changed and returned. It stays what it was: the same class, the same layers under
    the same names (so that weights made for it still load, with `strict=False`), and one module
    more, `network.transformer`, that trains, moves and is saved with it. A new `SpatialTransformer`
    is the identity, so that the network computes what it did before, to the rounding of one reading
    of the picture; that is the caller's affair where the transformer has a size of its own.

    The input of the layer must be pictures, (N, C, H, W): a transformer cannot stand where a vision
    transformer has already made tokens of them. Before a layer that runs several times (one
    `nn.ReLU` for all of a block) the transformer runs each time. What was inserted last looks
    first. For several processes, `DistributedDataParallel`; the old `nn.DataParallel` raises.

    Args:
        network: any module with a `forward` of its own, such as torchvision's classifiers. In front
            of an `nn.Sequential`, write `nn.Sequential(transformer, *layers)` instead.
        transformer: a `SpatialTransformer`, or any module that takes and returns pictures.
        before: the layer's name, as `network.named_modules()` has it (`"layer2.0.conv1"`); the
            network's input when left out.
        name: what the transformer is called in the network.

    Raises:
        TypeError: network or transformer is no module, or the network is an `nn.Sequential`.
        ValueError: there is no layer of that name (the nearest is suggested), or the transformer's
            name is taken or has a dot.

    Example:
        >>> import torchvision
        >>> from stn_tutorial.transformer import ConvolutionalLocalisation, SpatialTransformer
        >>> network = torchvision.models.squeezenet1_1().eval()
        >>> U = torch.rand(2, 3, 64, 64)
        >>> before = network(U)
        >>> network = insert(network, SpatialTransformer(ConvolutionalLocalisation(3)).eval())
        >>> bool((network(U) - before).abs().max() < 1e-5)
        True

        Before a layer, which there has 64 channels; and a second transformer needs a second name:

        >>> look = SpatialTransformer(ConvolutionalLocalisation(64))
        >>> _ = insert(network, look, before="features.3", name="inside")
        >>> network.inside is look
        True
    """
    for what, module in (("network", network), ("transformer", transformer)):
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"{what} must be a torch.nn.Module, but a {type(module).__name__} was given"
            )
    if isinstance(network, nn.Sequential):
        # It would run the transformer as its last layer, too.
        raise TypeError(
            "network must have a forward of its own, but an nn.Sequential was given; "
            "nn.Sequential(transformer, *layers) puts a transformer in front of it"
        )
    layer = network if before is None else layer_named(network, before)
    if "." in name or not name:
        raise ValueError(f"name must be one word without a dot, but {name!r} was given")
    if hasattr(network, name):
        raise ValueError(
            f"name must be new to the network, but it has {name!r} already; give another"
        )
    network.add_module(name, transformer)
    layer.register_forward_pre_hook(_LookFirst(transformer, before or "the network"), prepend=True)
    return network
