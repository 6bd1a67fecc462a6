"""What gets two windows off the plateau: easy pictures first, another rate, or another start?

Run it with `python -m benchmarks.plateau`; it writes `book/results/plateau.json`, which chapter 12
shows. The task is chapter 12's small one, sums of the digits 0 to 2 in two channels, and so are the
networks with their two windows, the recipe and its 500 steps. One thing is changed at a time, five
seeds each: what is told, both digits instead of their sum; the order of the pictures; the
localisation nets' share of the learning rate; where the windows start; at last two that help,
together. Of each network: the error on 2000 held-out pairs, and how far each window *stills* each
digit (see `benchmarks/windows.py`). A row that is in the file is not run again.
"""

import contextlib
import io
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.sampling import ROOT
from benchmarks.trials import asked, fill, said_of
from benchmarks.windows import BATCH, EASY, RECIPE, TOP, few, network, stilled
from stn_tutorial.affine import scaling
from stn_tutorial.data import FixedSums, Sums
from stn_tutorial.training import choose_device, error_rate, train
from stn_tutorial.transformer import tiling

RESULT = ROOT / "book" / "results" / "plateau.json"
STEPS, SEEDS = 500, range(5)
STARTS = {
    "identity": None,
    "closer": scaling(1 / 0.6).repeat(2, 1, 1),
    "side by side": tiling(2, 0.6),
}
"""θ of both windows: the whole picture, its middle, or halves left and right."""
WANTED = [
    (order, rate, start, told, seed)
    for order, rate, start, told in (
        ("hard", 0.5, "identity", "sum"), ("hard", 0.5, "identity", "both"),
        ("easy first", 0.5, "identity", "sum"),
        ("hard", 0.05, "identity", "sum"), ("hard", 0.2, "identity", "sum"),
        ("hard", 1.0, "identity", "sum"), ("hard", 2.0, "identity", "sum"),
        ("hard", 0.5, "closer", "sum"), ("hard", 0.5, "side by side", "sum"),
        ("easy first", 0.5, "closer", "sum"),
    )
    for seed in SEEDS
]  # fmt: skip


class SumOfBoth(nn.Module):
    """From scores of each digit, (N, TOP, 2), to scores of which that of their sum is highest."""

    def forward(self, scores):
        return F.one_hot(scores.argmax(dim=1).sum(dim=1), 2 * TOP - 1)


def trial(order, rate, start, told, seed, digits, held_out, steps, execution, device):
    """Train a network; return its row."""
    model = network("channels", 2, STARTS[start], seed)
    if told == "both":  # a softmax for each digit in the place of that of the sums
        model[-1] = nn.Linear(model[-1].in_features, 2 * TOP)
        model.append(nn.Unflatten(1, (TOP, 2)))
    model.to(device)
    grown = EASY * steps
    reach = None if order == "hard" else lambda step: min(1.0, 0.2 + 0.8 * step / grown)
    pool = few(digits)
    sums = Sums(pool, "channels", batch_size=BATCH, seed=seed, reach=reach, device=device)

    def both(step):
        return sums(step)[0], pool.labels[sums.chosen(step)].to(device)

    judged = FixedSums(few(held_out, 2000), "channels", "held-out", device=device)
    recipe = replace(RECIPE.scaled(steps), localisation_rate=rate)
    with contextlib.redirect_stdout(io.StringIO()):
        records = train(
            model, both if told == "both" else sums, recipe, every=steps // 10, execution=execution
        )
    answer = nn.Sequential(model, SumOfBoth()) if told == "both" else model
    return {
        "order": order, "rate": rate, "start": start, "told": told, "seed": seed, "steps": steps,
        "error": round(error_rate(answer.eval(), judged), 2),
        "stilled": stilled(lambda U: model[1].thetas(model[0](U)), judged),
        **said_of(records, execution, device),
    }  # fmt: skip


def main():
    torch.set_num_threads(1)
    steps, output, execution = asked(__doc__, RESULT, STEPS)
    device = choose_device()

    def one(order, rate, start, told, seed, digits, held_out):
        return trial(order, rate, start, told, seed, digits, held_out, steps, execution, device)

    key = ("order", "rate", "start", "told", "seed")
    fill(output, {"command": "python -m benchmarks.plateau"}, key, WANTED, one)


if __name__ == "__main__":
    main()
