import io
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from reptok.metrics.sample_files import NpzWriter, holds_images, npz_moments, open_images

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 6, 6, 3), dtype=np.uint8)


def everything(images, size=3):
    batches = list(images.batches(size))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    return torch.cat(batches).permute(0, 2, 3, 1).numpy()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_as_it_was_saved(tmp_path, save):
    save(tmp_path / "a.npz", PIXELS, labels=np.arange(7))
    images = open_images(tmp_path / "a.npz")
    assert len(images) == 7
    np.testing.assert_array_equal(everything(images), PIXELS)


def test_what_is_written_numpy_reads_and_twice_the_same(tmp_path):
    files = []
    for _ in range(2):
        file = io.BytesIO()
        writer = NpzWriter(file, 7, 6)
        for chunk in torch.from_numpy(PIXELS).permute(0, 3, 1, 2).split(2):
            writer.add(chunk)
        writer.close()
        files.append(file.getvalue())
    assert files[0] == files[1]
    np.testing.assert_array_equal(np.load(io.BytesIO(files[0]))["arr_0"], PIXELS)


def test_a_file_of_fewer_images_than_announced_is_none():
    writer = NpzWriter(io.BytesIO(), 3, 6)
    writer.add(torch.zeros(2, 3, 6, 6, dtype=torch.uint8))
    with pytest.raises(ValueError, match="1 of 3 images were not written"):
        writer.close()
    with pytest.raises(ValueError, match=r"1 images .* are to come"):
        writer.add(torch.zeros(2, 3, 6, 6, dtype=torch.uint8))


def test_folders_and_tars_are_read_in_order(tmp_path):
    (tmp_path / "folder/sub").mkdir(parents=True)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, pixels in enumerate(PIXELS):
            name = f"sub/{number}.png" if number > 4 else f"{number}.PNG"
            (tmp_path / "folder" / name).write_bytes(png(pixels))
            for member, data in ((name, png(pixels)), (f"{number}.txt", b"no picture")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    for place in ("folder", "a.tar"):
        np.testing.assert_array_equal(everything(open_images(tmp_path / place)), PIXELS)


def test_parts_of_a_set_are_its_images(tmp_path):
    np.savez(tmp_path / "stored.npz", PIXELS)
    np.savez_compressed(tmp_path / "packed.npz", PIXELS)
    (tmp_path / "folder").mkdir()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        folder = tarfile.TarInfo("p.png")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, pixels in enumerate(PIXELS):
            (tmp_path / "folder" / f"{number}.png").write_bytes(png(pixels))
            for name, data in (("0.png", png(pixels)), ("0.txt", b"no picture")):  # all of one name
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    for place in ("stored.npz", "packed.npz", "folder", "a.tar"):
        images = open_images(tmp_path / place)
        parts = [[len(b) for b in images.batches(2, start, stop)] for start, stop in ((0, 3), (3, 6), (6, 7))]
        assert parts == [[2, 1], [2, 1], [1]], place
        found = torch.cat([b for start in (0, 3, 6) for b in images.batches(2, start, min(start + 3, 7))])
        np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), PIXELS)


def test_pictures_of_other_shapes_are_refused_or_cropped(tmp_path):
    for other in [(8, 12), (4, 4)]:
        for number, size in enumerate([(8, 8), other]):
            Image.new("RGB", size, (9, 8, 7)).save(tmp_path / f"{number}.png")
        with pytest.raises(ValueError, match=rf"1\.png is {other[0]} x {other[1]}, no square of 8"):
            list(open_images(tmp_path).batches(2))
    (batch,) = open_images(tmp_path, "adm", 4).batches(5)
    assert batch.shape == (2, 3, 4, 4) and batch[1, :, 0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("float", np.zeros((2, 4, 4, 3)), "not uint8"),
        ("grey", np.zeros((2, 4, 4), np.uint8), "not uint8"),
        ("columns", np.asfortranarray(PIXELS), "Fortran"),
    ],
)
def test_an_npz_of_something_else_is_named(tmp_path, name, array, words):
    np.savez(tmp_path / f"{name}.npz", array)
    with pytest.raises(ValueError, match=words):
        open_images(tmp_path / f"{name}.npz")


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    np.savez(tmp_path / "whole.npz", PIXELS)
    data = (tmp_path / "whole.npz").read_bytes()
    for cut in (10, 200, len(data) - 30):
        (tmp_path / "cut.npz").write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"cut\.npz is damaged"):
            list(open_images(tmp_path / "cut.npz").batches(2))
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        header = io.BytesIO()
        np.save(header, PIXELS)
        archive.writestr("arr_0.npy", header.getvalue()[:-5])
    with pytest.raises(ValueError, match="ends before its last image"):
        list(open_images(tmp_path / "short.npz").batches(7))
    np.savez(tmp_path / "other.npz", mu=np.zeros(3))
    with pytest.raises(ValueError, match=r"holds no arr_0; it holds mu\.npy"):
        open_images(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="no images at"):
        open_images(tmp_path / "nothing.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        open_images(tmp_path / "empty")


def test_a_reference_brings_its_moments(tmp_path):
    np.savez(tmp_path / "r.npz", mu=np.arange(3.0), sigma=np.eye(3), mu_s=np.zeros(2), sigma_s=2 * np.eye(2))
    found = npz_moments(tmp_path / "r.npz")
    assert found["mu"].tolist() == [0, 1, 2] and found["sigma"].trace() == 3
    assert found["sigma_s"].trace() == 4 and found["mu_s"].dtype == torch.float64
    assert not holds_images(tmp_path / "r.npz")
    np.savez(tmp_path / "bad.npz", mu=np.arange(3.0), sigma=np.eye(2))
    with pytest.raises(ValueError, match="do not fit"):
        npz_moments(tmp_path / "bad.npz")
    np.savez(tmp_path / "nan.npz", mu=np.array([np.nan]), sigma=np.eye(1))
    with pytest.raises(ValueError, match="not finite"):
        npz_moments(tmp_path / "nan.npz")


def test_code_in_an_npz_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return print, ("executed",)

    np.savez(tmp_path / "h.npz", mu=np.array([Hostile()], object), sigma=np.eye(1))
    with pytest.raises(ValueError, match="allow_pickle"):
        npz_moments(tmp_path / "h.npz")
    np.savez(tmp_path / "i.npz", np.array([Hostile()], object))
    with pytest.raises(ValueError, match="not uint8"):
        open_images(tmp_path / "i.npz")
