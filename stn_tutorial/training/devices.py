"""The devices and the processes that a run takes place on (chapter 10)."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed

__all__ = ["choose_device", "processes"]


def processes() -> tuple[int, int]:
    """Return this process's number and how many train together: (0, 1), unless under `torchrun`."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def choose_device() -> torch.device:
    """Return the GPU of this process where PyTorch finds one (under CUDA), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def _tf32_switches() -> list[tuple[Any, str, object]]:
    """Return what lets float32 be rounded to TF32, each with the value that forbids it."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # where these are, the older names cannot be mixed with them
        parts = (cudnn.conv, cudnn.rnn, matmul)
        return [(part, "fp32_precision", "ieee") for part in parts]
    return [(part, "allow_tf32", False) for part in (cudnn, matmul)]


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 in float32; every setting is put back at the end.

    From Ampere on, cuDNN's convolutions round their inputs to TF32, with 10 bits behind the point
    instead of 23, unless they are told not to: an error that is said to be measured in float32
    would not be.
    """
    before = [(part, name, getattr(part, name)) for part, name, _ in _tf32_switches()]
    try:
        for part, name, exact in _tf32_switches():
            setattr(part, name, exact)
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)


@contextmanager
def tried_convolutions() -> Iterator[None]:
    """Let cuDNN try its ways to convolve at each new shape and keep the fastest, for a long run."""
    before = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = True
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def join(device: torch.device) -> None:
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
