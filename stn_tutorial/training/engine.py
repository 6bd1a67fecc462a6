"""The engine for long runs (chapter 10).

`train` trains on batches that are drawn afresh, each from the number of its step alone. So a run
that was killed goes on from its checkpoint, and ends, on a CPU, with the very weights of one that
was not; and several processes share a batch without a word to each other.
"""

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from stn_tutorial.training.checkpoint import Progress, resume, save
from stn_tutorial.training.devices import exact_float32, join, processes, tried_convolutions
from stn_tutorial.training.loop import device_of
from stn_tutorial.training.provenance import describe_run
from stn_tutorial.training.recipe import (
    Execution,
    Recipe,
    Record,
    autocast_dtype,
    check_number,
    make_optimiser,
)
from stn_tutorial.training.stopping import Stopping
from stn_tutorial.training.watch import check_finite, warn_of_collapse

__all__ = ["train"]

SAVE_SECONDS = 60.0
"""The most work, in time, that a kill may cost."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From scores and target to a number."""


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
        or target.ndim == 0
        or len(target) != count
        or not U.device == target.device == device
    ):
        given = " and ".join(
            f"{x.dtype} {tuple(x.shape)} on {x.device}" if isinstance(x, Tensor) else repr(type(x))
            for x in (U, target)
        )
        raise ValueError(
            f"batch(step) must give (U, target), a floating ({count}, …) and int64 ({count},), or "
            f"({count}, heads) of a model that has several, on {device}, but {given} were given"
        )


class _Run:
    """A run under way: what its steps move, and what is saved of it."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        execution: Execution,
        path: Path | None,
        loss: Loss | None,
    ) -> None:
        self.rank, self.world = processes()
        self.device = device_of(model)
        self.dtype = autocast_dtype(execution, self.device)
        if execution.channels_last:
            model.to(memory_format=torch.channels_last)
        if self.world > 1:
            join(self.device)
            if self.rank > 0:  # each process its own dropout
                torch.manual_seed(torch.initial_seed() + self.rank)
            if self.device.type == "cuda":
                model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model, self.recipe, self.execution, self.path = model, recipe, execution, path
        self.loss = self._cross_entropy if loss is None else loss
        self.optimiser = make_optimiser(model, recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.progress = Progress()
        if path is not None:
            self.progress = resume(path, recipe, model, self.optimiser, self.scaler)
            run = describe_run(self.device, execution, self.dtype, self.progress.step)
            self.progress.runs.append(run)
        self.kept = self.progress.step  # what the checkpoint holds
        # What the steps run; `model` stays what is evaluated and saved, with the same weights.
        self.forward: Callable[[Tensor], Tensor] = (
            model if self.world == 1 else DistributedDataParallel(model)
        )
        if execution.compile is not None:
            self.forward = torch.compile(self.forward, mode=execution.compile)
        self.total = torch.tensor(self.progress.total, dtype=torch.float32, device=self.device)
        self.started = self.saved = time.perf_counter()

    @property
    def last(self) -> Record:
        """The last record; before the first one, a blank."""
        history = self.progress.history
        return history[-1] if history else Record(step=0, loss=math.nan, seconds=0.0)

    def _cross_entropy(self, scores: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(scores, target, label_smoothing=self.recipe.label_smoothing)

    def learn(self, U: Tensor, target: Tensor) -> Tensor:
        """Take a step; return this process's part of U."""
        U, target = U.chunk(self.world)[self.rank], target.chunk(self.world)[self.rank]
        # One channel is last and first: to say so would only lead to slower pooling on a CPU.
        if self.execution.channels_last and U.shape[1] > 1:
            U = U.to(memory_format=torch.channels_last)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate(self.progress.step) * group["factor"]
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=mixed):
            scores = self.forward(U)
            loss = self.loss(scores, target)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.total += loss.detach()
        self.progress.step += 1
        return U

    def look_up(self) -> float:
        """Return the mean loss since the last record; raise unless all is finite.

        All processes come here together, and a GPU is waited for.
        """
        if self.world > 1:
            distributed.all_reduce(self.total)
        self.progress.total = self.total.item()
        self.progress.seconds += time.perf_counter() - self.started
        self.started = time.perf_counter()
        step, before = self.progress.step, self.last["step"]
        mean = self.progress.total / ((step - before) * self.world)
        kept = f"; {self.path} holds step {self.kept}" if self.path and self.kept else ""
        check_finite(mean, self.model, self.optimiser, step, before, kept)
        return mean

    def record(self, evaluate: Callable[[nn.Module], float] | None) -> Record:
        """Look up, write down what is seen, and leave the model in evaluation mode."""
        mean = self.look_up()
        record = Record(step=self.progress.step, loss=mean, seconds=self.progress.seconds)
        self.model.eval()
        if evaluate is not None:
            with torch.no_grad():
                record["error"] = float(evaluate(self.model))
        self.progress.history.append(record)
        self.progress.total = 0.0
        self.total.zero_()
        return record

    def save(self) -> None:
        """Save a checkpoint, where one is wanted. Evaluating and saving count as no time."""
        if self.path is not None:
            self.kept = self.progress.runs[-1]["to"] = self.progress.step
            arguments = (self.model, self.optimiser, self.scaler)
            save(self.path, self.recipe, self.progress, *arguments)
        self.model.train()
        self.started = self.saved = time.perf_counter()

    def stop(self) -> None:
        """Save what a run that is stopped has done since it saved, unless it is not finite."""
        if self.world > 1 or self.path is None:
            return
        if self.progress.step > self.kept:
            try:
                self.look_up()
            except FloatingPointError as error:
                print(f"stopped after step {self.progress.step}: {error}")
                return
            self.save()
        if self.progress.step:
            print(f"stopped after step {self.progress.step}, which {self.path} holds")


@exact_float32()
@tried_convolutions()
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
    loss: Loss | None = None,
) -> list[Record]:
    """Train a classifier on batches that are drawn afresh, with cross-entropy or a loss of yours.

    Every `every` steps, and after the last one, it looks up from its work: it notes the loss,
    evaluates the model, warns of a transformer that has collapsed, and saves a checkpoint. Between,
    it reads nothing back from the GPU, which would have to wait, but for a checkpoint a minute.

    The same call goes on from the checkpoint when there is one. On a CPU it ends, bit for bit, with
    the weights of a run that was never stopped; on a GPU, up to the order of its sums. Ctrl-C (or a
    SIGTERM, which a batch system sends before its SIGKILL) saves as well, between two steps, and
    then raises `KeyboardInterrupt`; a second one does not wait.

    Under `torchrun` the processes learn together (`DistributedDataParallel`): each draws the whole
    batch and takes its own part, and the first one prints, warns, calls `on_record` and saves.
    Batch norms are made `SyncBatchNorm` on GPUs, so that they see the whole batch; on CPUs, where
    that does not exist, each process norms its own part, and the first one's running statistics
    are the model's. A checkpoint must be where all processes can read it, and is written with the
    records only.

    Args:
        model: takes U, returns a score for each class, (N, classes), or of several heads at once,
            (N, classes, heads). It is on its device already, and is left in evaluation mode. Seed
            before you build it: its initial weights and its dropout are drawn from PyTorch's own
            generator.
        batch: from the number of a step, 0 the first, to (U, target): floating (batch_size, …) and
            int64 (batch_size,) or (batch_size, heads), on the model's device. It must depend on
            that number alone.
        recipe: what is trained. A checkpoint of another one is refused.
        evaluate: from the model, in evaluation mode and without gradients, to its error in %; for
            example `lambda model: error_rate(model, held_out)`.
        every: steps from one record to the next.
        checkpoint: a file of this run's own: neither the batches nor the seed are compared. It also
            keeps which runs made it, see `describe_run` and `read_runs`.
        execution: how it is carried out; `Execution()` when left out.
        on_record: called with each new record before it is saved, the model still in evaluation
            mode. After a kill it may see a record again.
        loss: from the scores and the target of a batch to its mean loss, under autocast; when left
            out, cross-entropy, with the recipe's label smoothing, the mean over all heads. Nothing
            of it is saved in the checkpoint.

    Raises:
        ValueError: a batch of a wrong shape, dtype or device; a precision that the device lacks.
        UnusableFileError: a `ValueError`: the checkpoint is damaged, or of another recipe or model.
        OSError: the checkpoint cannot be written, on a full disk for example; the one before stays.
        FloatingPointError: the loss or the weights are not finite any more. The checkpoint is the
            last one before.
        KeyboardInterrupt: see above.

    Returns:
        The records, from step 0 on.
    """
    execution = Execution() if execution is None else execution
    rank, world = processes()
    _check_run(model, recipe, every, world)
    path = None if checkpoint is None else Path(checkpoint)
    run = _Run(model, recipe, execution, path, loss)
    model, progress = run.model, run.progress
    warned: set[str] = set()
    stopping, stopped = Stopping(), False
    model.train()
    # To stdout: a notebook shows stderr as if something had gone wrong.
    with stopping if world == 1 else nullcontext(), tqdm(
        total=recipe.steps, initial=progress.step, disable=rank > 0, file=sys.stdout, leave=False,
        unit="step", mininterval=0.5,
    ) as bar:  # fmt: skip
        for step in range(progress.step, recipe.steps):
            try:
                U, target = batch(step)
            except KeyboardInterrupt:  # of this step nothing is done yet
                stopped = True
                break
            _check_batch(U, target, recipe.batch_size, run.device)
            U = run.learn(U, target)
            bar.update()
            if progress.step % every == 0 or progress.step == recipe.steps:
                before = run.last
                record = run.record(evaluate)
                pictures = (record["step"] - before["step"]) * recipe.batch_size
                speed = pictures / (record["seconds"] - before["seconds"])
                shown = {"loss": f"{record['loss']:.3f}", "images/s": f"{speed:,.0f}"}
                if "error" in record:
                    shown["error"] = f"{record['error']:.2f}%"
                bar.set_postfix(shown)
                if rank == 0:
                    warn_of_collapse(model, U, record["step"], recipe.localisation_rate, warned)
                if rank == 0 and on_record is not None:
                    on_record(record)
                run.save()
            elif world == 1 and run.path and time.perf_counter() - run.saved > SAVE_SECONDS:
                run.look_up()
                run.save()
            if stopping.asked:
                stopped = True
                break
    if stopped:
        run.stop()
        raise KeyboardInterrupt
    model.eval()
    last = run.last
    if rank == 0:
        error = f", error {last['error']:.2f} %" if "error" in last else ""
        print(
            f"{recipe.steps} steps of {recipe.batch_size} in {last['seconds']:.0f} s "
            f"({recipe.steps * recipe.batch_size / last['seconds']:,.0f} images/s), "
            f"last loss {last['loss']:.3f}{error}"
        )
    return progress.history
