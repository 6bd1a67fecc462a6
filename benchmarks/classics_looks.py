"""What chapter 15 shows of full-sized networks: a transformer put into each, and SqueezeNet's eyes.

Run it with `python -m benchmarks.classics_looks`; it writes `book/results/classics_looks.json`.

- *inserted*: torchvision's classifiers at random weights, at 224 pixels: how far the scores move
  when a transformer that knows nothing is put in, weights added, and processor time of a forward
  pass (the least of several, in turn with and without, since the machine may be busy).
- *looks*: SqueezeNet with the real weights of `STN_TUTORIAL_DATA/weights` sees a photograph
  upright, turned (its corners mirrored), and turned back by an inserted transformer whose θ is set
  by hand: its probability of the class, the occlusion map, and the deconvnet's picture of one
  channel.
"""

import base64
import io
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial import affine, data
from stn_tutorial.models import count_parameters, deconvnet, occlusion_map
from stn_tutorial.transformer import ConvolutionalLocalisation, SpatialTransformer, insert

RESULT = ROOT / "book" / "results" / "classics_looks.json"
WEIGHTS = "squeezenet1_0-songhan-deepcompression.pth"
NAMES = (
    *("alexnet", "vgg16", "googlenet", "resnet18", "resnet50", "squeezenet1_0"),
    *("convnext_tiny", "vit_b_16"),
)
DEGREES, CLASS, LAYER, SIDE, STRIDE = 60, 442, "features.10", 48, 16


def look() -> SpatialTransformer:
    """A transformer as anybody might put it in: six numbers, read from the picture at 32×32."""
    torch.manual_seed(1)
    return SpatialTransformer(ConvolutionalLocalisation(3, (64, 64))).eval()


@torch.no_grad()
def inserted(name: str) -> dict[str, Any]:
    """Neutrality, weights and time of one network."""
    torch.manual_seed(0)
    settings = {"init_weights": False} if name == "googlenet" else {}
    network = models.get_model(name, **settings).eval()
    if name == "vit_b_16":  # its last layer starts at zero, where all scores would agree
        nn.init.normal_(network.heads.head.weight, std=0.02)
    U = torch.cat([data.photograph(which, (224, 224)) for which in ("temple", "flower")])
    before, count = network(U), count_parameters(network)
    transformer = look()
    plain, warped = [], []
    for _ in range(5):
        began = time.process_time()
        network(U)
        plain.append(time.process_time() - began)
        began = time.process_time()
        transformer(U)
        warped.append(time.process_time() - began)
    insert(network, transformer)
    return {
        "network": name,
        "off": (network(U) - before).abs().max().item(),
        "largest": before.abs().max().item(),
        "parameters": count,
        "added": count_parameters(network) - count,
        "process_ms": round(1e3 * min(plain) / len(U), 2),
        "added_ms": round(1e3 * min(warped) / len(U), 2),
    }


class Normalised(nn.Module):
    """A network of torchvision's that takes pictures from 0 to 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, U: Tensor) -> Tensor:
        """Scores of 1000 classes."""
        mean, spread = U.new_tensor([0.485, 0.456, 0.406]), U.new_tensor([0.229, 0.224, 0.225])
        return self.network((U - mean[:, None, None]) / spread[:, None, None])


def png(pictures: list[Tensor]) -> str:
    """Pictures (3, H, W) from 0 to 1, side by side, as the text of a PNG."""
    row = torch.cat(pictures, dim=2).clamp(0, 1).mul(255).round().byte()
    file = io.BytesIO()
    Image.fromarray(row.permute(1, 2, 0).numpy()).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def shown(U: Tensor) -> Tensor:
    """A deconvnet's picture about grey, as strong as it can be, at half its size."""
    small = F.avg_pool2d(U, 2)[0]
    return 0.5 + 0.5 * small / small.abs().max()


def looks() -> dict[str, Any]:
    """SqueezeNet's sight of one photograph, in three positions."""
    network = models.squeezenet1_0()
    path = Path(os.environ["STN_TUTORIAL_DATA"]) / "weights" / WEIGHTS
    network.load_state_dict(torch.load(path, weights_only=True))
    network = Normalised(network).eval()
    upright = data.photograph("temple", (224, 224))
    grid = F.affine_grid(affine.rotation(DEGREES), list(upright.shape), align_corners=False)
    turned = F.grid_sample(upright, grid, padding_mode="reflection", align_corners=False)
    back = affine.rotation(-DEGREES)
    transformer = SpatialTransformer(ConvolutionalLocalisation(3), padding="border").eval()
    transformer.regression.bias.data = (back - affine.identity()).flatten()
    names = models.SqueezeNet1_0_Weights.IMAGENET1K_V1.meta["categories"]
    target = torch.tensor([CLASS])

    def strongest(answers: Tensor) -> int:
        return int(answers.amax(dim=(0, 2, 3)).argmax())

    kept: list[Tensor] = []
    layer = f"network.{LAYER}"
    network.get_submodule(layer).register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    with torch.no_grad():
        before = network(upright)
    channel = strongest(kept[-1])
    views, pictures, projected = [], [], []
    for name, U in (("upright", upright), ("turned", turned), ("turned back", turned)):
        if name == "turned back":
            insert(network, transformer)
        with torch.no_grad():
            sure = network(U).softmax(dim=1)[0]
        answer = kept[-1][0, channel].max().item()
        covered = occlusion_map(network, U, target, side=SIDE, stride=STRIDE, fill=0.45)
        views.append(
            {
                "view": name,
                "probability": round(sure[CLASS].item(), 4),
                "first": [names[sure.argmax()], round(sure.max().item(), 4)],
                "answer": round(answer, 2),
                "map": covered[0].mul(1e4).round().div(1e4).tolist(),
            }
        )
        pictures.append(F.avg_pool2d(transformer(U) if name == "turned back" else U, 2)[0].detach())
        projected.append(shown(deconvnet(network, U, layer, channel)))
    neutral = SpatialTransformer(ConvolutionalLocalisation(3)).eval()
    with torch.no_grad():
        off = (network.network((upright - 0.45) / 0.22) - network.network(
            neutral((upright - 0.45) / 0.22))).abs().max().item()  # fmt: skip
    return {
        "weights": WEIGHTS,
        "class": [CLASS, names[CLASS]],
        "degrees": DEGREES,
        "layer": LAYER,
        "channel": channel,
        "side": SIDE,
        "stride": STRIDE,
        "off": off,
        "largest": before.abs().max().item(),
        "views": views,
        "pictures": png(pictures),
        "projected": png(projected),
    }


def main() -> None:
    """Measure, and write the file."""
    torch.set_num_threads(1)
    content = {
        "command": "python -m benchmarks.classics_looks",
        "commit": commit(),
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "looks": looks(),
        "inserted": [inserted(name) for name in NAMES],
    }
    RESULT.write_text(json.dumps(content, ensure_ascii=False) + "\n")
    for row in content["inserted"]:
        print(row)


if __name__ == "__main__":
    main()
