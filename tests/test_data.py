"""Pictures, embedded digits and MNIST. Nothing here reaches for the network."""

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
import torchvision

from stn_tutorial import data

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
    for name in data.MNIST_SHA256:
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


@pytest.mark.parametrize("name", data.MNIST_SHA256)
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


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
    assert data._data_folder() == tmp_path
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("STN_TUTORIAL_DATA")
        else:
            monkeypatch.setenv("STN_TUTORIAL_DATA", unset)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert data._data_folder() == tmp_path / "stn-tutorial"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert data._data_folder() == Path.home() / ".cache" / "stn-tutorial"


# --- load_digits ---


def test_load_digits_says_which(monkeypatch, capsys):
    monkeypatch.setenv("STN_TUTORIAL_DATASET", "digits")
    assert len(data.load_digits("test").labels) == 360
    assert capsys.readouterr().out == "scikit-learn's embedded digits, test: 360 digits\n"
    monkeypatch.setenv("STN_TUTORIAL_DATASET", "cifar")
    with pytest.raises(ValueError, match=r"STN_TUTORIAL_DATASET must be one of mnist, digits, but"):
        data.load_digits()


@pytest.mark.parametrize("choice", ["mnist", None])
def test_load_digits_says_mnist(choice, mnist_folder, monkeypatch, capsys):
    monkeypatch.setenv("STN_TUTORIAL_DATA", str(mnist_folder))
    if choice is None:
        monkeypatch.delenv("STN_TUTORIAL_DATASET", raising=False)
    else:
        monkeypatch.setenv("STN_TUTORIAL_DATASET", choice)
    assert len(data.load_digits("test").labels) == 10_000
    assert capsys.readouterr().out == "MNIST, test: 10000 digits\n"
