"""R-CNN, Fast and Faster R-CNN of chapter 16, each trained for its own use: precision and time.

    python -m benchmarks.detector --seeds 0 1

trains on scenes of MNIST's digits, judges on scenes of held-out ones, and writes
`book/results/detector.json` after each network; what is there already is not trained again. Two
controls are judged on the Faster one: boxes of the same number drawn at random instead of the
proposals, and each picture's boxes read from another picture's features.
"""

import argparse
import json
import platform
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial.data import digit_scenes, hold_out, load_digits
from stn_tutorial.models import WAYS, Detector, average_precision, count_parameters

RESULT = ROOT / "book" / "results" / "detector.json"
SCENES, JUDGED, BATCH, STEPS, RATE, PROPOSED = 3000, 200, 16, 500, 3e-3, 20


def trained(way, seed, scenes):
    torch.manual_seed(seed)
    net = Detector()
    optimiser = torch.optim.AdamW(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        some = torch.randint(len(scenes.images), (BATCH,)).tolist()
        loss = net.loss(
            scenes.images[some], [scenes.boxes[k] for k in some],
            [scenes.labels[k] for k in some], way,
        )  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimiser.step()
        schedule.step()
    return net.eval()


def judged(net, way, scenes, **options):
    start = time.process_time()
    found = []
    for images in scenes.images.split(20):
        found += net.detect(images, way, **options)
    seconds = time.process_time() - start
    precision = average_precision(found, scenes.boxes, scenes.labels)
    return round(precision, 4), round(seconds / len(scenes.images), 6)


def controls(net, scenes):
    """Average precision with boxes at random, and with another picture's features."""
    g = torch.Generator().manual_seed(0)
    anchors = net.grid(scenes.images.shape[2:])
    random, other = [], []
    with torch.no_grad():
        for images in scenes.images.split(20):
            drawn = [anchors[torch.randperm(len(anchors), generator=g)[:PROPOSED]] for _ in images]
            random += net.detect(images, boxes=drawn)
            features = net.convolutions(images)
            boxes = net.propose(features, images.shape[2:], PROPOSED)
            said = net.describe(net.read(features.roll(1, 0), boxes))
            other += net.sift(boxes, *said)
    return {
        name: round(average_precision(found, scenes.boxes, scenes.labels), 4)
        for name, found in (("random_boxes", random), ("another_picture", other))
    }


def multiplications(net, way, image):
    with FlopCounterMode(display=False) as counter:
        net.detect(image, way, PROPOSED)
    return counter.get_total_flops() // 2


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, held = hold_out(load_digits("train", "mnist"))
    scenes, test = digit_scenes(train, SCENES, seed=1), digit_scenes(held, JUDGED, seed=2)
    found = {"rows": []}
    if RESULT.is_file():
        found = json.loads(RESULT.read_text(encoding="utf-8"))
    for seed in options.seeds:
        for way in reversed(WAYS):
            key = {"way": way, "seed": seed, "steps": STEPS}
            if any(key.items() <= row.items() for row in found["rows"]):
                continue
            start = time.process_time()
            net = trained(way, seed, scenes)
            row = key | {"training_seconds": round(time.process_time() - start, 1)}
            row["average_precision"], row["seconds_a_picture"] = judged(net, way, test)
            row["multiplications"] = multiplications(net, way, test.images[:1])
            row["boxes"] = PROPOSED if way == "faster" else len(net.grid((64, 64)))
            row["parameters"] = count_parameters(net)
            if way == "faster":
                row["controls"] = controls(net, test)
            print(row, flush=True)
            found["rows"].append(row | {"commit": commit()})
            found |= {
                "train_scenes": SCENES,
                "judged_scenes": JUDGED,
                "batch": BATCH,
                "rate": RATE,
                "dataset": "mnist",
                "clock": "processor seconds, the machine not idle",
                "command": "python -m benchmarks.detector",
                "commit": commit(),
                "device": device_name(torch.device("cpu")),
                "threads": 1,
                "versions": {"python": platform.python_version(), "torch": torch.__version__},
            }
            text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
            RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
