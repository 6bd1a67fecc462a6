"""The engine for long runs (chapter 10).

`train` trains on batches that are drawn afresh, each from the number of its step alone. So a run
that was killed goes on from its checkpoint, and ends, on a CPU, with the very weights of one that
was not; and several processes share a batch without a word to each other.
"""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from stn_tutorial.training.checkpoint import resume, save
from stn_tutorial.training.devices import join, processes
from stn_tutorial.training.loop import device_of
from stn_tutorial.training.recipe import (
    Execution,
    Recipe,
    Record,
    autocast_dtype,
    check_number,
    make_optimiser,
)
from stn_tutorial.training.watch import check_finite, warn_of_collapse

__all__ = ["train"]


def _check_run(model: nn.Module, recipe: Recipe, every: int, world: int) -> None:
    check_number("every", every, "1", whole=True)
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
    device = device_of(model)
    if execution.channels_last:
        model.to(memory_format=torch.channels_last)
    if world > 1:
        join(device)
        if rank > 0:
            torch.manual_seed(torch.initial_seed() + rank)  # each process its own dropout
        if device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    dtype = autocast_dtype(execution, device)
    optimiser = make_optimiser(model, recipe)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    path = None if checkpoint is None else Path(checkpoint)
    history = [] if path is None else resume(path, recipe, model, optimiser, scaler)
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
            # One channel is last and first: to say so would only lead to slower pooling on a CPU.
            if execution.channels_last and U.shape[1] > 1:
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
            check_finite(mean, model, optimiser, done, last["step"], path)
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
                warn_of_collapse(model, U, done, recipe.localisation_rate, warned)
            if rank == 0 and on_record is not None:
                on_record(last)
            if path is not None:
                save(path, recipe, history, model, optimiser, scaler)
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
