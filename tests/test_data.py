"""Pictures, digits and their distortions. Nothing here reaches for the network."""

import gzip
import hashlib
import http.server
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from stn_tutorial import data
from stn_tutorial._facts import CERTAINTY, assumptions
from stn_tutorial.affine import decompose
from stn_tutorial.grids import control_points, normalised_to_pixel

RAW = Path("MNIST") / "raw"
LOCAL = os.environ.get("STN_TUTORIAL_DATA")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Fetching goes to a port of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [closed])


@pytest.fixture(scope="module")
def mnist_folder(tmp_path_factory):
    """A copy of MNIST, for torchvision unpacks beside the archives.

    Where `STN_TUTORIAL_DATA` is set, these tests run or fail; they are skipped only where it is
    not.
    """
    if not LOCAL:
        pytest.skip("STN_TUTORIAL_DATA is not set")
    source = Path(LOCAL).expanduser() / RAW
    assert source.is_dir(), f"STN_TUTORIAL_DATA is set, but there is no {RAW} in it"
    folder = tmp_path_factory.mktemp("data")
    (folder / RAW).mkdir(parents=True)
    for name in data.digits.MNIST_SHA256:
        for path in (source / name, source / f"{name}.gz"):
            if path.exists():
                shutil.copyfile(path, folder / RAW / path.name)
    return folder


def ink(picture):
    """The rows and columns, first and last, that are not black."""
    rows, columns = picture.nonzero()[:, -2:].unbind(1)
    return rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item()


# --- Pictures ---


@pytest.mark.parametrize("name", ["temple", "flower"])
@pytest.mark.parametrize("size", [(192, 192), (1, 1), (27, 33), (64, 200), (427, 640), (1, 640)])
def test_photograph(name, size):
    picture = data.photograph(name, size)
    assert picture.shape == (1, 3, *size)
    assert picture.dtype == torch.float32
    assert 0 <= picture.min() <= picture.max() <= 1
    if min(size) > 20:
        assert picture.std() > 0.1
    assert torch.equal(picture, data.photograph(name, size))


def test_photograph_at_full_size_is_the_file():
    whole = torch.from_numpy(np.array(sklearn.datasets.load_sample_image("china.jpg")))
    theirs = whole.permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(data.photograph("temple", (427, 640)), theirs, rtol=0, atol=1e-6)


def test_photograph_says_what_is_wrong():
    with pytest.raises(
        ValueError, match=r"name must be one of temple, flower, but 'cat' was given"
    ):
        data.photograph("cat")
    with pytest.raises(ValueError, match=r"size must be at most \(427, 640\), but \(428, 10\) was"):
        data.photograph("temple", (428, 10))
    with pytest.raises(ValueError, match=r"size must be \(height, width\).*but 64 was given"):
        data.photograph("temple", 64)


@pytest.mark.parametrize("size", [(64, 64), (28, 28), (27, 33), (40, 10), (1, 1)])
def test_letter_f(size):
    letter = data.letter_f(size)
    assert letter.shape == (1, 1, *size)
    assert letter.dtype == torch.float32
    assert 0 <= letter.min() <= letter.max() <= 1
    if min(size) < 20:
        return
    # It differs from each of its turns and flips, and stands upright: the stem is on the left.
    others = [letter.flip(3), letter.flip(2), letter.flip(2, 3)]
    if size[0] == size[1]:
        others += [torch.rot90(letter, k, (2, 3)) for k in (1, 3)]
        others += [letter.transpose(2, 3)]
    assert all((letter - other).abs().mean() > 0.05 for other in others)
    top, bottom, left, right = ink(letter)
    middle = (left + right) // 2
    assert letter[..., :middle].sum() > letter[..., middle + 1 :].sum()
    assert letter[..., : size[0] // 2, :].sum() > letter[..., size[0] // 2 :, :].sum()
    assert abs(top + bottom - (size[0] - 1)) <= 2


def test_letter_f_covers_its_area():
    """Of the half side's square units: stem 0.25·1.3, arms 0.6·0.25 and 0.45·0.25."""
    letter = data.letter_f((160, 160))
    assert letter.sum().item() / 80**2 == pytest.approx(0.5875, abs=0.01)
    with pytest.raises(ValueError, match=r"size must be \(height, width\).*but 28 was given"):
        data.letter_f(28)


# --- The embedded digits ---


def test_embedded_digits():
    train, test = data.embedded_digits(), data.embedded_digits("test")
    assert len(train.images) == len(train.labels) == 1437
    assert len(test.images) == len(test.labels) == 360
    for part in (train, test):
        assert part.images.shape[1:] == (1, 28, 28)
        assert part.images.dtype == torch.uint8
        assert part.labels.dtype == torch.int64
        assert part.labels.unique().tolist() == list(range(10))
        assert part.images.amax((1, 2, 3)).min() > 150
        # In the 20×20 in the middle, but for what a cubic spreads over its edges.
        inside = part.images[:, :, 4:24, 4:24].sum()
        assert 0.93 < inside / part.images.sum() <= 1
        top, bottom, left, right = ink(part.images)
        assert 1 <= min(top, left) < max(bottom, right) <= 26
    labels = torch.cat([train.labels, test.labels])
    assert torch.equal(labels, torch.from_numpy(sklearn.datasets.load_digits().target))


def test_embedded_digits_share_no_picture():
    train, test = data.embedded_digits(), data.embedded_digits("test")
    pictures = torch.cat([train.images, test.images]).flatten(1)
    assert len(pictures.unique(dim=0)) == 1797


def test_embedded_digits_are_the_same_pictures():
    """Shrunk again to 8×8 cells, each is close to what it was made of."""
    source = torch.from_numpy(sklearn.datasets.load_digits().images[:1437]) / 16
    middle = data.embedded_digits().images[:, :, 4:24, 4:24].double() / 255
    small = torch.nn.functional.adaptive_avg_pool2d(middle, 8)[:, 0]
    correlation = torch.corrcoef(torch.stack([small.flatten(), source.flatten()]))[0, 1]
    assert correlation > 0.97


@pytest.mark.parametrize("read", [data.embedded_digits, data.mnist])
def test_splits(read):
    with pytest.raises(
        ValueError, match=r"split must be one of train, test, but 'valid' was given"
    ):
        read("valid")


# --- MNIST ---


def test_mnist(mnist_folder, monkeypatch):
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(mnist_folder))
    for split, count, first in (("train", 60_000, [5, 0, 4]), ("test", 10_000, [7, 2, 1])):
        digits = data.mnist(split)
        assert digits.images.shape == (count, 1, 28, 28)
        assert digits.images.dtype == torch.uint8
        assert digits.labels.shape == (count,)
        assert digits.labels.dtype == torch.int64
        assert digits.labels[:3].tolist() == first
        assert digits.labels.unique().tolist() == list(range(10))
        assert digits.images.max() == 255


def test_mnist_damaged_after_it_was_unpacked(mnist_folder, monkeypatch, tmp_path):
    shutil.copytree(mnist_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
    data.mnist("test")
    labels = tmp_path / RAW / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] ^= 1
    labels.write_bytes(content)
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte is damaged \(10008 bytes"):
        data.mnist("test")
    labels.unlink()  # the advice of that message
    data.mnist("test")


@pytest.mark.parametrize("name", data.digits.MNIST_SHA256)
@pytest.mark.parametrize("content", [b"", b"\0\0\x08\x01"])
def test_truncated_file_is_named(name, content, monkeypatch, tmp_path):
    (tmp_path / RAW).mkdir(parents=True)
    (tmp_path / RAW / name).write_bytes(content)
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=rf"{name} is damaged \({len(content)} bytes.*Delete it"):
        data.mnist()


def test_absent_and_unreachable_names_both_ways_out(monkeypatch, tmp_path):
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
    monkeypatch.delenv("STN_TUTORIAL_DATASET", raising=False)
    for read in (data.mnist, data.load_digits):
        with pytest.raises(RuntimeError) as caught:
            read()
        message = str(caught.value)
        assert str(tmp_path) in message
        assert "STN_TUTORIAL_DATA to a folder" in message
        assert "STN_TUTORIAL_DATASET=digits" in message


def test_a_damaged_archive_is_fetched_again_and_not_believed(monkeypatch, tmp_path):
    (tmp_path / RAW).mkdir(parents=True)
    (tmp_path / RAW / "train-images-idx3-ubyte.gz").write_bytes(b"not MNIST")
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
    with pytest.raises(RuntimeError, match="could not be fetched"):
        data.mnist()


def test_a_folder_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path / "file"))
    with pytest.raises(RuntimeError, match=r"could not be fetched .*Either set STN_TUTORIAL_DATA"):
        data.mnist()


# A stand-in for MNIST's archives: as small as its format allows, so that it can be fetched often.
LOOK_ALIKE = {
    "train-images-idx3-ubyte": (2051, 6, 28, 28),
    "train-labels-idx1-ubyte": (2049, 6),
    "t10k-images-idx3-ubyte": (2051, 3, 28, 28),
    "t10k-labels-idx1-ubyte": (2049, 3),
}


@pytest.fixture(scope="module")
def archives():
    """Content of the look-alike's files, and of their archives."""
    files, zipped = {}, {}
    for name, (magic, *shape) in LOOK_ALIKE.items():
        head = b"".join(number.to_bytes(4, "big") for number in (magic, *shape))
        files[name] = head + bytes(k % 10 for k in range(math.prod(shape)))
        zipped[f"{name}.gz"] = gzip.compress(files[name], mtime=0)
    return files, zipped


@pytest.fixture
def mirror(archives):
    """Serve the archives from this machine, slowly; `served` says what was asked for."""
    _, zipped = archives
    served, content = [], dict(zipped)

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            name = self.path.rpartition("/")[2]
            served.append(name)
            time.sleep(0.1)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content[name])))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[name])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", served, content
        server.shutdown()


def look_alike(archives, address):
    """What to set, so that MNIST is the look-alike: mirrors, archives' MD5s, files' SHA-256s."""
    files, zipped = archives
    resources = [[name, hashlib.md5(content).hexdigest()] for name, content in zipped.items()]
    return [address], resources, {n: hashlib.sha256(c).hexdigest() for n, c in files.items()}


@pytest.fixture
def small_mnist(archives, mirror, monkeypatch, tmp_path):
    address, served, content = mirror
    mirrors, resources, hashes = look_alike(archives, address)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", mirrors)
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    monkeypatch.setattr(data.digits, "MNIST_SHA256", hashes)
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
    return tmp_path, served, content


def whole(folder, archives):
    """Whether the four files are there as they should be, and nothing half-written beside them."""
    files, _ = archives
    left = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()} - {Path(".lock")}
    assert left == {RAW / name for name in files}
    assert all((folder / RAW / name).read_bytes() == content for name, content in files.items())
    return True


def test_fetches_once(small_mnist, archives):
    folder, served, _ = small_mnist
    assert data.mnist().labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert set(served) == {f"{name}.gz" for name in LOOK_ALIKE}
    assert whole(folder, archives)
    served.clear()
    assert data.mnist("test").images.shape == (3, 1, 28, 28)
    assert not served


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_bad_download_leaves_nothing_behind(damage, small_mnist, archives):
    folder, _, content = small_mnist
    name, good = "t10k-images-idx3-ubyte.gz", content["t10k-images-idx3-ubyte.gz"]
    content[name] = {"cut": good[:-9], "other": b"sorry"}[damage]
    with pytest.raises(RuntimeError, match=r"could not be fetched .*STN_TUTORIAL_DATASET=digits"):
        data.mnist()
    assert not [p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"]
    content[name] = good
    data.mnist()
    assert whole(folder, archives)


def test_fetches_only_what_is_missing(small_mnist, archives):
    """Archives that lie there are used, a damaged one is fetched; both are left as they are."""
    folder, served, content = small_mnist
    (folder / RAW).mkdir(parents=True)
    good, bad = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
    (folder / RAW / good).write_bytes(content[good])
    (folder / RAW / bad).write_bytes(b"not an archive")
    data.mnist()
    assert good not in served
    assert bad in served
    assert (folder / RAW / bad).read_bytes() == b"not an archive"
    (folder / RAW / good).unlink()
    (folder / RAW / bad).unlink()
    assert whole(folder, archives)


def test_what_a_killed_process_left_is_thrown_away(small_mnist, archives):
    folder, _, _ = small_mnist
    (folder / ".fetching" / RAW).mkdir(parents=True)
    (folder / ".fetching" / RAW / "train-images-idx3-ubyte").write_bytes(b"half")
    data.mnist()
    assert whole(folder, archives)


def test_two_processes_at_once(small_mnist, archives, monkeypatch):
    """Both get it whole, and no more is asked for than when there is one."""
    folder, served, _ = small_mnist
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(folder / "alone"))
    data.mnist()
    shutil.rmtree(folder / "alone")
    alone = sorted(served)
    served.clear()
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(folder))
    code = """
        import json, sys, torchvision
        from stn_tutorial import data
        print("ready", flush=True)
        MNIST = torchvision.datasets.MNIST
        MNIST.mirrors, MNIST.resources, data.digits.MNIST_SHA256 = json.loads(sys.stdin.read())
        images = data.mnist().images
        print(len(images), int(images.long().sum()))
    """
    MNIST = torchvision.datasets.MNIST
    settings = json.dumps([MNIST.mirrors, MNIST.resources, data.digits.MNIST_SHA256])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    both = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]
    try:
        for process in both:  # both have imported all they need before either may go on
            assert process.stdout.readline() == "ready\n"
        for process in both:
            process.stdin.write(settings)
        for process in both:
            process.stdin.close()
            process.stdin = None
        for process in both:
            out, err = process.communicate(timeout=1000)
            assert process.returncode == 0, err
            assert out == f"6 {sum(k % 10 for k in range(6 * 784))}\n"
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert sorted(served) == alone
    assert whole(folder, archives)


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
    assert data.data_folder() == tmp_path
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("STN_TUTORIAL_DATA")
        else:
            monkeypatch.setenv("STN_TUTORIAL_DATA", unset)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert data.data_folder() == tmp_path / "stn-tutorial"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert data.data_folder() == Path.home() / ".cache" / "stn-tutorial"


# --- load_digits ---


def test_load_digits_says_which(monkeypatch, capsys):
    monkeypatch.setenv("STN_TUTORIAL_DATASET", "digits")
    assert len(data.load_digits("test").labels) == 360
    assert capsys.readouterr().out == "scikit-learn's embedded digits, test: 360 digits\n"
    monkeypatch.setenv("STN_TUTORIAL_DATASET", "cifar")
    with pytest.raises(ValueError, match=r"STN_TUTORIAL_DATASET must be one of mnist, digits, but"):
        data.load_digits()
    assert len(data.load_digits("test", "digits").labels) == 360
    with pytest.raises(ValueError, match=r"dataset must be one of mnist, digits, but 'svhn' was"):
        data.load_digits("test", "svhn")


@pytest.mark.parametrize("choice", ["mnist", None])
def test_load_digits_says_mnist(choice, mnist_folder, monkeypatch, capsys):
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(mnist_folder))
    if choice is None:
        monkeypatch.delenv("STN_TUTORIAL_DATASET", raising=False)
    else:
        monkeypatch.setenv("STN_TUTORIAL_DATASET", choice)
    assert len(data.load_digits("test").labels) == 10_000
    assert capsys.readouterr().out == "MNIST, test: 10000 digits\n"


# --- Distortions ---

NAMES = tuple(data.DISTORTIONS)
CANVAS = {"R": 28, "RTS": 42, "P": 28, "E": 28, "TC": 60}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(name, n=4000, seed=0):
    return data.DISTORTIONS[name].draw(n, generator(seed))


@pytest.fixture(scope="module")
def digits():
    return data.embedded_digits()


def dot(row=14, column=14, n=1, half=1):
    """Pictures with a square dot, brighter than anything that bilinear weights make of it."""
    images = torch.zeros(n, 1, 28, 28, dtype=torch.uint8)
    images[:, :, row - half : row + half, column - half : column + half] = 255
    return images


@pytest.mark.parametrize("name", NAMES)
def test_distorted(name, digits):
    distortion = data.DISTORTIONS[name]
    images = digits.images[:64]
    U = distortion(images, generator())
    assert distortion.name == name
    assert distortion.size == (CANVAS[name],) * 2
    assert U.shape == (64, 1, *distortion.size)
    assert U.dtype == torch.float32
    assert 0 <= U.min() <= U.max() <= 1
    assert U.amax((1, 2, 3)).min() > 0.3  # no digit has left the canvas
    assert torch.equal(U, distortion(images, generator()))
    assert not torch.equal(U, distortion(images, generator(1)))
    # Each picture has its own map: the same digit twice does not look the same.
    twice = distortion(images[:1].expand(2, -1, -1, -1), generator())
    assert (twice[0] - twice[1]).abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_distortions_say_what_they_assume(name):
    facts = data.DISTORTIONS[name].facts
    assert all(fact.mark in CERTAINTY and fact.text for fact in facts)
    said = assumptions(facts)
    assert len(said) == sum(fact.mark in ("c", "c+") for fact in facts) > 0
    assert all("assumption" in text or "as we understand" in text for text in said)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(4, 1, 28, 28),
        torch.zeros(4, 28, 28, dtype=torch.uint8),
        torch.zeros(4, 1, 42, 42, dtype=torch.uint8),
    ],
)
def test_distortions_refuse_other_pictures(name, images):
    with pytest.raises(ValueError, match=r"images must be uint8 of shape \(N, 1, 28, 28\), but"):
        data.DISTORTIONS[name](images, generator())


def test_R_turns_by_up_to_90_degrees():
    found = decompose(draws("R"))
    degrees = found.degrees
    assert -90 <= degrees.min() < -89
    assert 89 < degrees.max() <= 90
    assert degrees.mean().abs() < 3
    assert degrees.std() == pytest.approx(180 / 12**0.5, rel=0.03)
    for other in (found.sx - 1, found.sy - 1, found.shear, found.tx, found.ty):
        assert other.abs().max() < 1e-5


def test_R_is_what_torchvision_does(digits):
    """With bilinear interpolation about the centre: the same turn, the same way round."""
    images = digits.images[:8]
    ours = data.DISTORTIONS["R"](images, generator(3))
    degrees = decompose(data.DISTORTIONS["R"].draw(8, generator(3))).degrees
    for one, image, angle in zip(ours, images, degrees.tolist(), strict=True):
        theirs = torchvision.transforms.functional.rotate(
            image.float() / 255, angle, torchvision.transforms.InterpolationMode.BILINEAR
        )
        torch.testing.assert_close(one, theirs, rtol=0, atol=2e-3)


def test_RTS_turns_scales_and_places():
    found = decompose(draws("RTS"))
    scale = found.sx * 42 / 28
    torch.testing.assert_close(found.sy, found.sx)
    assert -45 <= found.degrees.min() < -44 < 44 < found.degrees.max() <= 45.01
    assert 0.699 < scale.min() < 0.71 < 1.19 < scale.max() < 1.201
    assert scale.mean() == pytest.approx(0.95, abs=0.01)
    for t in (found.tx, found.ty):
        assert t.mean().abs() < 0.02
        # The scaled frame never leaves the canvas, and comes near to its edge.
        reach = t.abs() + found.sx
        assert 0.99 < reach.max() <= 1.0001
    assert torch.corrcoef(torch.stack([found.tx, found.ty]))[0, 1].abs() < 0.05


def corner_movements(name, n=4000):
    """Pixels by which the corners of the shrunken frame moved, and the scale: (N, 4, 2), (N,)."""
    theta = draws(name, n).double()
    corners = torch.cat([data.distortions.CORNERS, torch.ones(4, 1, dtype=torch.float64)], dim=1)
    moved = torch.linalg.solve(theta, corners.T.expand(n, 3, 4)).mT
    moved = moved[..., :2] / moved[..., 2:]
    scale = 0.75 + 0.25 * torch.rand(n, generator=generator())
    return (moved - data.distortions.CORNERS * scale[:, None, None]) * 14


def test_P_moves_each_corner():
    movements = corner_movements("P")
    # Those whose corners crossed are drawn again, which takes a little off the wide draws.
    assert movements.std() == pytest.approx(5, abs=0.25)
    assert movements.mean().abs() < 0.1
    flat = torch.corrcoef(movements.flatten(1).T) - torch.eye(8)
    assert flat.abs().max() < 0.15


def test_P_is_never_inside_out():
    theta = draws("P", 20_000)
    # The denominator keeps its sign over the whole digit: at its corners, so within them.
    inverse = torch.linalg.inv(theta.double())
    corners = torch.cat([data.distortions.CORNERS, torch.ones(4, 1, dtype=torch.float64)], dim=1)
    w = (inverse @ corners.T)[:, 2] * torch.linalg.det(theta.double())[:, None].sign()
    assert ((w > 0).all(1) | (w < 0).all(1)).all()
    assert theta.isfinite().all()
    assert (theta[:, 2, 2] == 1).all()


def test_convex():
    square = data.distortions.CORNERS.clone()
    crossed, dented, mirrored = square.clone(), square.clone(), square.flip(0)
    crossed[[0, 1]] = crossed[[1, 0]]
    dented[0] = torch.tensor([0.5, 0.5])
    answer = data.distortions._convex(torch.stack([square, crossed, dented, mirrored]))
    assert answer.tolist() == [True, False, False, False]


@given(st.lists(st.floats(-0.3, 0.3), min_size=16, max_size=16))
def test_homography_takes_points_to_points(moves):
    source = data.distortions.CORNERS + torch.tensor(moves[:8], dtype=torch.float64).view(4, 2)
    target = data.distortions.CORNERS + torch.tensor(moves[8:], dtype=torch.float64).view(4, 2)
    H = data.distortions._homography(source[None], target[None])[0]
    ends = torch.cat([source, torch.ones(4, 1, dtype=torch.float64)], 1) @ H.T
    torch.testing.assert_close(ends[:, :2] / ends[:, 2:], target, rtol=0, atol=1e-9)


def test_E_moves_the_control_points():
    theta = draws("E")
    corners = theta[:, [0, 3, 12, 15]]
    # Undo the scale as it was drawn: what is left are the movements.
    scale = 0.75 + 0.25 * torch.rand(4000, generator=generator())
    movements = (theta * scale[:, None, None] - control_points(4)) * 14
    assert movements.std() == pytest.approx(1.5, abs=0.02)
    assert movements.mean().abs() < 0.02
    assert movements.flatten(1).std(0).sub(1.5).abs().max() < 0.1
    assert corners.abs().mean() == pytest.approx((1 / scale).mean().item(), abs=0.01)


def test_E_without_movement_only_shrinks(monkeypatch, digits):
    distortion = data.DISTORTIONS["E"]
    monkeypatch.setattr(type(distortion), "sigma", 0.0)
    theta = distortion.draw(5, generator())
    scale = control_points(4)[0, 0] / theta[:, 0, 0]
    assert ((scale >= 0.75) & (scale <= 1)).all()
    regular = distortion.grid(control_points(4).expand(5, 16, 2))
    torch.testing.assert_close(
        distortion.grid(theta), regular / scale[:, None, None, None], rtol=0, atol=2e-5
    )


def test_TC_places_the_digit_at_whole_pixels():
    # The first output position that reads the frame's upper left pixel, in pixels of the canvas.
    theta = draws("TC").double()
    first = -(theta[:, :, 2] + 1 - 1 / 28) / (60 / 28)
    pixels = normalised_to_pixel(first, (60, 60))
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-3)
    assert pixels.round().unique().tolist() == list(range(33))
    assert pixels.mean() == pytest.approx(16, abs=0.3)


def test_TC_keeps_the_digit_as_it_is(digits):
    distortion = data.DISTORTIONS["TC"]
    images = digits.images[:20]
    U = distortion(images, generator(5))
    theta = distortion.draw(20, generator(5))
    corner = torch.tensor([[-1 + 1 / 28, -1 + 1 / 28]])
    for k in range(20):
        x, y = ((-(theta[k, :, 2]) + corner[0]) * 28 / 60).tolist()
        column, row = round(((x + 1) * 60 - 1) / 2), round(((y + 1) * 60 - 1) / 2)
        frame = U[k, 0, row : row + 28, column : column + 28]
        digit = images[k, 0].float() / 255
        # Nothing of it is lost; distractors may add to it.
        assert (frame >= digit - 1e-3).all()
        assert ((frame - digit).abs() < 1e-3).float().mean() > 0.7


def test_TC_cuts_six_patches_from_the_others():
    distortion = data.DISTORTIONS["TC"]
    images = torch.zeros(8, 1, 28, 28, dtype=torch.uint8)
    for k in range(1, 8):
        images[k] = 10 * k  # each patch tells whose it is; digit 0 has none to give
    target, patches = distortion._clutter(images, generator(1))
    assert target.shape == patches.shape == (8, 6 * 36)
    owners = (patches.view(8, 6, 36) * 25.5).round()
    assert (owners == owners[..., :1]).all()
    assert (owners[..., 0] != torch.arange(8)[:, None]).all()
    assert owners.unique().tolist() == list(range(8))
    rows, columns = target.view(8, 6, 6, 6) // 60, target.view(8, 6, 6, 6) % 60
    assert (rows == rows[:, :, :1, :1] + torch.arange(6)[:, None]).all()
    assert (columns == columns[:, :, :1, :1] + torch.arange(6)).all()
    assert 0 <= rows.min() <= rows.max() < 60


def test_TC_shows_the_brighter_of_two():
    images = torch.zeros(40, 1, 28, 28, dtype=torch.uint8)
    images[1:, :, 4:24, 4:24] = 255
    images[0] = 100
    U = data.DISTORTIONS["TC"](images, generator())
    assert set((U[0] * 255).round().unique().tolist()) <= {0.0, 100.0, 255.0}
    assert (U[0] * 255).round().eq(255).sum() > 36


def test_TC_needs_another_digit():
    with pytest.raises(ValueError, match="TC needs at least 2 images"):
        data.DISTORTIONS["TC"](torch.zeros(1, 1, 28, 28, dtype=torch.uint8), generator())


# --- Batches ---


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_depends_on_seed_and_step_alone(name, digits):
    one = data.Batches(digits, name, batch_size=32, seed=7)
    forwards = [one(step) for step in range(6)]
    other = data.Batches(digits, name, batch_size=32, seed=7)
    torch.manual_seed(99)  # the global generator has no say
    for step in (5, 0, 3):
        for ours, theirs in zip(other(step), forwards[step], strict=True):
            assert torch.equal(ours, theirs)
    assert not torch.equal(forwards[0][0], forwards[1][0])
    assert not torch.equal(data.Batches(digits, name, batch_size=32, seed=8)(0)[0], forwards[0][0])
    U, target = forwards[0]
    assert U.shape == (32, 1, *data.DISTORTIONS[name].size)
    assert target.dtype == torch.int64
    assert target.shape == (32,)


@given(st.integers(2, 40), st.integers(1, 40), st.integers(0, 60))
def test_each_pass_has_each_digit_once(count, size, step):
    size = min(size, count)
    images = torch.zeros(count, 1, 28, 28, dtype=torch.uint8)
    batches = data.Batches(data.Digits(images, torch.arange(count)), "R", batch_size=size)
    start = step * size // count  # the first pass that this step touches
    seen = torch.cat([batches(k)[1] for k in range((start + 1) * count // size + 1)])
    one = seen[start * count : (start + 1) * count]
    assert one.sort().values.tolist() == list(range(count))
    if count > 12 and start:
        assert one.tolist() != seen[:count].tolist()


def test_batches_keep_label_and_picture_together(digits):
    images = (digits.labels * 20).to(torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28)
    batches = data.Batches(data.Digits(images.contiguous(), digits.labels), "R", batch_size=64)
    U, target = batches(40)
    assert torch.equal((U[:, 0, 14, 14] * 255 / 20).round().long(), target)


def test_batches_say_what_is_wrong(digits):
    with pytest.raises(ValueError, match=r"distortion must be one of R, RTS, P, E, TC, but 'Q'"):
        data.Batches(digits, "Q")
    for size in (0, 1438):
        with pytest.raises(ValueError, match=r"batch_size must be 1 to 1437, .*but \d+ was given"):
            data.Batches(digits, "R", batch_size=size)
    with pytest.raises(ValueError, match="step must be 0 or more, but -1 was given"):
        data.Batches(digits, "R")(-1)
    with pytest.raises(ValueError, match="split must be one of test, held-out, but 'train' was"):
        data.FixedSet(digits, "R", "train")


@pytest.mark.parametrize("name", NAMES)
def test_a_fixed_set_is_always_the_same(name, digits):
    test = data.Digits(digits.images[:360], digits.labels[:360])
    fixed = data.FixedSet(test, name, batch_size=100)
    first, again = list(fixed), list(data.FixedSet(test, name, batch_size=100))
    assert [len(target) for _, target in first] == [100, 100, 100, 60]
    assert len(fixed) == 360
    assert torch.equal(torch.cat([target for _, target in first]), test.labels)
    for (a, _), (b, _), (c, _) in zip(first, again, fixed, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    held = next(iter(data.FixedSet(test, name, "held-out", batch_size=100)))
    assert not torch.equal(held[0], first[0][0])
    assert not torch.equal(first[0][0], first[1][0])


@pytest.mark.parametrize("name", NAMES)
def test_a_fixed_set_says_what_distorted_its_pictures(name, digits):
    test = data.Digits(digits.images[:250], digits.labels[:250])
    fixed = data.FixedSet(test, name, batch_size=100)
    grid = data.DISTORTIONS[name].grid(fixed.theta())
    expected = torch.nn.functional.grid_sample(test.images / 255, grid, align_corners=False)
    shown = torch.cat([U for U, _ in fixed])
    if name == "TC":  # under the clutter, which only brightens
        shown = torch.where(shown > expected + 1e-5, expected, shown)
    torch.testing.assert_close(shown, expected, atol=1e-5, rtol=0)


def test_hold_out(digits):
    train, held = data.hold_out(digits)
    assert (len(train.labels), len(held.labels)) == (1198, 239)
    assert torch.equal(torch.cat([train.images, held.images]), digits.images)
    assert torch.equal(torch.cat([train.labels, held.labels]), digits.labels)


def test_hold_out_of_mnist():
    whole = data.Digits(torch.empty(60_000, 0), torch.empty(60_000))
    assert [len(part.labels) for part in data.hold_out(whole)] == [50_000, 10_000]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(name, digits):
    there = data.Batches(digits, name, batch_size=64, device="cuda")
    here = data.Batches(digits, name, batch_size=64)
    U, target = there(3)
    assert U.is_cuda
    assert torch.equal(U, there(3)[0])
    assert torch.equal(target.cpu(), here(3)[1])
    torch.testing.assert_close(U.cpu(), here(3)[0], rtol=0, atol=1e-3)
