"""Picture files that a user brings: each kind is shown as it is meant to be seen."""

import numpy as np
import pytest
from PIL import Image

from stn_tutorial.explorables.pictures import LARGEST, to_image

RAMP = np.linspace(0, 255, 60).round().astype(np.uint8).reshape(6, 10)
RGB = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 77)], axis=-1)


def shown(path):
    image = to_image(path)
    assert image.mode in ("L", "RGB")
    return np.asarray(image)


@pytest.mark.parametrize("form", ["png", "tiff", "bmp", "webp", "gif", "ppm"])
def test_eight_bits(tmp_path, form):
    options = {"lossless": True} if form == "webp" else {}
    Image.fromarray(RGB).save(tmp_path / f"one.{form}", **options)
    # A GIF has 256 colours, which are enough here.
    assert np.array_equal(shown(tmp_path / f"one.{form}"), RGB)


def test_grey_stays_grey(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    assert np.array_equal(shown(tmp_path / "grey.png"), RAMP)
    Image.fromarray(RAMP > 100).save(tmp_path / "bits.png")
    assert np.array_equal(shown(str(tmp_path / "bits.png")), (RAMP > 100) * 255)


# What each orientation says of the picture as stored: how to set it upright.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_is_turned_as_the_camera_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for form in ("png", "tiff"):
        Image.fromarray(RGB).save(tmp_path / f"turned.{form}", exif=exif)
        assert np.array_equal(shown(tmp_path / f"turned.{form}"), UPRIGHT[orientation](RGB))


def test_sixteen_bits(tmp_path):
    deep = np.linspace(0, 65535, 60).round().astype(np.uint16).reshape(6, 10)
    for form in ("png", "tiff"):
        Image.fromarray(deep).save(tmp_path / f"deep.{form}")
        assert np.array_equal(shown(tmp_path / f"deep.{form}"), (deep / 257).round())
    # In a camera's byte order, the other way round.
    big = Image.frombytes("I;16B", (10, 6), deep.astype(">u2").tobytes())
    big.save(tmp_path / "big.tiff")
    assert np.array_equal(shown(tmp_path / "big.tiff"), (deep / 257).round())


def test_numbers_with_a_point(tmp_path):
    Image.fromarray(np.full((3, 4), 0.5, np.float32)).save(tmp_path / "half.tiff")
    assert (shown(tmp_path / "half.tiff") == 128).all()
    Image.fromarray(np.full((3, 4), 7.0, np.float32)).save(tmp_path / "seven.tiff")
    with pytest.raises(ValueError, match=r"values in \[0, 1\], but values from 7 to 7 were given"):
        to_image(tmp_path / "seven.tiff")


def test_whole_numbers_out_of_range(tmp_path):
    Image.fromarray(np.array([[-1, 70_000]], np.int32)).save(tmp_path / "odd.tiff")
    with pytest.raises(ValueError, match=r"16 bits, but '.*odd.tiff' with values from -1 to 70000"):
        to_image(tmp_path / "odd.tiff")


def test_transparent_parts_are_white(tmp_path):
    alpha = np.zeros((6, 10), np.uint8)
    alpha[:, 3:] = 255
    alpha[:, 5] = 128
    share = alpha[..., None] / 255
    mixed = RGB * share + 255 * (1 - share)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "colour.png")
    seen = shown(tmp_path / "colour.png")
    assert np.abs(seen - mixed).max() <= 1
    assert (seen[:, :3] == 255).all()
    assert np.array_equal(seen[:, 6:], RGB[:, 6:])
    # Grey with alpha stays grey.
    Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(alpha)]).save(tmp_path / "grey.png")
    seen = shown(tmp_path / "grey.png")
    assert seen.shape == (6, 10)
    assert (seen[:, :3] == 255).all()
    assert np.array_equal(seen[:, 6:], RAMP[:, 6:])
    # One colour of a palette, and one grey, which are said to be transparent.
    palette = Image.fromarray(RAMP // 64)
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    palette.save(tmp_path / "palette.png", transparency=1)
    seen = shown(tmp_path / "palette.png")
    colours = np.array([[200, 0, 0], [255, 255, 255], [0, 0, 200], [9, 9, 9]])
    assert np.array_equal(seen, colours[RAMP // 64])
    Image.fromarray(RAMP).save(tmp_path / "key.png", transparency=0)
    assert shown(tmp_path / "key.png")[0, 0] == 255


def test_colours_of_print(tmp_path):
    """Cyan, magenta, yellow and black, each alone, and no ink at all."""
    inks = np.vstack([np.eye(4), np.zeros((1, 4))]).astype(np.uint8)[None] * 255
    Image.frombytes("CMYK", (5, 1), inks.tobytes()).save(tmp_path / "print.tiff")
    expected = [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]]
    assert shown(tmp_path / "print.tiff")[0].tolist() == expected


def test_a_large_one_is_shrunk_after_it_was_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1000, 500)).save(tmp_path / "large.jpg", exif=exif)
    assert to_image(tmp_path / "large.jpg").size == (LARGEST // 2, LARGEST)


def test_says_what_is_wrong(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(RGB).resize((300, 200)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "broken.png").write_bytes(whole[:40] + b"\0" * 40 + whole[80:])
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.png", "cut.png", "broken.png", "empty.png"):
        with pytest.raises(ValueError, match=rf"picture must be a file that holds .*{name}' was"):
            to_image(tmp_path / name)
    with pytest.raises(ValueError, match=r"picture must be one of temple, .*, or a picture file's"):
        to_image(tmp_path / "missing.png")
    with pytest.raises(ValueError, match=r"picture must be one of temple, .*, or a picture file's"):
        to_image(tmp_path)
