"""Does the paper's recipe fall short of the paper's figures for want of digits, or of steps?

Run it with `python -m benchmarks.momentum --runs FOLDER --precision bfloat16`; it writes
`book/results/momentum.json`, which chapter 11 shows. The folder is the one in which `stn-tutorial
reproduce table1 --recipe paper --rows fcn,st-fcn-affine --columns R` has left its networks: each is
judged on digits held out, and on 10 000 of those that it has learned, distorted once more. A
network that errs as often on these as on those is not short of digits. Then each learns again by
the same recipe, from the same seed and digits, with a momentum of 0.9: a step that is ten times as
long where the gradient keeps its direction. A run in the file is not run again.
"""

from dataclasses import replace

import torch

from benchmarks.sampling import ROOT
from benchmarks.trials import asked, fill, said_of
from stn_tutorial.data import Batches, Digits, FixedSet
from stn_tutorial.experiments import RECIPES, Cell
from stn_tutorial.models import build
from stn_tutorial.training import choose_device, error_rate, train

RESULT = ROOT / "book" / "results" / "momentum.json"
PLAN = RECIPES["paper"]
DISTORTION, SEED = "R", 0
WANTED = (("fcn", 0.0), ("st-fcn-affine", 0.0), ("fcn", 0.9), ("st-fcn-affine", 0.9))
JUDGED = 10_000


def trial(model_name, momentum, digits, held_out, runs, steps, execution, device):
    """Take the table's network, or train one with momentum; return the row of the table."""
    recipe = replace(PLAN.recipe.scaled(steps), momentum=momentum)
    torch.manual_seed(SEED)
    model = build(model_name).to(device)
    if momentum:
        batches = Batches(
            digits, DISTORTION, batch_size=recipe.batch_size, seed=SEED, device=device
        )
        said = said_of(
            train(model, batches, recipe, every=steps, execution=execution), execution, device
        )
    else:
        cell = Cell(DISTORTION, model_name, "paper", SEED, steps, "mnist")
        model.load_state_dict(torch.load(runs / f"{cell.name}.pt", weights_only=True))
        said = {}
    again = Digits(digits.images[:JUDGED], digits.labels[:JUDGED])
    # In the held-out digits' order and by their draws: neither meets an easier distortion.
    judges = [FixedSet(d, DISTORTION, "held-out", device=device) for d in (again, held_out)]
    learned, unseen = (round(error_rate(model.eval(), judge), 2) for judge in judges)
    return {
        "model": model_name,
        "momentum": momentum,
        "seed": SEED,
        "steps": steps,
        "learned_digits_error": learned,
        "held_out_error": unseen,
        **said,
    }


def main():
    steps, output, execution, runs = asked(
        __doc__, RESULT, PLAN.cpu_steps, runs="the folder of the table's runs"
    )
    device = choose_device()

    def one(name, momentum, digits, held_out):
        return trial(name, momentum, digits, held_out, runs, steps, execution, device)

    about = {
        "command": "python -m benchmarks.momentum", "distortion": DISTORTION, "recipe": "paper",
        "learned_digits": JUDGED,
    }  # fmt: skip
    fill(output, about, ("model", "momentum"), WANTED, one)


if __name__ == "__main__":
    main()
