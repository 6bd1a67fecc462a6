"""Training, in plain PyTorch: a loop for a chapter's minute, and an engine for long runs."""

from stn_tutorial.training.checkpoint import read_runs
from stn_tutorial.training.devices import choose_device, exact_float32, processes
from stn_tutorial.training.engine import train
from stn_tutorial.training.files import UnusableFileError, clear_partial, write_whole
from stn_tutorial.training.loop import accuracy, error_rate, fit, probabilities
from stn_tutorial.training.recipe import Execution, Recipe, Record, autocast_dtype
from stn_tutorial.training.watch import CollapsedTransformerWarning

__all__ = [
    "CollapsedTransformerWarning",
    "Execution",
    "Recipe",
    "Record",
    "UnusableFileError",
    "accuracy",
    "autocast_dtype",
    "choose_device",
    "clear_partial",
    "error_rate",
    "exact_float32",
    "fit",
    "probabilities",
    "processes",
    "read_runs",
    "train",
    "write_whole",
]
