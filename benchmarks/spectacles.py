"""A generator that may only warp: three seeds, and two teachers that teach nothing.

Run it with `python -m benchmarks.spectacles`; it writes `book/results/spectacles.json`, which
chapter 17 shows. Spectacles start astray and are moved by a transformer onto drawn faces, taught by
a discriminator alone, as in chapter 17's cells. Of each row: the median distance from the lenses to
the eyes in pixels, over 500 faces that nothing was trained on, and the share within 1.5 pixels.

- *proper*: the real pictures wear their spectacles on their eyes;
- *anywhere*: the real pictures wear them anywhere, as the generator's do at the start;
- *frozen*: the real pictures are proper, but the discriminator keeps its random weights.

A row that is in the file is not run again.
"""

import argparse
import itertools
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial import affine, data
from stn_tutorial.alignment import composite
from stn_tutorial.grids import affine_grid
from stn_tutorial.transformer import Similarity, SpatialTransformer

RESULT = ROOT / "book" / "results" / "spectacles.json"
ROUNDS, BATCH, RATE, LOOKS, SEEDS = 400, 32, 2e-3, 2, (0, 1, 2)
TEACHERS = ("proper", "anywhere", "frozen")
NEAR = 1.5
"""Pixels."""


def warped(theta: Tensor) -> Tensor:
    """The spectacles' alpha, seen through θ: (N, 1, 32, 32)."""
    flat = data.draw_spectacles(affine.identity()).expand(len(theta), -1, -1, -1)
    return F.grid_sample(flat, affine_grid(theta, flat.shape[2:]), align_corners=False)


def put(faces: Tensor, theta: Tensor) -> Tensor:
    """Black spectacles on faces."""
    return composite(faces, torch.zeros_like(faces), warped(theta))


def batch(generator: torch.Generator, count: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """Faces, their poses, and places astray: up to 8 pixels off along each axis."""
    pose = data.draw_poses(count, generator)
    faces = data.draw_faces(pose, generator)
    x, y = torch.rand(2, count, generator=generator) - 0.5
    return faces, pose, affine.translation(x, y)


class Placer(nn.Module):
    """Look, move the spectacles by a similarity, look again."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.AvgPool2d(2), nn.Conv2d(2, 8, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 48), nn.Tanh(),
        )  # fmt: skip
        self.look = SpatialTransformer(net, 48, Similarity())

    def forward(self, faces: Tensor, theta: Tensor) -> list[Tensor]:
        """θ at the start and after each look."""
        thetas = [theta]
        for _ in range(LOOKS):
            step = self.look.theta(torch.cat([faces, warped(thetas[-1])], dim=1))
            thetas.append(affine.compose(thetas[-1], step))
        return thetas


def discriminator(seed: int) -> nn.Sequential:
    """Three convolutions with spectral norms, and a score."""
    torch.manual_seed(100 + seed)
    norm = nn.utils.parametrizations.spectral_norm
    layers = [norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in ((1, 16), (16, 32), (32, 32))]
    parts = [part for layer in layers for part in (layer, nn.LeakyReLU(0.2))]
    return nn.Sequential(*parts, nn.Flatten(), norm(nn.Linear(512, 1)))


def teach(teacher: str, seed: int) -> Placer:
    """Play the game."""
    generator = torch.Generator().manual_seed(seed)
    placer, judge = Placer(seed), discriminator(seed)
    teach_g, teach_d = (
        torch.optim.Adam(net.parameters(), RATE, betas=(0.5, 0.9)) for net in (placer, judge)
    )
    for _ in range(ROUNDS):
        worn, pose, anywhere = batch(generator)
        real = put(worn, anywhere if teacher == "anywhere" else pose)
        bare, _, astray = batch(generator)
        made = put(bare, placer(bare, astray)[-1])
        if teacher != "frozen":
            loss = F.relu(1 - judge(real)) + F.relu(1 + judge(made.detach()))
            teach_d.zero_grad()
            loss.mean().backward()
            teach_d.step()
        teach_g.zero_grad()
        (-judge(made)).mean().backward()
        teach_g.step()
    return placer.eval()


def off_by(theta: Tensor, pose: Tensor) -> Tensor:
    """From each lens to its eye in pixels, the mean of both: (N,)."""
    lenses = torch.tensor(data.LENSES)
    lie, belong = (affine.transform_points(affine.invert(t), lenses) for t in (theta, pose))
    return 16 * (lie - belong).norm(dim=-1).mean(dim=1)


def measure(row: dict[str, Any]) -> dict[str, Any]:
    """Train one placer and return what is written of it."""
    began = time.process_time()
    placer = teach(row["teacher"], row["seed"])
    seconds = time.process_time() - began
    faces, pose, astray = batch(torch.Generator().manual_seed(99), 500)
    with torch.no_grad():
        off = [off_by(theta, pose) for theta in placer(faces, astray)]
    return {
        **row,
        "commit": commit(),
        "start": round(off[0].median().item(), 3),
        "looks": [round(o.median().item(), 3) for o in off[1:]],
        "median": round(off[-1].median().item(), 3),
        "within": round((off[-1] < NEAR).float().mean().item(), 3),
        "process_seconds": round(seconds, 1),
    }


def main() -> None:
    """Run what is missing, and write the file after each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULT)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    found = json.loads(out.read_text())["rows"] if out.exists() else []
    known = {(r["teacher"], r["seed"]) for r in found}
    for seed, teacher in itertools.product(SEEDS, TEACHERS):
        if (teacher, seed) in known:
            continue
        found.append(measure({"teacher": teacher, "seed": seed}))
        print(found[-1], flush=True)
        content = {
            "command": "python -m benchmarks.spectacles",
            "device": device_name(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "rounds": ROUNDS,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "near": NEAR,
            "seeds": sorted({r["seed"] for r in found}),
            "rows": found,
        }
        out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
