"""Distorting on the device beside per-image transforms, and what a transformer adds to a step.

Run it with `python -m benchmarks.distortion`; it prints two tables and writes
`book/results/bench_distortion.json`, which chapter 10 shows.

The first: digits a second through distortion R (rotation by up to 90°, bilinear), from bytes to a
batch of 256 on the device. Ours is `data.Batches`, draws and all; kornia's is its batched `rotate`
of the same digits by the same kind of draws; torchvision's is its per-image `RandomRotation` in a
DataLoader. The second: one training step of ST-CNN affine and of CNN.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import kornia
import torch
import torchvision
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, InterpolationMode, RandomRotation, ToTensor

from benchmarks.sampling import ROOT, commit, device_name, load, measure
from stn_tutorial.affine import decompose
from stn_tutorial.data import DISTORTIONS, Batches, Digits, load_digits
from stn_tutorial.models import build, count_parameters

RESULT = ROOT / "book" / "results" / "bench_distortion.json"
SEED = 0
BATCH = 256
OURS, KORNIA = "ours, batched", "kornia, batched"
WORKERS = (0, 2)


def torchvision_name(workers):
    return f"torchvision, one by one, {workers} workers"


class OneByOne(Dataset):
    """Digits as torchvision's MNIST gives them: a PIL image each, through a transform."""

    def __init__(self, digits):
        self.images, self.labels = digits.images[:, 0], digits.labels
        turn = RandomRotation(90, interpolation=InterpolationMode.BILINEAR)
        self.transform = Compose([turn, ToTensor()])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = Image.fromarray(self.images[index].numpy())
        return self.transform(image), int(self.labels[index])


def kornia_rotate(images, degrees):
    return kornia.geometry.transform.rotate(images.float() / 255, degrees, mode="bilinear")


def kornia_batches(digits, device):
    """The same batches with kornia's rotation for ours: drawn and chosen in the same way."""
    images, labels = digits.images.to(device), digits.labels.to(device)
    generator = torch.Generator().manual_seed(SEED)

    def batch(step):
        order = torch.randint(len(labels), (BATCH,), generator=generator).to(device)
        degrees = (torch.rand(BATCH, generator=generator) * 180 - 90).to(device)
        return kornia_rotate(images[order], degrees), labels[order]

    return batch


def check_same_work(digits, device):
    """Of no use unless all turn alike: by the same angles, the same pictures."""
    generator = torch.Generator().manual_seed(SEED)
    images = digits.images[:64].to(device)
    ours = DISTORTIONS["R"](images, generator)
    draw = DISTORTIONS["R"].draw(64, torch.Generator().manual_seed(SEED))
    degrees = decompose(draw).degrees
    torch.testing.assert_close(ours, kornia_rotate(images, degrees.to(device)), rtol=0, atol=2e-3)
    for one, image, angle in zip(ours.cpu(), images.cpu(), degrees.tolist(), strict=True):
        # PIL rounds to bytes, and to 1/65536 of a pixel: near, and not to the last digit.
        turned = Image.fromarray(image[0].numpy()).rotate(angle, Image.Resampling.BILINEAR)
        theirs = torchvision.transforms.functional.to_tensor(turned)
        assert (one - theirs).abs().mean() < 0.01


def distortion_rows(digits, device, seconds):
    """Digits a second, each way's rounds in turn with the others', so that noise hits all alike."""
    check_same_work(digits, device)
    steps = 20
    batched = {
        OURS: Batches(digits, "R", batch_size=BATCH, seed=SEED, device=device),
        KORNIA: kornia_batches(digits, device),
    }
    loaders = {
        torchvision_name(workers): DataLoader(
            OneByOne(digits),
            BATCH,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        for workers in WORKERS
    }

    def make(batch):
        def run():
            for step in range(steps):
                batch(step)

        return run, steps * BATCH

    def drain(loader):
        def run():
            # To the end of the pass, so that no worker still works in another's round.
            for U, _ in loader:
                U.to(device)

        return run, len(loader) * BATCH

    runs = {name: make(batch) for name, batch in batched.items()}
    runs |= {name: drain(loader) for name, loader in loaders.items()}
    for run, _ in runs.values():
        measure(run, device)
    rates = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates[OURS]) < 5:
        for name, (run, count) in runs.items():
            rates[name].append(count / measure(run, device))
    rows = []
    for name, values in rates.items():
        ratios = [ours / value for ours, value in zip(rates[OURS], values, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "way": name,
                "images_per_second": round(statistics.median(values)),
                "ours_is_faster_by": round(ratio, 3),
                "quartiles": [round(low, 3), round(high, 3)],
                "rounds": len(values),
            }
        )
    return rows


def kept_bytes(model, U, target):
    """Bytes of all tensors that a forward pass keeps for the backward pass, each storage once."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.cross_entropy(model(U), target)
    return sum(kept.values())


def step_rows(digits, device, seconds):
    """One training step, forward, backward and SGD, of both models on the same batch."""
    U, target = Batches(digits, "R", batch_size=BATCH, seed=SEED, device=device)(0)
    runs, memory, sizes = {}, {}, {}
    for name in ("cnn", "st-cnn-affine"):
        torch.manual_seed(SEED)
        model = build(name).to(device)
        optimiser = torch.optim.SGD(model.parameters(), 0.01)

        def run(model=model, optimiser=optimiser):
            loss = F.cross_entropy(model(U), target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

        runs[name], sizes[name] = run, count_parameters(model)
        # Weights and gradients come on top, four bytes each.
        memory[name] = kept_bytes(model, U, target) + 8 * sizes[name]
        for _ in range(3):
            run()
    times = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["cnn"]) < 7:
        for name, run in runs.items():
            times[name].append(measure(run, device))
    rows = []
    for name, values in times.items():
        ratios = [value / other for value, other in zip(values, times["cnn"], strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        row = {
            "model": name,
            "parameters": sizes[name],
            "median_ms": round(1e3 * statistics.median(values), 3),
            "time_ratio": round(ratio, 3),
            "quartiles": [round(low, 3), round(high, 3)],
            "memory_mib": round(memory[name] / 2**20, 2),
            "memory_ratio": round(memory[name] / memory["cnn"], 3),
            "rounds": len(values),
        }
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            runs[name]()
            row["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=20, help="for each table")
    parser.add_argument("--digits", type=int, default=5120, help="how many to go through")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.manual_seed(SEED)
    digits = load_digits("train")
    digits = Digits(digits.images[: arguments.digits], digits.labels[: arguments.digits])
    busy = load()
    started = time.perf_counter()
    distorting = distortion_rows(digits, device, arguments.seconds)
    steps = step_rows(digits, device, arguments.seconds)
    result = {
        "command": " ".join(["python -m benchmarks.distortion", *sys.argv[1:]]),
        "commit": commit(),
        "device": f"{device.type}: {device_name(device)}",
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "kornia": kornia.__version__,
        },
        "dtype": "float32",
        "batch": BATCH,
        "digits": len(digits.labels),
        "seed": SEED,
        "load_before": busy,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "distorting": distorting,
        "steps": steps,
    }
    print(f"{result['device']}, {result['threads']} threads, float32")
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    print(f"Batches of {BATCH}, seed {SEED}; medians after warm-up, ratios with their quartiles.\n")
    print(f"{'distortion R':<36} {'images/s':>9} {'ours is faster by':>18}   quartiles")
    for row in distorting:
        low, high = row["quartiles"]
        print(
            f"{row['way']:<36} {row['images_per_second']:>9} {row['ours_is_faster_by']:>18.2f}"
            f"   {low:.2f} to {high:.2f}"
        )
    print(f"\n{'training step':<15} {'ms':>8} {'ratio':>6}   {'quartiles':<13} {'MiB':>7} ratio")
    for row in steps:
        low, high = row["quartiles"]
        print(
            f"{row['model']:<15} {row['median_ms']:>8.1f} {row['time_ratio']:>6.2f}   "
            f"{low:.2f} to {high:.2f}  {row['memory_mib']:>7.1f} {row['memory_ratio']:>5.2f}"
        )
    print("MiB: what is kept for the backward pass, weights and their gradients.")
    if busy and busy > 1:
        print(f"\nThe machine was busy before (load {busy}): not a fair measurement.")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
