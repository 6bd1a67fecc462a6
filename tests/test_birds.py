"""Birds: the drawn ones, the part of CUB, the archive, weights, and the readers."""

import csv
import hashlib
import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from test_house_numbers import Server
from torch import nn
from torch.nn import functional as F
from torchvision import models as zoo
from typer.testing import CliRunner

from stn_tutorial import cli, data, training
from stn_tutorial._facts import CERTAINTY
from stn_tutorial.data import BODY, DRAWN_BIRDS, HEAD, PARTS, Birds, DrawnBirds, cub
from stn_tutorial.data.birds import LIST, POINTS
from stn_tutorial.models import BIRD_FACTS, BirdReader, Describer, MapLocalisation, backbone
from stn_tutorial.transformer import ConvolutionalLocalisation, tiling


class TestDrawn:
    def test_a_batch_depends_on_seed_and_step_alone(self):
        first, again = DrawnBirds(batch_size=5, seed=3), DrawnBirds(batch_size=5, seed=3)
        first(0)
        for one, other in zip(first(4), again(4), strict=True):
            assert torch.equal(one, other)
        for one, other in zip(first.truth(4), again.truth(4), strict=True):
            assert torch.equal(one, other)
        assert not torch.equal(first(4)[0], first(5)[0])
        assert not torch.equal(first(4)[0], DrawnBirds(batch_size=5, seed=4)(4)[0])
        assert not torch.equal(first(4)[0], DrawnBirds("test", batch_size=5, seed=3)(4)[0])

    def test_form(self):
        U, target = DrawnBirds(batch_size=450)(0)
        assert U.shape == (450, 3, 64, 64)
        assert U.dtype == torch.float32
        assert (U.min(), U.max()) >= (0, 0.9)
        assert U.max() <= 1
        assert (target.bincount(minlength=4) > 80).all()
        assert len(DRAWN_BIRDS) == 4

    def test_other_sizes(self):
        assert DrawnBirds(batch_size=2, size=(32, 48))(0)[0].shape == (2, 3, 32, 48)

    def test_parts_lie_in_the_box_and_only_one_eye_is_seen(self):
        boxes, parts, visible = DrawnBirds(batch_size=300).truth(0)
        inside = (parts >= boxes[:, None, :2] - 1e-5) & (parts <= boxes[:, None, 2:] + 1e-5)
        assert inside.all(dim=-1)[visible].all()
        assert (parts[~visible] == 0).all()
        for what in ("eye", "leg", "wing"):
            both = visible[:, [PARTS.index(f"{side} {what}") for side in ("left", "right")]]
            assert (both.sum(dim=1) <= 1).all()
        assert visible[:, PARTS.index("beak")].float().mean() > 0.8

    def test_the_eye_is_dark_where_the_truth_says(self):
        """A judge that knows nothing of the drawing: the picture, read at that place."""
        birds = DrawnBirds(batch_size=200, size=(128, 128))
        U, _ = birds(0)
        _, parts, visible = birds.truth(0)
        for side in ("left", "right"):
            k = PARTS.index(f"{side} eye")
            seen = visible[:, k]
            at = parts[seen, k][:, None, None]
            read = F.grid_sample(U[seen], at, align_corners=False).mean(dim=(1, 2, 3))
            around = U[seen].mean(dim=(1, 2, 3))
            assert (read < around).float().mean() > 0.95
            assert read.median() < 0.15

    def test_a_bird_that_faces_left_shows_its_left_eye_left_of_its_tail(self):
        _, parts, visible = DrawnBirds(batch_size=200).truth(0)
        tail = PARTS.index("tail")
        for side, sign in (("left", 1), ("right", -1)):
            eye = PARTS.index(f"{side} eye")
            both = visible[:, eye] & visible[:, tail]
            assert both.sum() > 30
            assert (sign * (parts[both, tail, 0] - parts[both, eye, 0]) > 0).all()

    def test_classes_differ_at_the_beak_and_on_the_wing_alone(self):
        """The same draws, painted as another class: what changes lies near those two places."""
        birds = DrawnBirds(batch_size=60, size=(96, 96))
        g, theta, _, target = birds._drawn(0)
        draws = torch.rand(60, 32, generator=g)
        _, parts, visible = birds.truth(0)
        zero = torch.zeros_like(target)
        same = birds._painted(theta, zero, draws)
        y = torch.arange(96).add(0.5).div(48).sub(1)
        at = torch.stack(torch.meshgrid(y, y, indexing="xy"), dim=-1)
        for other, names in ((2, ["beak"]), (1, ["left wing", "right wing"])):
            changed = (birds._painted(theta, zero + other, draws) - same).abs().amax(dim=1) > 1e-6
            middle, there = data.part_middle(
                Birds(same, target, theta, parts, visible, DRAWN_BIRDS), names
            )
            off = (at - middle[:, None, None]).norm(dim=-1)
            assert changed[there].flatten(1).any(dim=1).float().mean() > 0.9
            assert off[there][changed[there]].max() < 0.3

    def test_bad_input(self):
        with pytest.raises(ValueError, match="split must be one of train, test"):
            DrawnBirds("extra")
        with pytest.raises(ValueError, match="step must be a whole number, 0 or more"):
            DrawnBirds()(-1)
        with pytest.raises(ValueError, match="batch_size"):
            DrawnBirds(batch_size=0)


def jpeg(size, colour=(10, 200, 30)):
    memory = io.BytesIO()
    Image.new("RGB", size, colour).save(memory, "jpeg")
    return memory.getvalue()


def write_part(folder, count=4):
    """A part of CUB in the form of the real one: pictures 40 wide and 20 high."""
    (folder / "CUB" / "images" / "a").mkdir(parents=True)
    rows, points = [], []
    for k in range(1, count + 1):
        (folder / "CUB" / "images" / "a" / f"{k}.jpg").write_bytes(jpeg((40, 20)))
        values = (k, f"a/{k}.jpg", (k - 1) % 2, f"Kind_{(k - 1) % 2}", k % 3 != 0, 40, 20,
                  10, 5, 20, 10)  # fmt: skip
        rows.append(dict(zip(LIST, values, strict=True)) | {"is_train": int(k % 3 != 0)})
        point = dict.fromkeys(POINTS, 0) | {"image_id": k}
        points.append(point | {"beak_x": 30, "beak_y": 15, "beak_visible": 1, "crown_x": 10,
                               "crown_y": 5, "crown_visible": 1})  # fmt: skip
    for name, columns, table in (("cub50.csv", LIST, rows), ("parts.csv", POINTS, points)):
        with (folder / "CUB" / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(table)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
    return tmp_path


class TestLoad:
    def test_the_part(self, folder, capsys):
        write_part(folder)
        birds = data.load_birds("train", "cub-part", (16, 24))
        assert birds.images.shape == (3, 3, 16, 24)
        assert birds.images.dtype == torch.uint8
        assert birds.labels.tolist() == [0, 1, 1]
        assert birds.names == ("Kind 0", "Kind 1")
        assert birds.boxes[0].tolist() == [-0.5, -0.5, 0.5, 0.5]
        beak, crown = (PARTS.index(name) for name in ("beak", "crown"))
        assert birds.parts[0, beak].tolist() == [0.5, 0.5]
        assert birds.visible.sum(dim=1).tolist() == [2, 2, 2]
        assert birds.parts[0, crown].tolist() == [-0.5, -0.5]
        colour = birds.images[0].float().mean(dim=(1, 2))
        torch.testing.assert_close(colour, torch.tensor([10.0, 200, 30]), atol=4, rtol=0)
        assert "CUB-200-2011, a part, train: 3 birds of 2 classes" in capsys.readouterr().out
        middle, there = data.part_middle(birds, HEAD)
        assert middle.abs().max() == 0
        assert there.all()
        assert not data.part_middle(birds, BODY)[1].any()
        assert len(data.load_birds("test", "cub-part", (8, 8)).labels) == 1
        assert data.load_birds("train", "cub-part", (8, 8), classes=[1]).labels.tolist() == [1, 1]

    def test_the_stand_in_says_so(self, capsys):
        birds = data.load_birds("test", "drawn", (32, 32))
        assert birds.images.shape == (500, 3, 32, 32)
        assert birds.names == DRAWN_BIRDS
        assert "Drawn birds, a stand-in" in capsys.readouterr().out
        few = data.load_birds("test", "drawn", (32, 32), classes=[0, 3])
        assert set(few.labels.tolist()) == {0, 3}
        assert len(few.parts) == len(few.labels)

    def test_what_is_missing(self, folder):
        with pytest.raises(RuntimeError, match=r"STN_TUTORIAL_DATA.*data cub.*'drawn'"):
            data.load_birds("train", "cub-part")
        with pytest.raises(RuntimeError, match=r"stn-tutorial data cub.*1\.15 GB"):
            data.load_birds("train", "cub")
        with pytest.raises(ValueError, match="source must be one of cub, cub-part, drawn"):
            data.load_birds("train", "birds")

    @pytest.mark.parametrize(
        ("name", "old", "new", "message"),
        [
            ("cub50.csv", "bbox_w", "wide", "must have columns bbox_w"),
            ("cub50.csv", "a/1.jpg", "a/9.jpg", r"9\.jpg cannot be read"),
            ("cub50.csv", "\r\n1,", "\r\n7,", "says nothing of picture 7"),
            ("cub50.csv", ",40,20,", ",0,20,", "a side or a box of 0 pixels"),
            ("cub50.csv", ",40,20,", ",many,20,", "width of picture 1 must be a number"),
            ("cub50.csv", "a/2.jpg,1,", "a/2.jpg,5,", "without a gap"),
            ("parts.csv", ",30,15,1", ",there,15,1", "beak_x of picture 1 must be a number"),
            ("parts.csv", "throat_x", "x", "must have columns throat_x"),
        ],
    )
    def test_what_is_wrong_in_a_table(self, folder, name, old, new, message):
        write_part(folder)
        path = folder / "CUB" / name
        text = path.read_bytes().decode()
        assert old in text
        path.write_bytes(text.replace(old, new).encode())
        with pytest.raises(ValueError, match=message):
            data.load_birds("train", "cub-part", (8, 8))

    def test_a_damaged_picture(self, folder):
        write_part(folder)
        (folder / "CUB" / "images" / "a" / "1.jpg").write_bytes(b"no picture")
        with pytest.raises(ValueError, match=r"1\.jpg cannot be read"):
            data.load_birds("train", "cub-part", (8, 8))

    def test_middle_of_what(self):
        birds = data.load_birds("test", "drawn", (8, 8))
        with pytest.raises(ValueError, match="part must be one of back, beak"):
            data.part_middle(birds, ["nose"])
        with pytest.raises(ValueError, match="none was given"):
            data.part_middle(birds, [])


def whole_archive(lists=None, pictures=(1, 2)):
    """A small CUB_200_2011.tgz: two pictures of 600×300 pixels."""
    files = {
        "classes.txt": "1 001.Kind_one\n2 002.Kind_two\n",
        "images.txt": "1 001.Kind_one/a.jpg\n2 002.Kind_two/b.jpg\n",
        "image_class_labels.txt": "1 1\n2 2\n",
        "train_test_split.txt": "1 1\n2 0\n",
        "bounding_boxes.txt": "1 60.0 30.0 300.0 150.0\n2 0.0 0.0 600.0 300.0\n",
        "parts/part_locs.txt": "".join(
            f"{k} {part} {300.0 if part == 2 else 0.0} 75.0 {int(part == 2)}\n"
            for k in (1, 2) for part in range(1, 16)
        ),
    } | (lists or {})  # fmt: skip
    files = {name: text.encode() for name, text in files.items() if text is not None}
    for k, name in ((1, "001.Kind_one/a.jpg"), (2, "002.Kind_two/b.jpg")):
        if k in pictures:
            files[f"images/{name}"] = jpeg((600, 300))
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"CUB_200_2011/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return memory.getvalue()


def expected_of(content, birds=2):
    return cub.CubArchive(len(content), hashlib.sha256(content).hexdigest(), birds)


@pytest.fixture
def server():
    one = Server(whole_archive())
    yield one
    one.shutdown()
    one.server_close()


class TestArchive:
    def test_prepared_and_read(self, folder, tmp_path):
        path = tmp_path / "some.tgz"
        path.write_bytes(whole_archive())
        done = []
        assert cub.prepare(path, birds=2, on_bird=done.append) == 2
        assert done == [1, 2]
        assert cub.is_prepared()
        birds = data.load_birds("train", "cub", (32, 64))
        assert birds.names == ("Kind one", "Kind two")
        assert birds.labels.tolist() == [0]
        torch.testing.assert_close(birds.boxes, torch.tensor([[-0.8, -0.8, 0.2, 0.2]]))
        torch.testing.assert_close(birds.parts[0, 1], torch.tensor([0.0, -0.5]))
        assert birds.visible[0].nonzero().flatten().tolist() == [1]
        with Image.open(folder / "CUB" / "whole" / "images" / "001.Kind_one" / "a.jpg") as one:
            assert one.size == (512, 256)
        assert sorted(p.name for p in (folder / "CUB" / "whole").iterdir()) == [
            ".lock", "birds.csv", "images", "parts.csv",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("lists", "pictures", "message"),
        [
            ({"bounding_boxes.txt": None}, (1, 2), "bounding_boxes.txt is not in it"),
            ({"images.txt": "1 001.Kind_one/a.jpg\n"}, (1, 2), "must hold 2 birds, but has 1"),
            ({"classes.txt": "1\n"}, (1, 2), "2 fields a line"),
            ({"image_class_labels.txt": "1 1\n"}, (1, 2), "says too little of picture '2'"),
            ({}, (1,), "b.jpg of the archive cannot be read"),
        ],
    )
    def test_an_archive_that_lacks_something(self, folder, tmp_path, lists, pictures, message):
        path = tmp_path / "some.tgz"
        path.write_bytes(whole_archive(lists, pictures))
        with pytest.raises(ValueError, match=message):
            cub.prepare(path, birds=2)
        assert not cub.is_prepared()
        assert not (folder / "CUB" / "whole" / ".making").exists()

    def test_no_archive_at_all(self, folder, tmp_path):
        (tmp_path / "some.tgz").write_bytes(b"nothing")
        with pytest.raises(ValueError, match="cannot be unpacked"):
            cub.prepare(tmp_path / "some.tgz", birds=2)

    def test_command(self, server, folder, monkeypatch):
        monkeypatch.setattr(cub, "HOME", server.home)
        monkeypatch.setattr(cub, "CUB", expected_of(server.content))
        server.cut = 300
        result = CliRunner().invoke(cli.app, ["data", "cub"])
        assert result.exit_code == 2
        assert "goes on from there" in result.output
        server.cut = None
        result = CliRunner().invoke(cli.app, ["data", "cub"])
        assert result.exit_code == 0, result.output
        assert "cite the report" in result.output
        assert "2 birds, shrunk" in result.output
        assert server.asked[-1] == ("/CUB_200_2011.tgz", "bytes=300-")
        assert "prepared before" in CliRunner().invoke(cli.app, ["data", "cub"]).output

    def test_a_wrong_file(self, server, tmp_path):
        wrong = expected_of(bytes(reversed(server.content)))
        with pytest.raises(ValueError, match="is not CUB-200-2011's archive"):
            cub.fetch(tmp_path, home=server.home, archive=wrong)


class TestWeights:
    def test_found_by_name_and_checked_by_it(self, folder):
        (folder / "weights").mkdir()
        content = b"weights"
        digest = hashlib.sha256(content).hexdigest()
        path = folder / "weights" / f"alexnet-{digest[:8]}.pth"
        path.write_bytes(content)
        assert data.weights_file("alexnet") == path
        path.write_bytes(content + b"!")
        with pytest.raises(ValueError, match=f"must begin with {digest[:8]}, but begins with"):
            data.weights_file("alexnet")

    def test_missing_and_without_a_hash(self, folder):
        with pytest.raises(RuntimeError, match=r"one file of the weights of vgg11.*there are 0"):
            data.weights_file("vgg11")
        (folder / "weights").mkdir()
        (folder / "weights" / "vgg11-mine.pth").write_bytes(b"")
        with pytest.raises(ValueError, match="bears no hash in its name"):
            data.weights_file("vgg11")


class TestBackbone:
    def test_a_file_of_weights(self, tmp_path, capsys):
        torch.manual_seed(0)
        net = zoo.squeezenet1_1(weights=None)
        path = tmp_path / "own.pth"
        torch.save(net.state_dict(), path)
        found = backbone("squeezenet1_1", path)
        U = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(found(U), net.eval()(U))
        assert not found.training
        assert "squeezenet1_1, weights own.pth" in capsys.readouterr().out

    def test_what_is_wrong_with_a_file(self, tmp_path):
        with pytest.raises(RuntimeError, match=r"are not there.*weights='imagenet'"):
            backbone("squeezenet1_1", tmp_path / "none.pth")
        (tmp_path / "a.pth").write_bytes(b"nothing")
        with pytest.raises(ValueError, match="is damaged, or holds more than weights"):
            backbone("squeezenet1_1", tmp_path / "a.pth")
        torch.save({"layer": torch.zeros(1)}, tmp_path / "b.pth")
        with pytest.raises(ValueError, match="does not hold the weights of squeezenet1_1"):
            backbone("squeezenet1_1", tmp_path / "b.pth")

    def test_a_name_that_is_none_suggests_the_nearest(self):
        with pytest.raises(ValueError, match=r"'resnet5' was given \(near it: resnet50"):
            backbone("resnet5", None)

    def test_no_network(self, monkeypatch, tmp_path):
        def refuse(*_, **__):
            raise OSError("unreachable")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
        with pytest.raises(RuntimeError, match=r"squeezenet1_1 could not be fetched.*unreachable"):
            backbone("squeezenet1_1")


class TestDescriber:
    @pytest.mark.parametrize(
        ("name", "features"),
        [("squeezenet1_0", 512), ("resnet18", 512), ("googlenet", 1024), ("densenet121", 1024),
         ("mobilenet_v3_small", 1024), ("shufflenet_v2_x0_5", 1024), ("convnext_tiny", 768),
         ("efficientnet_b0", 1280), ("regnet_y_400mf", 440)],
    )  # fmt: skip
    def test_any_classifier_without_its_last_layer(self, name, features):
        torch.manual_seed(0)
        net = backbone(name, None)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        describe = Describer(net, (64, 64))
        assert describe.features == features
        made = describe(torch.rand(2, 3, 64, 64))
        assert made.shape == (2, features)
        assert not made.requires_grad
        assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())

    def test_it_is_what_the_last_layer_reads(self):
        torch.manual_seed(0)
        net = zoo.resnet18(weights=None).eval()
        seen = []
        net.fc.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        U = torch.rand(2, 3, 64, 64)
        mean, spread = (torch.tensor(x)[:, None, None] for x in
                        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
        net((U - mean) / spread)
        torch.testing.assert_close(Describer(net, (64, 64))(U), seen[0])

    def test_frozen_or_not(self):
        describe = Describer(zoo.resnet18(weights=None), (64, 64)).train()
        assert not any(p.requires_grad for p in describe.parameters())
        assert not any(module.training for module in describe.net.modules())
        free = Describer(zoo.resnet18(weights=None), (64, 64), frozen=False)
        assert all(p.requires_grad for p in free.parameters())
        assert free.net.training
        assert free.eval().net.training is False

    def test_a_gradient_goes_through_to_the_picture(self):
        U = torch.rand(1, 3, 64, 64, requires_grad=True)
        Describer(zoo.resnet18(weights=None), (64, 64))(U).sum().backward()
        assert U.grad.abs().max() > 0

    def test_pictures_that_it_cannot_read(self):
        with pytest.raises(ValueError, match=r"AlexNet cannot read pictures of \(16, 16\)"):
            Describer(zoo.alexnet(weights=None), (16, 16))
        with pytest.raises(ValueError, match=r"cannot read pictures of \(112, 112\).*height"):
            Describer(zoo.VisionTransformer(224, 32, 1, 2, 8, 8), (112, 112))
        with pytest.raises(ValueError, match=r"U must have shape \(N, C, H, W\)"):
            Describer(zoo.resnet18(weights=None), (64, 64))(torch.rand(3, 64, 64))

    def test_a_network_without_a_last_layer(self):
        with pytest.raises(ValueError, match="must have a linear layer or a convolution of its"):
            Describer(nn.Sequential(nn.AvgPool2d(2), nn.Flatten()), (8, 8))


class Small(nn.Sequential):
    """A describer of few weights."""

    features = 8

    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())


def reader(**settings):
    torch.manual_seed(0)
    settings = {"size": (16, 16)} | settings
    return BirdReader(Small(), ConvolutionalLocalisation(3, (32, 32)), 5, **settings)


class TestReader:
    def test_facts_are_marked(self):
        assert all(fact.mark in CERTAINTY for fact in BIRD_FACTS)

    @pytest.mark.parametrize("windows", [1, 2, 4])
    def test_starts_as_tiles(self, windows):
        scores, theta = reader(windows=windows)(torch.rand(3, 3, 32, 32), return_theta=True)
        assert scores.shape == (3, 5)
        torch.testing.assert_close(theta, tiling(windows, 0.5).expand(3, windows, 2, 3))

    def test_only_the_place_is_chosen(self):
        net = reader(scale=0.4, size=(8, 8))
        nn.init.normal_(net.look.transformers[0].regression.weight)
        nn.init.normal_(net.look.transformers[1].regression.weight)
        _, theta = net(torch.rand(6, 3, 32, 32), return_theta=True)
        torch.testing.assert_close(theta[..., :2], 0.4 * torch.eye(2).expand(6, 2, 2, 2))
        assert theta[..., 2].std(dim=0).min() > 0.01

    def test_descriptors_side_by_side_as_streams_say(self):
        net, U = reader().eval(), torch.rand(2, 3, 32, 32)
        halves = [U[:, :, 8:24, :16], U[:, :, 8:24, 16:]]  # the tiles, to the pixel
        by_hand = torch.cat([s(h) for s, h in zip(net.streams, halves, strict=True)], dim=1)
        torch.testing.assert_close(net(U), net.classify(by_hand))

    def test_streams_shared_or_each_its_own(self):
        assert len({id(s) for s in reader(share=True).streams}) == 1
        own = reader().streams
        assert own[0] is not own[1]
        torch.testing.assert_close(own[0][0].weight, own[1][0].weight)

    def test_a_gradient_reaches_the_localisation_net(self):
        net = reader()
        F.cross_entropy(net(torch.rand(4, 3, 32, 32)), torch.arange(4)).backward()
        for look in net.look.transformers:
            assert look.regression.bias.grad.abs().max() > 0

    def test_its_rate_is_the_localisation_nets(self):
        recipe = training.Recipe(steps=1, localisation_rate=1e-4)
        groups = training.recipe.make_optimiser(reader(), recipe).param_groups
        sizes = {g["factor"]: sum(p.numel() for p in g["params"]) for g in groups}
        look = sum(p.numel() for p in reader().look.parameters())
        assert sizes[1e-4] == look

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"large enough for windows of \(16, 16\) pixels"):
            reader()(torch.rand(2, 3, 30, 32))
        with pytest.raises(TypeError, match="an attribute `features`"):
            BirdReader(nn.Flatten(), ConvolutionalLocalisation(3), 5)
        with pytest.raises(ValueError, match="classes must be"):
            BirdReader(Small(), ConvolutionalLocalisation(3), 0)
        with pytest.raises(ValueError, match=r"U must have shape"):
            reader()(torch.rand(3, 32, 32))

    def test_localisation_on_maps(self):
        net = MapLocalisation(6, (3, 4), features=7)
        assert net(torch.rand(2, 6, 3, 4)).shape == (2, net.features) == (2, 7)

    def test_a_window_moves_to_what_the_loss_asks_for(self):
        """A bright blob in the right tile's corner: windows that are paid for light find it."""
        y = torch.linspace(-1, 1, 32)
        blob = (-4 * ((y[:, None] + 0.4).square() + (y - 0.3).square())).exp()
        U = blob.expand(2, 3, 32, 32)
        net = reader()
        optimiser = torch.optim.SGD(net.look.parameters(), 0.5)
        start = net(U, return_theta=True)[1][..., 2]
        for _ in range(60):
            loss = -net.look(U).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        end = net(U, return_theta=True)[1][..., 2]
        at = torch.tensor([0.3, -0.4])
        assert ((end - at).norm(dim=-1) < 0.5 * (start - at).norm(dim=-1)).all()


def test_numpy_reads_the_same_picture(folder):
    """Pixel by pixel as PIL and numpy have it, where nothing is resized."""
    write_part(folder, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "CUB" / "images" / "a" / "1.jpg", "png")
    birds = data.load_birds("train", "cub-part", (20, 40))
    assert np.array_equal(birds.images[0].permute(1, 2, 0).numpy(), pixels)
