"""The paper's table of distorted digits, cell by cell (chapters 10 and 11).

A *cell* is a model on a distortion, trained by a recipe from one seed. `run` trains it and writes
one JSON file when it is done; a cell whose file is there is not run again, and one that was
interrupted goes on from its checkpoint. `merge` makes one table of the files, and `render` shows it
beside the paper's figures, which stand in `PAPER`.

Every choice is made by the digits that are held out, 10 000 of MNIST's; the test digits are looked
at once, when a cell's training has ended.
"""

from stn_tutorial.experiments.cells import Cell, cells, finished
from stn_tutorial.experiments.paper import PAPER, PAPER_SOURCE
from stn_tutorial.experiments.recipes import RECIPES, Plan, default_steps
from stn_tutorial.experiments.running import reproduce, run
from stn_tutorial.experiments.table import merge, render

__all__ = [
    "PAPER",
    "PAPER_SOURCE",
    "RECIPES",
    "Cell",
    "Plan",
    "cells",
    "default_steps",
    "finished",
    "merge",
    "render",
    "reproduce",
    "run",
]
