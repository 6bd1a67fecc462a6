"""What does a momentum make of the paper's recipe, and would a higher rate do the same?

Run it with `python -m benchmarks.momentum --precision bfloat16`; it writes
`book/results/momentum.json`, which chapter 11 shows. Networks learn R by the paper's recipe, from
one seed and the same digits: without momentum; with one of 0.9, which makes a step ten times as
long where the gradient keeps its direction; and without, at ten times the rate. Each is judged on
digits held out, and on 10 000 of those that it has learned, distorted once more: a network that
errs as often on these as on those is not short of digits. A run in the file is not run again.
"""

from dataclasses import replace

import torch

from benchmarks.sampling import ROOT
from benchmarks.trials import asked, fill, said_of
from stn_tutorial.data import Batches, Digits, FixedSet
from stn_tutorial.experiments import RECIPES
from stn_tutorial.models import build
from stn_tutorial.training import choose_device, error_rate, train

RESULT = ROOT / "book" / "results" / "momentum.json"
PLAN = RECIPES["paper"]
DISTORTION, SEED = "R", 0
WANTED = (
    ("fcn", 0.0, 0.01), ("st-fcn-affine", 0.0, 0.01),
    ("fcn", 0.9, 0.01), ("st-fcn-affine", 0.9, 0.01),
    ("fcn", 0.0, 0.1),
)  # fmt: skip
"""The model, the momentum, the rate."""
JUDGED = 10_000


def trial(model_name, momentum, rate, digits, held_out, steps, execution, device):
    """Train a network; return the row of the table."""
    recipe = replace(PLAN.recipe.scaled(steps), momentum=momentum, learning_rate=rate)
    torch.manual_seed(SEED)
    model = build(model_name).to(device)
    batches = Batches(digits, DISTORTION, batch_size=recipe.batch_size, seed=SEED, device=device)
    records = train(model, batches, recipe, every=steps, execution=execution)
    again = Digits(digits.images[:JUDGED], digits.labels[:JUDGED])
    # In the held-out digits' order and by their draws: neither meets an easier distortion.
    judges = [FixedSet(d, DISTORTION, "held-out", device=device) for d in (again, held_out)]
    learned, unseen = (round(error_rate(model.eval(), judge), 2) for judge in judges)
    return {
        "model": model_name,
        "momentum": momentum,
        "rate": rate,
        "seed": SEED,
        "steps": steps,
        "learned_digits_error": learned,
        "held_out_error": unseen,
        **said_of(records, execution, device),
    }


def main():
    steps, output, execution = asked(__doc__, RESULT, PLAN.cpu_steps)
    device = choose_device()

    def one(name, momentum, rate, digits, held_out):
        return trial(name, momentum, rate, digits, held_out, steps, execution, device)

    about = {
        "command": "python -m benchmarks.momentum", "distortion": DISTORTION, "recipe": "paper",
        "learned_digits": JUDGED,
    }  # fmt: skip
    fill(output, about, ("model", "momentum", "rate"), WANTED, one)


if __name__ == "__main__":
    main()
