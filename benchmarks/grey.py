"""Do windows that cannot look read house numbers as well as those that can? A control.

Run it with `python -m benchmarks.grey --precision bfloat16`; it writes
`book/results/svhn_grey.json`, which chapter 13 shows. Two readers learn as those of the table do,
by the recipe *modern*, on the same part of SVHN, from the same seeds:

- *grey*: Multi, whose localisation nets are shown a grey picture whatever there is to see. Weights
  and layers are Multi's, and each of its windows can still learn its place, but only one for all
  pictures;
- *zoom*: the plain reader, which sees every picture larger by a tenth about the middle, which is
  what Multi's first window does in the mean.

A run that is in the file is not run again.
"""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.house_numbers import transformers
from benchmarks.sampling import ROOT
from benchmarks.trials import asked, fill, said_of
from stn_tutorial.affine import scaling
from stn_tutorial.experiments.house_numbers import NUMBER_PLANS, NumberCell
from stn_tutorial.training import choose_device, train

RESULT = ROOT / "book" / "results" / "svhn_grey.json"
PLAN = NUMBER_PLANS["modern"]
ZOOM = 1.1
WANTED = [(what, seed) for seed in range(10) for what in ("grey", "zoom")]


class Grey(nn.Module):
    """A localisation net that is shown grey, whatever there is to see."""

    def __init__(self, localisation):
        super().__init__()
        self.localisation = localisation

    def forward(self, U):
        """Return what the net makes of one grey picture, for each of U."""
        return self.localisation(torch.full_like(U[:1], 0.5)).expand(len(U), -1)


class Zoom(nn.Module):
    """Every picture larger about its middle, read as a transformer of the readers reads it."""

    def forward(self, U):
        """Return V, as large as U."""
        theta = scaling(ZOOM).to(U).expand(len(U), 2, 3)
        return F.grid_sample(
            U, F.affine_grid(theta, list(U.shape), align_corners=False), align_corners=False
        )


def built(what, model):
    """Return the reader of a trial, made of the table's own."""
    if what == "zoom":
        return nn.Sequential(Zoom(), model)
    for look in transformers(model):
        look.localisation = Grey(look.localisation)
    return model


def trial(what, seed, steps, execution, device):
    """Train a reader and return its row."""
    name = "cnn" if what == "zoom" else "st-cnn-multi"
    work = NumberCell("part-64", name, "modern", seed, steps).prepare(device)
    model = built(what, work.model)
    records = train(
        model, work.batches, work.recipe, every=steps, execution=execution,
        evaluate=lambda model: work.error(model, work.choose_by),
    )  # fmt: skip
    return {
        "what": what,
        "model": name,
        "seed": seed,
        "steps": steps,
        "test_error": work.judge(model)["test_error"],
        "held_out_error": round(records[-1]["error"], 4),
        **said_of(records, execution, device),
    }


def main():
    steps, output, execution = asked(__doc__, RESULT, PLAN.cpu_steps)
    device = choose_device()

    def one(what, seed):
        return trial(what, seed, steps, execution, device)

    about = {"command": "python -m benchmarks.grey", "recipe": "modern", "zoom": ZOOM}
    fill(output, about, ("what", "seed"), WANTED, one, load=tuple)


if __name__ == "__main__":
    main()
