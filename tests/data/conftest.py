"""Image files for several tests."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def broken_files(tmp_path):
    """Writes one valid file per format, and broken files of every kind.

    Returns the reason expected of each broken file, by its name.
    """
    whole = tmp_path / "whole.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    for suffix in ("png", "jpg", "bmp", "tif", "webp"):
        Image.fromarray(noise).save(whole.with_suffix(f".{suffix}"))
        content = whole.with_suffix(f".{suffix}").read_bytes()
        (tmp_path / f"truncated.{suffix}").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tif")
    Image.fromarray(np.full((4, 4), 7, np.float32)).save(tmp_path / "seven.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "deep.tif")
    return {
        "truncated.png": "cannot be read",
        "truncated.jpg": "cannot be read",
        "truncated.bmp": "cannot be read",
        "truncated.tif": "cannot be read",
        "truncated.webp": "cannot be read",
        "empty.png": "is empty",
        "text.png": "is not a PNG, JPEG, BMP, TIFF or WebP",
        "nan.tif": "not numbers",
        "seven.tif": "outside 0 to 1",
        "deep.tif": "outside 0 to 65535",
    }
