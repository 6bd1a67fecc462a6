"""The paper's tables, cell by cell (chapters 10 to 13).

A *cell* is a model on a task (in Table 1, on a distortion of the digits), trained by a recipe from
one seed. `run` trains it and writes
one JSON file when it is done; a cell whose file is there is not run again, and one that was
interrupted goes on from its checkpoint. `reproduce` runs many, and any number of processes on one
folder share them. `merge` makes one table of the files, and `render` shows it beside the paper's
figures, which stand in the table's `Layout`. `EXPERIMENTS` holds the tables by name.

Every choice is made by the digits that are held out, 10 000 of MNIST's; the test digits are looked
at once, when a cell's training has ended.
"""

from stn_tutorial.experiments.addition import (
    ADDITION,
    ADDITION_RECIPES,
    AdditionCell,
    addition_cells,
)
from stn_tutorial.experiments.cells import Cell, cells
from stn_tutorial.experiments.layout import Layout
from stn_tutorial.experiments.named import EXPERIMENTS, Experiment
from stn_tutorial.experiments.on_ray import connect, reproduce_on_ray
from stn_tutorial.experiments.paper import PAPER, PAPER_SOURCE, TABLE1, TC_FACT
from stn_tutorial.experiments.queue import count_finished, reproduce
from stn_tutorial.experiments.recipes import RECIPES, Plan, default_steps
from stn_tutorial.experiments.results import finished
from stn_tutorial.experiments.running import BusyError, FailedCellError, run
from stn_tutorial.experiments.table import merge, render, write_table
from stn_tutorial.experiments.work import Task, Work

__all__ = [
    "ADDITION",
    "ADDITION_RECIPES",
    "EXPERIMENTS",
    "PAPER",
    "PAPER_SOURCE",
    "RECIPES",
    "TABLE1",
    "TC_FACT",
    "AdditionCell",
    "BusyError",
    "Cell",
    "Experiment",
    "FailedCellError",
    "Layout",
    "Plan",
    "Task",
    "Work",
    "addition_cells",
    "cells",
    "connect",
    "count_finished",
    "default_steps",
    "finished",
    "merge",
    "render",
    "reproduce",
    "reproduce_on_ray",
    "run",
    "write_table",
]
