"""One image file: what its head says, what its pixels are, and why it cannot be used.

Light, since every process that decodes imports it: Pillow and NumPy only. Knows nothing of classes or folders.
"""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

_FORMATS_OF_EXTENSIONS = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".png": "PNG",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
EXTENSIONS = frozenset(_FORMATS_OF_EXTENSIONS)
"""What names of image files end with, in small letters."""

_FORMATS = sorted(set(_FORMATS_OF_EXTENSIONS.values()))
"""No others: Pillow would hand an EPS file to Ghostscript."""
_GREY_MODES, _COLOUR_MODES = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "RGBX")
_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
_DRAFT_FACTOR = 2
"""A JPEG is decoded at the smallest of its own scales that leaves so many pixels for each one resized to."""


@dataclass(frozen=True)
class Head:
    """What one looks at before decoding.

    Attributes:
        size: Height and width, as the image is to be seen.
        grey: Whether it has no colour.
        format: What Pillow calls the file's format.
        misnamed: Whether the format is another than the name's extension says.
    """

    size: tuple[int, int]
    grey: bool
    format: str = ""
    misnamed: bool = False


class UnusableImageError(Exception):
    """An image that cannot be used; the message says why, as the rest of a line that begins with its path."""


def read_head(path: Path) -> Head:
    """What the head of an image file says.

    Raises:
        UnusableImageError: It is empty, no image, too large, or its pixels have no plain form of 8 bits.
    """
    with _opened(path) as image:
        image_format = "JPEG" if image.format == "MPO" else str(image.format)  # which some cameras write
        misnamed = _FORMATS_OF_EXTENSIONS.get(path.suffix.lower()) != image_format
        return replace(head_of(image), format=image_format, misnamed=misnamed)


def head_of(image: Image.Image) -> Head:
    """What an image says before it is decoded.

    Raises:
        UnusableImageError: Its pixels have no plain form of 8 bits.
    """
    _check_mode(image)
    # Pillow turns a TIFF by itself, and would decode a whole PNG to look for what is hardly ever at its end.
    settled = image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info)
    turned = not settled and image.getexif().get(_ORIENTATION) in _QUARTER_TURNS
    return Head((image.width, image.height) if turned else (image.height, image.width), image.mode in _GREY_MODES)


def read_pixels(path: Path, resolution: int | None, *, grey: bool) -> NDArray[np.uint8]:
    """An image file's pixels, decoded to its last byte; see `pixels_of`.

    Raises:
        UnusableImageError: See `read_head`, and a file that ends early or is damaged.
    """
    with _opened(path) as image:
        return pixels_of(image, resolution, grey=grey)


def pixels_of(image: Image.Image, resolution: int | None, *, grey: bool) -> NDArray[np.uint8]:
    """Pixels as networks get them, shape `(channels, height, width)`.

    What is transparent lies on black. The orientation a camera noted is applied.

    Args:
        image: Decoded or not.
        resolution: Height and width to bring it to: shorter side resized, antialiased, and the middle cut out; None
            leaves the size as it is.
        grey: One channel of brightness, else three of colour.

    Raises:
        UnusableImageError: Its pixels have no plain form of 8 bits.
    """
    _check_mode(image)
    if resolution is not None:
        least = _DRAFT_FACTOR * resolution / min(image.size)
        image.draft(None, (int(image.width * least), int(image.height * least)))  # of JPEG alone; no effect on others
    image = ImageOps.exif_transpose(image)
    if resolution is not None and image.size != (resolution, resolution):
        # Palettes and single bits cannot be resized smoothly, and transparent pixels must not bleed.
        image = _opaque(image, "L" if image.mode in _GREY_MODES else "RGB")
        image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BILINEAR)
    image = _opaque(image, "L" if grey else "RGB")
    pixels = np.asarray(image, np.uint8)
    return np.ascontiguousarray(pixels[None] if grey else pixels.transpose(2, 0, 1))


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert(mode)
    image = image.convert("RGBA")
    black = Image.new("RGB", image.size)
    black.paste(image, mask=image.getchannel("A"))
    return black.convert(mode)


def _check_mode(image: Image.Image) -> None:
    """Refuse pixels that 8 bits of grey or RGB cannot hold, or whose colours depend on a profile.

    Raises:
        UnusableImageError: With what to do.
    """
    if image.mode == "CMYK":
        msg = "CMYK, whose colours depend on a profile; save it as RGB"
        raise UnusableImageError(msg)
    # Pillow keeps the upper half of 16 bits where it has no mode for them, and says so only in how it unpacks them.
    unpacked = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in getattr(image, "tile", ())[:1]]
    wide = any(str(part).endswith((";16B", ";16L", ";16N")) for parts in unpacked for part in parts)
    wide |= image.format == "PPM" and any(isinstance(part, int) and part > 255 for parts in unpacked for part in parts)
    if wide or image.mode.startswith(("I", "F")):
        msg = f"16 bits or more a channel (mode {image.mode}); save it with 8"
        raise UnusableImageError(msg)
    if image.mode not in (*_GREY_MODES, *_COLOUR_MODES):
        msg = f"colours of mode {image.mode}; save it as RGB or grey"
        raise UnusableImageError(msg)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A file opened as an image, whatever is raised then or until it is closed put in words.

    Raises:
        UnusableImageError: See `read_pixels`.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        msg = f"cannot be read ({os.strerror(error.errno or errno.EIO)})"
        raise UnusableImageError(msg) from None
    with file, warnings.catch_warnings():
        if not os.fstat(file.fileno()).st_size:
            msg = "empty (0 bytes)"
            raise UnusableImageError(msg)
        warnings.simplefilter("ignore")  # of damaged EXIF and the like, which takes nothing from the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=_FORMATS) as image:
                yield image
        except UnusableImageError:
            raise
        except UnidentifiedImageError:
            msg = "no image, in spite of its name"
            raise UnusableImageError(msg) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            msg = f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; save it smaller"
            raise UnusableImageError(msg) from None
        except Exception as error:  # what a decoder raises on damaged bytes is not settled
            msg = f"truncated or damaged ({error or type(error).__name__})"
            raise UnusableImageError(msg) from None
