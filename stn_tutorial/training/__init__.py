"""Training, in plain PyTorch: a loop for a chapter's minute, and an engine for long runs."""

from stn_tutorial.training.devices import choose_device, processes
from stn_tutorial.training.engine import train
from stn_tutorial.training.loop import accuracy, error_rate, fit, probabilities
from stn_tutorial.training.recipe import Execution, Recipe, Record
from stn_tutorial.training.watch import CollapsedTransformerWarning

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
