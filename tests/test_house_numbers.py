"""House numbers: their labels, the drawn ones, the batches, the part of SVHN, and the archives."""

import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stn_tutorial import cli, data
from stn_tutorial.data import NO_DIGIT, DrawnNumbers, HouseNumberBatches, HouseNumbers, svhn
from stn_tutorial.data.house_numbers import PART, check_labels, jittered


def numbers(count=12, side=64):
    """Pictures that say their own place in their first pixel, and a label of two digits each."""
    images = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count)
    labels = torch.full((count, 5), NO_DIGIT)
    labels[:, 0] = torch.arange(count) % 10
    labels[:, 1] = 7
    return HouseNumbers(images, labels)


class TestLabels:
    def test_lengths_and_reading(self):
        labels = torch.tensor([[4, 2, 10, 10, 10], [0, 10, 10, 10, 10], [9, 8, 7, 6, 5]])
        assert data.number_lengths(labels).tolist() == [2, 1, 5]
        assert [data.read_number(label) for label in labels] == ["42", "0", "98765"]

    def test_an_answer_that_is_no_number_can_be_read_as_well(self):
        assert data.read_number(torch.tensor([4, 10, 7, 10, 10])) == "4·7"
        assert data.read_number(torch.full((5,), 10)) == "–"

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([[4, 11, 10, 10, 10]], r"0 to 9, or 10 for no digit, but number 0 has \[4, 11"),
            ([[-1, 10, 10, 10, 10]], r"number 0 has \[-1"),
            ([[4, 10, 7, 10, 10]], r"none missing between, but number 0 has \[4, 10, 7"),
            ([[10, 10, 10, 10, 10]], "must begin with a digit"),
            ([[1, 2, 3, 4]], r"must have shape \(N, 5\), but shape \(1, 4\) was given"),
        ],
    )
    def test_what_is_no_label_is_refused(self, labels, message):
        with pytest.raises(ValueError, match=message):
            check_labels(torch.tensor(labels), "here")


class TestDrawn:
    def test_a_batch_depends_on_seed_and_step_alone(self):
        first = DrawnNumbers(batch_size=6, seed=3)
        first(0)
        again = DrawnNumbers(batch_size=6, seed=3)
        for one, other in zip(first(5), again(5), strict=True):
            assert torch.equal(one, other)
        assert not torch.equal(first(5)[0], first(6)[0])
        assert not torch.equal(first(5)[0], DrawnNumbers(batch_size=6, seed=4)(5)[0])
        assert not torch.equal(first(5)[0], DrawnNumbers("test", batch_size=6, seed=3)(5)[0])

    def test_form(self):
        U, target = DrawnNumbers(batch_size=400)(0)
        assert U.shape == (400, 3, 64, 64)
        assert U.dtype == torch.float32
        assert 0 <= U.min() < 0.1
        assert 0.9 < U.max() <= 1
        check_labels(target, "drawn")
        assert (target[:, 0] > 0).all()  # no house number begins with 0
        shares = data.number_lengths(target).bincount(minlength=6)[1:] / 400
        assert torch.allclose(shares, torch.tensor(data.drawn_numbers.LENGTHS), atol=0.07)
        assert set(target[target != NO_DIGIT].tolist()) == set(range(10))

    def test_other_sizes(self):
        assert DrawnNumbers(batch_size=2, size=(32, 48))(0)[0].shape == (2, 3, 32, 48)

    def test_no_handwriting_is_in_both_splits(self):
        train, test = (data.drawn_numbers._digits(s)[0].images for s in ("train", "test"))
        known = {image.numpy().tobytes() for image in train}
        shared = [image for image in test if image.numpy().tobytes() in known]
        assert len(train) + len(test) == 1797
        assert len(shared) <= 2  # two of the 1797 are alike to the pixel

    def test_the_digits_stand_where_the_label_says(self):
        """A judge that knows nothing of the drawing: as many columns of ink as digits, roughly."""
        batches = DrawnNumbers(batch_size=200, seed=1)
        g = torch.Generator().manual_seed(0)
        lengths = torch.arange(200) % 5 + 1
        theta, images, labels = batches._placed(lengths, g)
        theta = theta.view(200, 7, 2, 3)
        # Where each digit's middle is in the picture: θ takes it to the digit's own middle.
        square, shift = theta[..., :2], theta[..., 2:]
        middle = torch.linalg.solve(square, -shift)[..., 0, 0]
        for row, length in zip(middle, lengths.tolist(), strict=True):
            inside = row[1 : length + 1]
            assert (inside.abs() < 1).all()
            assert (inside.diff() > 0).all()  # from left to right
            assert (torch.cat([row[:1], row[length + 1 :]]).abs() > 0.85).all()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"split": "extra"}, "split must be one of train, test"),
            ({"batch_size": 0}, "batch_size must be a whole number, 1 or more"),
            ({"size": (64,)}, "size must be"),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            DrawnNumbers(**settings)

    def test_it_says_that_it_is_a_stand_in(self, capsys):
        found = data.load_house_numbers("test", "drawn")
        assert "stand-in" in capsys.readouterr().out
        assert found.images.dtype == torch.uint8
        check_labels(found.labels, "drawn")


class TestBatches:
    def test_each_number_once_in_a_pass_and_its_label_with_it(self):
        whole = numbers()
        batches = HouseNumberBatches(whole, batch_size=4, seed=1, jitter=False)
        seen = []
        for step in range(3):
            U, target = batches(step)
            places = (255 * U[:, 0, 0, 0]).round().long()
            assert torch.equal(target, whole.labels[places])
            seen += places.tolist()
        assert sorted(seen) == list(range(12))

    def test_jitter_depends_on_seed_and_step_alone_and_keeps_the_number_in_view(self):
        U, _ = DrawnNumbers(batch_size=8)(0)
        one, other = (jittered(U, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(one, other)
        assert one.shape == U.shape
        assert 0 <= one.min() <= one.max() <= 1
        # A cross in the middle stays within a fifth of the picture.
        cross = torch.zeros(64, 3, 64, 64)
        cross[:, :, 30:34, 30:34] = 1
        moved = jittered(cross, torch.Generator().manual_seed(0))
        apart = (moved - moved[:, :, :1, :1]).abs().sum(dim=1)
        where = torch.linspace(-1, 1, 64)
        x = (apart.sum(1) * where).sum(1) / apart.sum((1, 2))
        assert x.abs().max() < 0.2
        assert x.std() > 0.03

    def test_hold_out(self):
        train_on, held_out = data.hold_out_numbers(numbers())
        assert (len(train_on.labels), len(held_out.labels)) == (10, 2)
        assert held_out.images[0, 0, 0, 0] == 10

    def test_more_than_there_are(self):
        with pytest.raises(ValueError, match="1 to 12, the number of house numbers, but 13"):
            HouseNumberBatches(numbers(), batch_size=13)

    def test_fixed(self):
        parts = list(data.FixedNumbers(numbers(), batch_size=5))
        assert [len(target) for _, target in parts] == [5, 5, 2]
        assert torch.equal(torch.cat([t for _, t in parts]), numbers().labels)


class TestPart:
    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
        (tmp_path / "SVHN").mkdir()
        return tmp_path / "SVHN"

    def write(self, folder, **changes):
        arrays = {}
        for split, count in (("train", 3), ("test", 2)):
            arrays[f"{split}_images"] = np.zeros((count, 64, 64, 3), np.uint8)
            arrays[f"{split}_labels"] = np.array([[1, 2, 10, 10, 10]] * count, np.uint8)
        np.savez(folder / PART, **(arrays | changes))

    def test_read(self, folder, capsys):
        self.write(folder)
        found = data.load_house_numbers("train", "svhn-part")
        assert found.images.shape == (3, 3, 64, 64)
        assert found.labels.dtype == torch.int64
        assert "SVHN, a part, train: 3 numbers" in capsys.readouterr().out

    def test_missing_names_the_ways_out(self, folder):
        with pytest.raises(RuntimeError, match=r"stn-tutorial data svhn.*'drawn'"):
            data.load_house_numbers("train", "svhn-part")
        with pytest.raises(RuntimeError, match="SVHN is not prepared"):
            data.load_house_numbers("train", "svhn")

    def test_damaged(self, folder):
        (folder / PART).write_bytes(b"half of it")
        with pytest.raises(ValueError, match="is damaged"):
            data.load_house_numbers("train", "svhn-part")

    def test_label_out_of_range(self, folder):
        self.write(folder, train_labels=np.array([[1, 11, 10, 10, 10]] * 3, np.uint8))
        with pytest.raises(ValueError, match=r"number 0 has \[1, 11"):
            data.load_house_numbers("train", "svhn-part")

    def test_a_label_is_missing(self, folder):
        self.write(folder, train_labels=np.array([[1, 10, 10, 10, 10]] * 2, np.uint8))
        with pytest.raises(ValueError, match="3 pictures and 2 labels"):
            data.load_house_numbers("train", "svhn-part")

    def test_no_silent_way_to_another_size(self):
        with pytest.raises(ValueError, match="64 pixels a side, but side 128"):
            data.load_house_numbers("train", "svhn-part", 128)


# --- The archives ---


def picture(colour):
    """A 100×50 picture, a field of one colour from x = 40 to 60 and y = 20 to 40, black outside."""
    pixels = np.zeros((50, 100, 3), np.uint8)
    pixels[20:40, 40:60] = colour
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


ENTRIES = [
    # Labels as SVHN writes them, 10 for the digit 0; boxes: left, top, width, height.
    ([1, 10], [(40, 20, 10, 20), (50, 20, 10, 20)]),
    ([5], [(40, 20, 20, 20)]),
    ([1, 2, 3, 4, 5, 6], [(40, 20, 20, 20)] * 6),
]


def digit_struct(entries):
    """The bytes of a digitStruct.mat, laid out as MATLAB's version 7.3 does."""
    h5py = pytest.importorskip("h5py")
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        pool = file.create_group("#refs#")
        names, boxes = [], []
        for place, (labels, sides) in enumerate(entries, 1):
            letters = np.array([[ord(c)] for c in f"{place}.png"], np.uint16)
            names.append([pool.create_dataset(f"name{place}", data=letters).ref])
            if not labels:
                empty = pool.create_dataset(f"box{place}", data=np.zeros(2, np.uint64))
                boxes.append([empty.ref])
                continue
            group = pool.create_group(f"box{place}")
            columns = zip(*sides, strict=True)
            fields = {"label": labels, **dict(zip(("left", "top", "width", "height"), columns,
                                                  strict=True))}  # fmt: skip
            for key, values in fields.items():
                if len(values) == 1:
                    group.create_dataset(key, data=np.array([[values[0]]], np.float64))
                    continue
                refs = [
                    [pool.create_dataset(f"{key}{place}_{k}", data=np.array([[float(v)]])).ref]
                    for k, v in enumerate(values)
                ]
                group.create_dataset(key, data=np.array(refs, object), dtype=h5py.ref_dtype)
            boxes.append([group.ref])
        struct = file.create_group("digitStruct")
        struct.create_dataset("name", data=np.array(names, object), dtype=h5py.ref_dtype)
        struct.create_dataset("bbox", data=np.array(boxes, object), dtype=h5py.ref_dtype)
    return memory.getvalue()


def archive_of(files):
    """A .tar.gz of the named contents, as bytes."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return memory.getvalue()


def whole_archive(entries=ENTRIES):
    files = {f"test/{k}.png": picture((200, 100, 50)) for k in range(1, len(entries) + 1)}
    return archive_of(files | {"test/digitStruct.mat": digit_struct(entries)})


def expected_of(content, count=3):
    return svhn.Archive(len(content), hashlib.sha256(content).hexdigest(), count)


class Server(http.server.ThreadingHTTPServer):
    """Serves one file; `cut` ends an answer early, `ranges` says whether it knows ranges."""

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut, self.ranges, self.asked = content, None, True, []
        self.status = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def home(self):
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if server.status:
            self.send_error(server.status)
            return
        first = 0
        if wanted and server.ranges:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
        content = server.content[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if server.cut is None else content[: server.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    one = Server(bytes(range(256)) * 40)
    yield one
    one.shutdown()
    one.server_close()


class TestFetch:
    def test_whole(self, server, tmp_path):
        expected, seen = expected_of(server.content), []
        path = svhn.fetch("test", tmp_path, home=server.home, archive=expected,
                          on_bytes=lambda have, whole: seen.append((have, whole)))  # fmt: skip
        assert path == tmp_path / "test.tar.gz"
        assert path.read_bytes() == server.content
        assert seen[-1] == (expected.size, expected.size)
        # Once more: it is there, and nobody is asked.
        svhn.fetch("test", tmp_path, home=server.home, archive=expected)
        assert server.asked == [("/test.tar.gz", None)]

    def test_half_and_then_the_rest(self, server, tmp_path):
        expected, server.cut = expected_of(server.content), 4000
        with pytest.raises(RuntimeError, match=r"4,000 of 10,240 bytes.*goes on from there"):
            svhn.fetch("test", tmp_path, home=server.home, archive=expected)
        assert (tmp_path / "test.tar.gz.half").stat().st_size == 4000
        assert not (tmp_path / "test.tar.gz").exists()
        server.cut = None
        path = svhn.fetch("test", tmp_path, home=server.home, archive=expected)
        assert path.read_bytes() == server.content
        assert server.asked[-1] == ("/test.tar.gz", "bytes=4000-")
        assert not (tmp_path / "test.tar.gz.half").exists()

    def test_a_server_that_knows_no_ranges_sends_it_all_again(self, server, tmp_path):
        (tmp_path / "test.tar.gz.half").write_bytes(server.content[:99])
        server.ranges = False
        path = svhn.fetch("test", tmp_path, home=server.home, archive=expected_of(server.content))
        assert path.read_bytes() == server.content

    def test_a_wrong_file_never_gets_the_name(self, server, tmp_path):
        wrong = expected_of(bytes(reversed(server.content)))
        with pytest.raises(ValueError, match=r"half is not SVHN's archive.*Delete it"):
            svhn.fetch("test", tmp_path, home=server.home, archive=wrong)
        assert not (tmp_path / "test.tar.gz").exists()

    def test_a_wrong_file_that_lies_there(self, server, tmp_path):
        (tmp_path / "test.tar.gz").write_bytes(b"something else")
        with pytest.raises(ValueError, match="14 bytes, expected 10,240"):
            svhn.fetch("test", tmp_path, home=server.home, archive=expected_of(server.content))
        assert server.asked == []

    def test_no_such_file_and_no_such_server(self, server, tmp_path):
        expected, server.status = expected_of(server.content), 404
        with pytest.raises(RuntimeError, match=r"could not be fetched \(HTTP Error 404"):
            svhn.fetch("test", tmp_path, home=server.home, archive=expected)
        (tmp_path / "test.tar.gz.half").write_bytes(server.content[:99])
        with pytest.raises(RuntimeError, match="99 of 10,240 bytes are kept"):
            svhn.fetch("test", tmp_path, home="http://127.0.0.1:1/", archive=expected)
        assert (tmp_path / "test.tar.gz.half").read_bytes() == server.content[:99]

    def test_unknown_part(self, tmp_path):
        with pytest.raises(ValueError, match="part must be one of train, extra, test"):
            svhn.fetch("more", tmp_path)

    def test_the_real_archives_are_what_is_told_of_them(self):
        assert {name: one.numbers for name, one in svhn.ARCHIVES.items()} == {
            "train": 33_402, "extra": 202_353, "test": 13_068,
        }  # fmt: skip
        assert all(len(one.sha256) == 64 for one in svhn.ARCHIVES.values())


class TestCrop:
    def test_box_enlarged_about_its_middle(self):
        box = svhn.crop_box(((40, 20, 10, 20), (50, 22, 10, 18)))
        assert box == pytest.approx((37, 17, 63, 43))

    @pytest.mark.parametrize("boxes", [(), ((3, 4, 0, 5),)])
    def test_no_box(self, boxes):
        with pytest.raises(ValueError, match="boxes must h"):
            svhn.crop_box(boxes)

    def test_pixels(self):
        image = Image.open(io.BytesIO(picture((200, 100, 50))))
        crop = svhn._cropped(image, (37, 17, 63, 43), 64)
        assert crop.shape == (64, 64, 3)
        assert crop[32, 32].tolist() == [200, 100, 50]
        # 3 of 26 pixels at each side are black.
        bright = crop[32, :, 0] > 100
        assert bright.sum() == pytest.approx(64 * 20 / 26, abs=2)
        assert bright.tolist() == bright[::-1].tolist()

    def test_out_of_the_picture_the_edge_is_repeated(self):
        image = Image.fromarray(np.full((10, 10, 3), 90, np.uint8))
        assert (svhn._cropped(image, (-5, -5, 15, 15), 16) == 90).all()


class TestPrepare:
    def prepared(self, tmp_path, content, count=3, **settings):
        path = tmp_path / "test.tar.gz"
        path.write_bytes(content)
        return svhn.prepare("test", path, numbers=count, target=tmp_path / "whole", **settings)

    def test_an_archive_becomes_numbers(self, tmp_path, monkeypatch):
        content = whole_archive()
        assert self.prepared(tmp_path, content) == {"written": 2, "too long": 1}
        labels = np.load(tmp_path / "whole" / "test_labels.npy")
        assert labels.tolist() == [[1, 0, 10, 10, 10], [5, 10, 10, 10, 10]]
        assert sorted(p.name for p in (tmp_path / "whole").iterdir() if p.suffix == ".npy") == [
            "test_images.npy", "test_labels.npy",
        ]  # fmt: skip
        assert not list((tmp_path / "whole").glob(".*making*"))
        # And they are read from where they lie.
        monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path / "data"))
        folder = data.house_numbers.prepared_folder(64)
        folder.parent.mkdir(parents=True)
        (tmp_path / "whole").rename(folder)
        found = data.load_house_numbers("test", "svhn")
        assert found.images.shape == (2, 3, 64, 64)
        assert found.images[1, :, 32, 32].tolist() == [200, 100, 50]
        assert svhn.is_prepared("test")

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ([([11], [(1, 1, 5, 5)])], r"1 to 10, where 10 is the digit 0, but 1.png has \[11\]"),
            ([([0], [(1, 1, 5, 5)])], r"1.png has \[0\]"),
            ([([], [])], "test/1.png has no box to crop to"),
            ([([3], [(1, 1, 0, 5)])], "test/1.png has no box to crop to"),
        ],
    )
    def test_what_is_wrong_is_named_and_nothing_is_left(self, tmp_path, entries, message):
        with pytest.raises(ValueError, match=message):
            self.prepared(tmp_path, whole_archive(entries), 1)
        assert not list((tmp_path / "whole").glob("**/*.npy"))
        assert (tmp_path / "test.tar.gz").exists()

    def test_another_count(self, tmp_path):
        with pytest.raises(ValueError, match="must hold 4 numbers, but has 3"):
            self.prepared(tmp_path, whole_archive(), 4)

    def test_a_picture_is_missing(self, tmp_path):
        content = archive_of({"test/digitStruct.mat": digit_struct(ENTRIES)})
        with pytest.raises(ValueError, match=r"test/1.png cannot be read"):
            self.prepared(tmp_path, content)

    def test_other_archives(self, tmp_path):
        with pytest.raises(ValueError, match="cannot be unpacked"):
            self.prepared(tmp_path, b"no archive at all")
        with pytest.raises(ValueError, match=r"test/digitStruct.mat is not in it"):
            self.prepared(tmp_path, archive_of({"test/1.png": b""}))

    def test_a_list_that_is_none(self, tmp_path):
        pytest.importorskip("h5py")
        content = archive_of({"test/digitStruct.mat": b"no HDF5"})
        with pytest.raises(ValueError, match="is not SVHN's list of boxes"):
            self.prepared(tmp_path, content)

    def test_without_h5py(self, monkeypatch):
        monkeypatch.setattr(svhn.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(RuntimeError, match=r"stn-tutorial\[svhn\]"):
            list(svhn.read_numbers(Path("digitStruct.mat")))


class TestCommand:
    def call(self, *arguments):
        return CliRunner().invoke(cli.app, ["data", *arguments])

    def test_fetches_prepares_and_says_so(self, server, tmp_path, monkeypatch):
        server.content = whole_archive()
        monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
        monkeypatch.setattr(svhn, "HOME", server.home)
        monkeypatch.setitem(svhn.ARCHIVES, "test", expected_of(server.content))
        result = self.call("svhn", "--parts", "test")
        assert result.exit_code == 0, result.output
        assert "non-commercial" in result.output
        assert "2 numbers cropped to 64×64; 1 of more than 5 digits left out" in result.output
        again = self.call("svhn", "--parts", "test")
        assert "prepared before" in again.output
        assert len(server.asked) == 1

    def test_half_a_file_is_kept(self, server, tmp_path, monkeypatch):
        pytest.importorskip("h5py")
        server.cut = 4000
        monkeypatch.setenv("STN_TUTORIAL_DATA", str(tmp_path))
        monkeypatch.setattr(svhn, "HOME", server.home)
        monkeypatch.setitem(svhn.ARCHIVES, "test", expected_of(server.content))
        result = self.call("svhn", "--parts", "test")
        assert result.exit_code == 2
        assert "4,000 of 10,240 bytes" in result.output
        assert (tmp_path / "SVHN" / "test.tar.gz.half").stat().st_size == 4000

    def test_names(self):
        assert "parts must be one of train" in self.call("svhn", "--parts", "more").output
        assert "what must be one of digits, svhn, cub" in self.call("birds").output
        assert "--side must be 64 or 128" in self.call("svhn", "--side", "32").output
