"""Images and masks of the Weizmann horse database (Borenstein and Ullman, ECCV 2002)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnembed._archives import is_hidden
from attnembed._files import PathLike, read_npz
from attnembed._sources import is_folder, locate, regular
from attnembed.errors import DataFileError
from attnembed.structured.data import GridDataset

__all__ = ["load_horses"]

Array = NDArray[Any]

_FILE = "weizmann32.npz"
_MASKS = {"horse": "mask", "rgb": "figure_ground"}  # folder of images -> folder of their masks
_IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_SIDE = 32
_TEST_EVERY = 7


def load_horses(path: PathLike) -> tuple[GridDataset, GridDataset]:
    """Read training and test images of the Weizmann horses (Borenstein and Ullman, ECCV 2002), 32 x 32.

    Images are (n, 32, 32, 3) uint8, labels (n, 32, 32) with 1 on the horse. ``path`` is

    - weizmann32.npz, or a folder that holds it: x_train, y_train, x_test and y_test, 278 and 49 images;
    - or a folder with horse/ and mask/, or with rgb/ and figure_ground/, which hold files of the same names in any
      format that Matplotlib reads. Images and masks are averaged over the areas of 32 x 32 pixels; a pixel is the
      horse where the mask reaches half of its brightest value. Sorted by name, every seventh image is for the test.

    Raises DataFileError, with the name of the file, if it is missing, cannot be read or has another shape.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     arrays = {"x_train": np.zeros((2, 32, 32, 3)), "y_train": np.zeros((2, 32, 32)),
    ...               "x_test": np.zeros((1, 32, 32, 3)), "y_test": np.zeros((1, 32, 32))}
    ...     file = Path(folder, "weizmann32.npz")
    ...     np.savez(file, **{name: array.astype(np.uint8) for name, array in arrays.items()})
    ...     train, test = load_horses(file)
    >>> train.images.shape, test.labels.shape
    ((2, 32, 32, 3), (1, 32, 32))
    """
    source = locate(path, (_FILE, *_MASKS))
    if is_folder(source):
        return _from_folders(source, source.parent / _MASKS[source.name])
    arrays = read_npz(regular(source), tuple(f"{array}_{part}" for part in ("train", "test") for array in "xy"))
    for name, array in arrays.items():
        shape = (_SIDE, _SIDE, 3) if name[0] == "x" else (_SIDE, _SIDE)
        if array.dtype.kind not in "bu" or array.shape[1:] != shape or len(array) == 0:
            expected = f"must hold {name} of shape {('n', *shape)} and type uint8"
            raise DataFileError(source, f"{expected}; got shape {array.shape} and type {array.dtype}")
        if name[0] == "y" and array.max() > 1:
            raise DataFileError(source, f"must hold {name} of 0 and 1; got {array.max()}")
    for part in ("train", "test"):
        n, masks = len(arrays[f"x_{part}"]), len(arrays[f"y_{part}"])
        if n != masks:
            raise DataFileError(source, f"must hold a mask for each image; x_{part} has {n}, y_{part} has {masks}")
    return GridDataset(arrays["x_train"], arrays["y_train"]), GridDataset(arrays["x_test"], arrays["y_test"])


def _from_folders(images: Path, masks: Path) -> tuple[GridDataset, GridDataset]:
    pictures, targets = _image_files(images), _image_files(masks)
    if set(pictures) != set(targets):
        name = min(set(pictures) ^ set(targets))
        raise DataFileError(
            *((masks, f"holds no mask of {name}") if name in pictures else (images, f"holds no {name}"))
        )
    if len(pictures) < _TEST_EVERY:
        raise DataFileError(images, f"must hold at least {_TEST_EVERY} images; got {len(pictures)}")
    names = sorted(pictures)
    x = np.rint(255 * np.stack([_resized(_read_image(pictures[name])) for name in names])).astype(np.uint8)
    y = np.stack([_resized(_brightness(_read_image(targets[name]))) >= 0.5 for name in names])
    test = np.arange(1, len(names) + 1) % _TEST_EVERY == 0
    return GridDataset(x[~test], y[~test].astype(np.intp)), GridDataset(x[test], y[test].astype(np.intp))


def _image_files(folder: Path) -> dict[str, Path]:
    """The images of a folder by their names without the suffix; hidden files are skipped."""
    try:
        files = [file for file in folder.iterdir() if not is_hidden(file.name)]
    except FileNotFoundError as error:
        raise DataFileError(folder, "does not exist") from error
    except OSError as error:
        raise DataFileError(folder, f"cannot be read: {error.strerror or error}") from error
    return {file.stem: file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES}


def _read_image(path: Path) -> Array:
    """Red, green and blue (H, W, 3) in [0, 1]; grey is repeated, transparency dropped."""
    from matplotlib.image import imread

    try:
        image = imread(path)
    except Exception as error:  # a damaged image can raise almost anything
        reason = getattr(error, "strerror", None) or "is not an image that Matplotlib can read"
        raise DataFileError(path, reason) from error
    if image.dtype.kind != "f":
        image = image / np.iinfo(image.dtype).max
    image = np.atleast_3d(image)
    colours = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    return np.broadcast_to(colours, (*image.shape[:2], 3))


def _brightness(image: Array) -> Array:
    """Mean of the colours, with 1 for the brightest pixel: some masks hold 0 and 1 of 255."""
    grey = image.mean(axis=2)
    value: Array = grey / (grey.max() or 1.0)
    return value


def _resized(image: Array) -> Array:
    """The mean over each of 32 x 32 equal areas; pixels shared between areas count in proportion."""
    down, across = (_shares(size) for size in image.shape[:2])
    return np.moveaxis(np.tensordot(across, np.tensordot(down, image, axes=1), axes=(1, 1)), 0, 1)


def _shares(size: int) -> Array:
    """(32, size): the part of each of 32 equal segments of a line covered by each of ``size`` pixels; rows sum to 1."""
    edges = np.linspace(0, size, _SIDE + 1)[:, None]
    pixels = np.arange(size)
    common = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    value: Array = np.maximum(common, 0) * (_SIDE / size)
    return value
