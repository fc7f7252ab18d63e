"""Images as a model is shown them."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def open_image(content: bytes) -> "Image":
    """The image in a file of any format that Pillow reads, upright and in RGB.

    Raises:
        OSError, ValueError: it is none that Pillow reads.
    """
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as image:
        return ImageOps.exif_transpose(image).convert("RGB")
