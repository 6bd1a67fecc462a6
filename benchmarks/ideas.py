"""What might still lower the table's errors, tried on held-out digits for CNN and ST-CNN alike.

Run it with `python -m benchmarks.ideas`; it writes `book/results/ideas.json`. Each model learns
distortion R by the modern recipe, from two seeds, once as it is and once with a light extra
distortion of each training picture: scaled and slanted by up to 8 %, shifted by up to a pixel. That
reads the picture a second time, and so blurs it; a control composes the two maps and reads once.
Each run is judged four times on the digits held out: as it is; with the running mean of its weights
(a thousandth of each step's); with the mean of its scores over five turns of the picture, by −10°
to 10°; and with both. Test digits are not touched. A run in the file is not run again.
"""

from itertools import product

import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.sampling import ROOT
from benchmarks.trials import PLAN, asked, begin, fill, said_of
from stn_tutorial.affine import compose, rotation
from stn_tutorial.training import choose_device, error_rate, train

RESULT = ROOT / "book" / "results" / "ideas.json"
MODELS, TRAININGS, SEEDS = ("cnn", "st-cnn-affine"), ("as it is", "extra distortion"), (0, 1)
READ_ONCE = "extra distortion, read once"
CONTROL = ("st-cnn-affine", READ_ONCE, 0)
DISTORTION = "R"
KEY = ("model", "training", "seed")
TURNS = (-10.0, -5.0, 0.0, 5.0, 10.0)
KEPT, EVERY = 0.99, 10
"""Of the mean of the weights, at each tenth step: 0.999 a step."""


def warped(U, theta):
    """U read at θ's grid, 0 outside."""
    grid = F.affine_grid(theta.to(U), list(U.shape), align_corners=False)
    return F.grid_sample(U, grid, align_corners=False)


def lightly(n, generator):
    """θ, (n, 2, 3): a little scale, slant and shift of each picture's own."""
    return torch.eye(2, 3) + 0.08 * (2 * torch.rand(n, 2, 3, generator=generator) - 1)


class Composed:
    """An affine distortion of digits that are lightly distorted first, in one reading."""

    def __init__(self, distortion):
        self.distortion = distortion

    def __call__(self, images, generator):
        """As the distortion's own."""
        theta = self.distortion.draw(len(images), generator)
        return warped(images / 255, compose(lightly(len(images), generator), theta))


class OverTurns(torch.nn.Module):
    """The mean of a model's scores over small turns of the picture."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, U):
        """Scores of shape (N, classes)."""
        scores = [
            self.model(warped(U, rotation(turn).expand(len(U), -1, -1))).log_softmax(-1)
            for turn in TURNS
        ]
        return torch.stack(scores).mean(0)


def trial(model_name, training, seed, digits, held_out, steps, execution, device):
    """Train once; return the row of the table."""
    recipe = PLAN.recipe.scaled(steps)
    model, batches, judge = begin(model_name, DISTORTION, seed, digits, held_out, device)
    if training == READ_ONCE:
        batches.distortion = Composed(batches.distortion)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(KEPT), use_buffers=True)

    def batch(step):
        if step % EVERY == 0:
            averaged.update_parameters(model)
        U, target = batches(step)
        if training == "extra distortion":
            generator = torch.Generator().manual_seed(seed * 10**9 + step)
            U = warped(U, lightly(len(U), generator))
        return U, target

    records = train(model, batch, recipe, every=steps, execution=execution)
    averaged.update_parameters(model)
    judged = {
        "as it is": model,
        "averaged weights": averaged,
        "mean over turns": OverTurns(model),
        "both": OverTurns(averaged),
    }
    with torch.no_grad():
        errors = {name: round(error_rate(net.eval(), judge), 2) for name, net in judged.items()}
    return {
        "model": model_name,
        "training": training,
        "seed": seed,
        "steps": steps,
        "learning_rate": recipe.learning_rate,
        "held_out_errors": errors,
        **said_of(records, execution, device),
    }


def main():
    steps, output, execution = asked(__doc__, RESULT)
    device = choose_device()

    def one(name, training, seed, digits, held_out):
        return trial(name, training, seed, digits, held_out, steps, execution, device)

    about = {
        "command": "python -m benchmarks.ideas", "distortion": DISTORTION, "turns": TURNS,
    }  # fmt: skip
    wanted = [(name, training, seed) for seed, training, name in product(SEEDS, TRAININGS, MODELS)]
    wanted.append(CONTROL)
    fill(output, about, KEY, wanted, one)


if __name__ == "__main__":
    main()
