"""The devices and the processes that a run takes place on (chapter 10)."""

import atexit
import os

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
