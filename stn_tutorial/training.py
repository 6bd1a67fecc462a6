"""Training, in plain PyTorch: a loop for a chapter's minute, and an engine for long runs.

`fit` (chapters 1 and 2) trains on pictures that are there. Images stay bytes, on the model's
device, until a batch is drawn; what a batch is turned into is the caller's business (`augment`).
Everything random is drawn from one seeded generator, so that on a CPU the same seed gives the same
weights.

`train` (chapters 10 and 11) trains on batches that are drawn afresh, each from the number of its
step alone. So a run that was killed goes on from its checkpoint, and ends, on a CPU, with the very
weights of one that was not; and several processes share a batch without a word to each other. A
`Recipe` says what is trained, and changes the result; an `Execution` says how fast.
"""

import atexit
import io
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from stn_tutorial._checks import check_choice
from stn_tutorial.transformer import SpatialTransformer

__all__ = [
    "CollapsedTransformerWarning",
    "Execution",
    "Recipe",
    "Record",
    "accuracy",
    "choose_device",
    "error_rate",
    "fit",
    "probabilities",
    "processes",
    "train",
]

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


def _device(model: nn.Module) -> torch.device:
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
    device = _device(model)
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
        U = part.to(_device(model))
        U = U if U.is_floating_point() else U.float() / 255
        parts.append(model(U).float().softmax(dim=1).to(images.device))
    return torch.cat(parts)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose most probable class is their label, from 0 to 1."""
    predicted = probabilities(model, images).argmax(dim=1)
    return (predicted == labels.to(predicted.device)).float().mean().item()


# --- The engine: what a long run is made of ---


def _check_number(name: str, value: object, expected: str, *, whole: bool = False) -> None:
    """Raise `ValueError` unless a number is in the range that `expected` says, as "0 to 1" does."""
    low, _, high = expected.partition(" to ")
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right or not float(low) <= value <= float(high or "inf") or not math.isfinite(value):
        kind = "a whole number" if whole else "a number"
        span = f"from {low} to {high}" if high else f"{low} or more"
        raise ValueError(f"{name} must be {kind}, {span}, but {value!r} was given")


@dataclass(frozen=True)
class Recipe:
    """All that a run's result depends on, but for the model and the batches.

    The defaults are those of the paper's digits, where it has them. `dataclasses.asdict` makes it
    ready for JSON, and `Recipe(**settings)` reads it back.

    Args:
        steps: how many batches are learned from.
        batch_size: pictures a step, those of all processes together.
        optimiser: `"sgd"` or `"adamw"`.
        learning_rate: the highest that the schedule reaches.
        momentum: of SGD.
        weight_decay: SGD's is added to the gradient, AdamW's is taken from the weights.
        localisation_rate: the learning rate of the transformers' own weights, as a factor of the
            others'. A layer that a localisation net shares with the classifier counts as the
            classifier's.
        label_smoothing: the share of a target's weight that is spread over all classes.
        schedule: `"steps"`, a tenth of the learning rate after every `drop_every` steps, or
            `"one-cycle"`: from a 25th of it up, along half a cosine, and down to nothing, along
            another.
        drop_every: see `schedule`.
        warmup: the share of a cycle's steps that lead up.
    """

    steps: int
    batch_size: int = 256
    optimiser: str = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    localisation_rate: float = 1.0
    label_smoothing: float = 0.0
    schedule: str = "steps"
    drop_every: int = 50_000
    warmup: float = 0.3

    def __post_init__(self) -> None:
        check_choice("optimiser", self.optimiser, ("sgd", "adamw"))
        check_choice("schedule", self.schedule, ("steps", "one-cycle"))
        for name in ("steps", "batch_size", "drop_every"):
            _check_number(name, getattr(self, name), "1", whole=True)
        for name in ("learning_rate", "weight_decay", "localisation_rate"):
            _check_number(name, getattr(self, name), "0")
        for name in ("momentum", "label_smoothing", "warmup"):
            _check_number(name, getattr(self, name), "0 to 1")
        if self.momentum and self.optimiser != "sgd":
            raise ValueError(
                f"momentum is SGD's; with {self.optimiser} it must be 0, "
                f"but {self.momentum:g} was given"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, 0 the first: of nothing else, so resuming is easy."""
        if self.schedule == "steps":
            return self.learning_rate * 0.1 ** (step // self.drop_every)
        done = step / self.steps
        if done < self.warmup:
            risen = (1 - math.cos(math.pi * done / self.warmup)) / 2
            return self.learning_rate * (1 + 24 * risen) / 25
        fallen = (done - self.warmup) / (1 - self.warmup)
        return self.learning_rate * (1 + math.cos(math.pi * fallen)) / 2

    def scaled(self, steps: int) -> "Recipe":
        """Return the recipe with its schedule squeezed, or stretched, to that many steps."""
        drop_every = max(1, round(self.drop_every * steps / self.steps))
        return replace(self, steps=steps, drop_every=drop_every)


@dataclass(frozen=True)
class Execution:
    """How a run is carried out: a matter of speed, and of the last digits of a result.

    Args:
        precision: `"float32"`; `"auto"`: on a GPU the network's layers run in bfloat16 where the
            chip has it, else in float16 with a loss that is scaled up, so that small gradients are
            not lost, and on a CPU in float32; or `"bfloat16"` on whatever device, which pays off on
            the few CPUs that are made for it. Weights, grids and evaluation stay in float32.
        channels_last: keep each pixel's channels side by side in memory; for pictures only.
        compile: `torch.compile`'s mode, `"default"` or `"reduce-overhead"`; None for none.
    """

    precision: str = "float32"
    channels_last: bool = False
    compile: str | None = None

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, ("float32", "auto", "bfloat16"))
        if self.compile is not None:
            check_choice("compile", self.compile, ("default", "reduce-overhead"))


class Record(TypedDict):
    """What `train` writes down every so many steps."""

    step: int
    """Steps done."""
    loss: float
    """The mean over the steps since the record before."""
    seconds: float
    """Of training since step 0; evaluation and saving are left out, and so is what was lost."""
    error: NotRequired[float]
    """What `evaluate` returned."""


class CollapsedTransformerWarning(UserWarning):
    """A transformer looks past its input, or at next to nothing of it."""


def processes() -> tuple[int, int]:
    """Return this process's number and how many train together: (0, 1), unless under `torchrun`."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def choose_device() -> torch.device:
    """Return the GPU of this process where PyTorch finds one (under CUDA), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


@torch.no_grad()
def error_rate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the share of pictures, in %, whose highest score is not their label's.

    Args:
        model: as in `train`; it is judged in evaluation mode, in float32, and left in its own mode.
        batches: (U, target) each, of any size, on the model's device.

    Raises:
        ValueError: there is no picture.
    """
    training = model.training
    model.eval()
    wrong = torch.zeros((), dtype=torch.int64, device=_device(model))
    count = 0
    for U, target in batches:
        wrong += (model(U).argmax(dim=1) != target).sum()
        count += len(target)
    model.train(training)
    if not count:
        raise ValueError("batches must hold at least one picture, but none was given")
    return 100 * wrong.item() / count


def _autocast_dtype(execution: Execution, device: torch.device) -> torch.dtype:
    if execution.precision == "bfloat16":
        return torch.bfloat16
    if execution.precision == "float32" or device.type != "cuda":
        return torch.float32
    # A T4 imitates bfloat16, more slowly than it computes in float32; float16 it has.
    real = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if real else torch.float16


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimiser: a group of weights for the classifier, another for the transformers."""
    inside = tuple(
        f"{name}." if name else ""
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, SpatialTransformer)
    )
    # Under all of its names: a shared layer has one outside as well.
    classifiers = {
        parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not name.startswith(inside)
    }
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter in classifiers].append(parameter)
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "sgd":
        settings["momentum"] = recipe.momentum
    if _device(model).type == "cuda":
        # One kernel for all weights; and with it the scaler skips a step without asking the GPU.
        settings["fused"] = True
    factors = {True: 1.0, False: recipe.localisation_rate}
    return {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[recipe.optimiser](
        [{"params": group, "factor": factors[key]} for key, group in groups.items() if group],
        **settings,
    )


def _join(device: torch.device) -> None:
    """Meet the other processes, once; they part when Python ends."""
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", 0))
        if device.index != local:
            raise ValueError(
                f"the model of this process must be on cuda:{local} (see choose_device), "
                f"but it is on {device}"
            )
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)


def _check_run(model: nn.Module, recipe: Recipe, every: int, world: int) -> None:
    _check_number("every", every, "1", whole=True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("the model must have weights to train, but it has none")
    if recipe.batch_size % world:
        raise ValueError(
            f"batch_size must be a multiple of the {world} processes, "
            f"but {recipe.batch_size} was given"
        )


def _check_batch(U: object, target: object, count: int, device: torch.device) -> None:
    if (
        not isinstance(U, Tensor)
        or not isinstance(target, Tensor)
        or not U.is_floating_point()
        or target.dtype != torch.int64
        or len(U) != count
        or tuple(target.shape) != (count,)
        or not U.device == target.device == device
    ):
        given = " and ".join(
            f"{x.dtype} {tuple(x.shape)} on {x.device}" if isinstance(x, Tensor) else repr(type(x))
            for x in (U, target)
        )
        raise ValueError(
            f"batch(step) must give (U, target), a floating ({count}, …) and int64 ({count},) on "
            f"{device}, but {given} were given"
        )


# --- The engine: what can go wrong ---


def _check_finite(
    loss: float,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    before: int,
    path: Path | None,
) -> None:
    """Raise `FloatingPointError` unless the loss, the weights and the optimiser's are finite."""
    broken = f"the loss between step {before} and {step} is {loss}"
    if math.isfinite(loss):
        state = {f"the model's {key}": value for key, value in model.state_dict().items()}
        for number, values in enumerate(optimiser.state.values()):
            state |= {f"the optimiser's {key} {number}": x for key, x in values.items()}
        state = {k: v for k, v in state.items() if isinstance(v, Tensor) and v.is_floating_point()}
        # All in one tensor, so that a GPU is asked once.
        finite = torch.stack([x.isfinite().all().to(_device(model)) for x in state.values()])
        bad = [key for key, good in zip(state, finite.tolist(), strict=True) if not good]
        if not bad:
            return
        broken = f"after step {step}, {bad[0]} is not finite"
    kept = "" if path is None or not before else f"; {path} holds step {before}"
    raise FloatingPointError(f"{broken}; try a lower learning_rate{kept}")


def _areas(grid: Tensor) -> Tensor:
    """Return the size of each cell of a grid in units of the regular grid's: |det| of the map."""
    axes = grid.shape[-1]
    edges = []
    for axis in range(1, axes + 1):
        edge = grid.diff(dim=axis) * (grid.shape[axis] / 2)
        for other in range(1, axes + 1):
            if other != axis:
                edge = edge.narrow(other, 0, grid.shape[other] - 1)
        edges.append(edge)
    return torch.linalg.det(torch.stack(edges, dim=-1)).abs().flatten(1)


@torch.no_grad()
def _collapsed(model: nn.Module, U: Tensor) -> dict[str, str]:
    """Return what is wrong with each transformer that has collapsed on most of these inputs."""
    found = {}

    def look(name: str, module: SpatialTransformer, U: Tensor, **_: Any) -> None:
        size = U.shape[2:] if module.size is None else module.size
        grid = module.grid(module.theta(U), size)
        # Not `> 1`, which is false of NaN.
        outside = (~(grid.abs() <= 1).all(dim=-1)).flatten(1).float().mean(dim=1)
        lost = (outside > 0.9).float().mean().item()
        if lost > 0.5:
            found[name] = f"of {lost:.0%} of the inputs it reads almost only what lies outside"
        if min(size) > 1:
            # A tenth along each axis: of a 28×28 digit, three pixels by three; of a line, nothing.
            least = 0.1 ** len(size)
            tiny = (_areas(grid).median(dim=1).values < least).float().mean().item()
            if tiny > 0.5:
                found[name] = f"of {tiny:.0%} of the inputs it reads less than {least:.1%}"

    hooks = [
        module.register_forward_hook(
            lambda module, given, named, V, name=name: look(name, module, *given[:1], **named),
            with_kwargs=True,
        )
        for name, module in model.named_modules()
        if isinstance(module, SpatialTransformer)
    ]
    try:
        if hooks:
            model(U)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _warn_of_collapse(
    model: nn.Module, U: Tensor, step: int, rate: float, warned: set[str]
) -> None:
    """Warn of each transformer that has collapsed, once."""
    for name, what in _collapsed(model, U[:64]).items():
        if name not in warned:
            warned.add(name)
            warnings.warn(
                f"the transformer {name!r} has collapsed by step {step}: {what}. Try a "
                f"localisation_rate lower than {rate:g}, or padding='border', and see that it "
                "starts at the identity.",
                CollapsedTransformerWarning,
                stacklevel=3,
            )


# --- The engine: checkpoints ---

FORMAT = "stn-tutorial checkpoint 1"


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _random_state(device: torch.device) -> list[dict[str, Tensor]]:
    """Return the state of every process's generators, from which dropout draws."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    rank, world = processes()
    if world == 1:
        return [state]
    states: list[Any] = [None] * world
    distributed.all_gather_object(states, state)
    return states


def _save(
    path: Path,
    recipe: Recipe,
    history: list[Record],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write a checkpoint beside the old one, and then put it in its place, whole or not at all."""
    state = {
        "format": FORMAT,
        "recipe": asdict(recipe),
        "history": history,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "scaler": scaler.state_dict(),
        "random": _random_state(_device(model)),  # of all processes, so all must come here
    }
    if processes()[0] > 0:
        return
    with _aside(path).open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(_aside(path), path)


def _load(path: Path, recipe: Recipe) -> dict[str, Any]:
    advice = "Delete it to begin anew, or name another file."
    data = io.BytesIO(path.read_bytes())  # so that a file which cannot be read says so itself
    try:
        saved = torch.load(data, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader fails in many ways on what it did not write
        raise ValueError(f"{path} is damaged, or is no checkpoint. {advice}") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise ValueError(f"{path} is no checkpoint of this engine. {advice}")
    ours, theirs = asdict(recipe), saved["recipe"]
    differ = [key for key in ours | theirs if ours.get(key) != theirs.get(key)]
    if differ:
        what = "; ".join(f"{key} {theirs.get(key)!r} and not {ours.get(key)!r}" for key in differ)
        raise ValueError(f"{path} is of another recipe: {what}. {advice}")
    return saved


def _resume(
    path: Path,
    recipe: Recipe,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> list[Record]:
    """Put everything into the state of the checkpoint, where there is one; return its history."""
    rank, _ = processes()
    if rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        _aside(path).unlink(missing_ok=True)  # from a run that was killed while saving
    if not path.exists():
        return []
    saved = _load(path, recipe)
    try:
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is of another model: {error}") from error
    if saved["scaler"]:  # empty when it was written in another precision
        scaler.load_state_dict(saved["scaler"])
    if rank < len(saved["random"]):
        state = saved["random"][rank]
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and _device(model).type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], _device(model))
    if rank == 0:
        print(f"going on from step {saved['history'][-1]['step']}, which {path} holds")
    return saved["history"]


# --- The engine: the loop ---


def train(
    model: nn.Module,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    recipe: Recipe,
    *,
    evaluate: Callable[[nn.Module], float] | None = None,
    every: int = 1000,
    checkpoint: Path | str | None = None,
    execution: Execution | None = None,
    on_record: Callable[[Record], object] | None = None,
) -> list[Record]:
    """Train a classifier on batches that are drawn afresh, with cross-entropy.

    Every `every` steps, and after the last one, it looks up from its work: it notes the loss,
    evaluates the model, warns of a transformer that has collapsed, and saves a checkpoint. Between,
    it reads nothing back from the GPU, which would have to wait.

    The same call goes on from the checkpoint when there is one. On a CPU it ends, bit for bit, with
    the weights of a run that was never stopped; on a GPU, up to the order of its sums.

    Under `torchrun` the processes learn together (`DistributedDataParallel`): each draws the whole
    batch and takes its own part, and the first one prints, warns, calls `on_record` and saves.
    Batch norms are made `SyncBatchNorm` on GPUs, so that they see the whole batch; on CPUs, where
    that does not exist, each process norms its own part, and the first one's running statistics
    are the model's. A checkpoint must be where all processes can read it.

    Args:
        model: takes U, returns a score for each class, (N, classes). It is on its device already,
            and is left in evaluation mode. Seed before you build it: its initial weights and its
            dropout are drawn from PyTorch's own generator.
        batch: from the number of a step, 0 the first, to (U, target): floating (batch_size, …) and
            int64 (batch_size,), on the model's device. It must depend on that number alone.
        recipe: what is trained. A checkpoint of another one is refused.
        evaluate: from the model, in evaluation mode and without gradients, to its error in %; for
            example `lambda model: error_rate(model, held_out)`.
        every: steps from one record to the next.
        checkpoint: a file of this run's own: neither the batches nor the seed are compared.
        execution: how it is carried out; `Execution()` when left out.
        on_record: called with each new record before it is saved, the model still in evaluation
            mode. After a kill it may see a record again.

    Raises:
        ValueError: a batch of a wrong shape, dtype or device; a checkpoint that is damaged, or of
            another recipe or model.
        FloatingPointError: the loss or the weights are not finite any more. The checkpoint is that
            of the record before.

    Returns:
        The records, from step 0 on.
    """
    execution = Execution() if execution is None else execution
    rank, world = processes()
    _check_run(model, recipe, every, world)
    device = _device(model)
    if execution.channels_last:
        model.to(memory_format=torch.channels_last)
    if world > 1:
        _join(device)
        if rank > 0:
            torch.manual_seed(torch.initial_seed() + rank)  # each process its own dropout
        if device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    dtype = _autocast_dtype(execution, device)
    optimiser = _optimiser(model, recipe)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    path = None if checkpoint is None else Path(checkpoint)
    history = [] if path is None else _resume(path, recipe, model, optimiser, scaler)
    last = history[-1] if history else Record(step=0, loss=math.nan, seconds=0.0)
    # What the steps run; `model` stays what is evaluated and saved, with the same weights.
    forward = model if world == 1 else DistributedDataParallel(model)
    if execution.compile is not None:
        forward = torch.compile(forward, mode=execution.compile)

    warned: set[str] = set()
    total = torch.zeros((), device=device)
    model.train()
    start = time.perf_counter()
    # To stdout: a notebook shows stderr as if something had gone wrong.
    with tqdm(
        total=recipe.steps, initial=last["step"], disable=rank > 0, file=sys.stdout, leave=False,
        unit="step", mininterval=0.5,
    ) as progress:  # fmt: skip
        for step in range(last["step"], recipe.steps):
            U, target = batch(step)
            _check_batch(U, target, recipe.batch_size, device)
            U, target = U.chunk(world)[rank], target.chunk(world)[rank]
            if execution.channels_last:
                U = U.to(memory_format=torch.channels_last)
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(step) * group["factor"]
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = F.cross_entropy(forward(U), target, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            total += loss.detach()
            progress.update()
            done = step + 1
            if done % every and done < recipe.steps:
                continue

            if world > 1:
                distributed.all_reduce(total)
            steps = done - last["step"]
            mean = total.item() / (steps * world)  # here a GPU is waited for
            seconds = time.perf_counter() - start
            _check_finite(mean, model, optimiser, done, last["step"], path)
            last = Record(step=done, loss=mean, seconds=last["seconds"] + seconds)
            history.append(last)
            shown = {
                "loss": f"{mean:.3f}",
                "images/s": f"{steps * recipe.batch_size / seconds:,.0f}",
            }
            model.eval()
            if evaluate is not None:
                with torch.no_grad():
                    last["error"] = float(evaluate(model))
                shown["error"] = f"{last['error']:.2f}%"
            progress.set_postfix(shown)
            if rank == 0:
                _warn_of_collapse(model, U, done, recipe.localisation_rate, warned)
            if rank == 0 and on_record is not None:
                on_record(last)
            if path is not None:
                _save(path, recipe, history, model, optimiser, scaler)
            model.train()
            total.zero_()
            start = time.perf_counter()
    model.eval()
    if rank == 0:
        error = f", error {last['error']:.2f} %" if "error" in last else ""
        print(
            f"{recipe.steps} steps of {recipe.batch_size} in {last['seconds']:.0f} s "
            f"({recipe.steps * recipe.batch_size / last['seconds']:,.0f} images/s), "
            f"last loss {last['loss']:.3f}{error}"
        )
    return history
