"""Training for a chapter's minute: `fit`, and what judges its result (chapters 1, 2, 7).

`fit` trains on pictures that are there. Images stay bytes, on the model's device, until a batch is
drawn; what a batch is turned into is the caller's business (`augment`). Everything random is drawn
from one seeded generator, so that on a CPU the same seed gives the same weights.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from stn_tutorial.training.devices import exact_float32

__all__ = ["accuracy", "error_rate", "fit", "probabilities"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""From a batch, float (N, C, H, W) in [0, 1], and a generator to a batch of the same shape."""


def _check(images: Tensor, labels: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            "images must be uint8 of shape (N, C, H, W), "
            f"but {images.dtype} of shape {tuple(images.shape)} was given"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels must be int64 of shape ({len(images)},), one for each image, "
            f"but {labels.dtype} of shape {tuple(labels.shape)} was given"
        )


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _batches(
    images: Tensor, labels: Tensor, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw each image once, in a new order; the last, smaller batch is left out."""
    # The order is drawn on the CPU, so that it is the same whatever the device.
    order = torch.randperm(len(images), generator=generator)
    for chosen in order[: len(images) // size * size].split(size):
        chosen = chosen.to(images.device)
        yield images[chosen].float() / 255, labels[chosen]


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    seed: int,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    augment: Augment | None = None,
) -> list[float]:
    """Train a classifier: cross-entropy, AdamW, a learning rate that rises once and falls.

    Shows its progress, and ends with one line on what it did. The model is left in evaluation mode.

    Args:
        model: takes (N, C, H, W) in [0, 1], returns a score for each class, (N, classes).
        images: uint8 (N, C, H, W), at least one batch of them.
        labels: int64 (N,).
        epochs: passes through the images.
        seed: of the order of the images and of `augment`'s draws. The initial weights are the
            model's own affair: seed before you build it.
        batch_size: images a step.
        learning_rate: the highest that the schedule reaches.
        augment: changes each batch before the model sees it.

    Raises:
        ValueError: images or labels of a wrong dtype or shape, or fewer images than a batch.
        FloatingPointError: the loss is not finite any more.

    Returns:
        The mean loss of each epoch.
    """
    _check(images, labels)
    if len(images) < batch_size:
        raise ValueError(
            f"images must fill at least one batch of {batch_size}, but {len(images)} were given"
        )
    device = device_of(model)
    images, labels = images.to(device), labels.to(device)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    steps = len(images) // batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, epochs=epochs, steps_per_epoch=steps
    )
    start = time.perf_counter()
    losses = []
    model.train()
    # To stdout: a notebook shows stderr as if something had gone wrong.
    with tqdm(total=epochs * steps, file=sys.stdout, leave=False, unit="step") as progress:
        for _ in range(epochs):
            total = torch.zeros((), device=device)
            for U, target in _batches(images, labels, batch_size, generator):
                if augment is not None:
                    U = augment(U, generator)
                loss = F.cross_entropy(model(U), target)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.detach()
                progress.update()
            # Once an epoch: reading a value at each step would make a GPU wait.
            losses.append(total.item() / steps)
            progress.set_postfix(loss=f"{losses[-1]:.3f}")
            if not torch.isfinite(total):
                raise FloatingPointError(
                    f"the loss is {losses[-1]} in epoch {len(losses)}; try a lower learning_rate "
                    f"than {learning_rate:g}"
                )
    model.eval()
    seconds = time.perf_counter() - start
    print(f"{epochs} epochs of {steps} steps in {seconds:.0f} s, last loss {losses[-1]:.3f}")
    return losses


@torch.no_grad()
@exact_float32()
def probabilities(model: nn.Module, images: Tensor, batch_size: int = 1000) -> Tensor:
    """Return the model's probability for each class, float32 (N, classes), on the images' device.

    Args:
        model: as in `fit`; it is put into evaluation mode.
        images: (N, C, H, W), uint8, or floating in [0, 1].
        batch_size: images at a time.
    """
    if images.ndim != 4:
        raise ValueError(
            f"images must have shape (N, C, H, W), but shape {tuple(images.shape)} was given"
        )
    model.eval()
    parts = []
    for part in images.split(batch_size):
        U = part.to(device_of(model))
        U = U if U.is_floating_point() else U.float() / 255
        parts.append(model(U).float().softmax(dim=1).to(images.device))
    return torch.cat(parts)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose most probable class is their label, from 0 to 1."""
    predicted = probabilities(model, images).argmax(dim=1)
    return (predicted == labels.to(predicted.device)).float().mean().item()


@torch.no_grad()
@exact_float32()
def error_rate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the share of pictures, in %, whose highest score is not their label's.

    Of a model with several heads, (N, classes, heads), a picture is right when all of them are.

    Args:
        model: as in `train`; it is judged in evaluation mode, in float32, and left in its own mode.
        batches: (U, target) each, of any size, on the model's device.

    Raises:
        ValueError: there is no picture.
    """
    training = model.training
    model.eval()
    wrong = torch.zeros((), dtype=torch.int64, device=device_of(model))
    count = 0
    for U, target in batches:
        wrong += (model(U).argmax(dim=1) != target).reshape(len(target), -1).any(dim=1).sum()
        count += len(target)
    model.train(training)
    if not count:
        raise ValueError("batches must hold at least one picture, but none was given")
    return 100 * wrong.item() / count
