"""A client of TF Serving and of `tfgad serve`, by REST or gRPC.

    client = Client("http://127.0.0.1:8501", "parts")
    client.score("part.png")  # {"score": [1], "probability": [1], "is_anomalous": [1], "map": ...}
    client.score(images)  # uint8 [B, H, W, C]
    client.regions("part.png")  # boxes instead of the map
    Client("grpc://127.0.0.1:8500", "parts").score([file.read_bytes() for file in files])
    Client("https://inspection:8501", "parts", token=token, ca_certificate="ca.pem")

REST needs numpy and requests, not TensorFlow. gRPC needs tensorflow-serving-api, which imports
TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfgad.errors import UsageError
from tfgad.serving.client.rest_client import RestTransport
from tfgad.serving.client.transport import Arrays, Transport
from tfgad.serving.credentials import check_authority, check_token, read_token

DEFAULT_SIGNATURE, BYTES_SIGNATURE = "serving_default", "score_bytes"
TIMEOUT = 60.0  # seconds for an answer
RETRIES = 2  # with their pauses 0.6 s; more would keep a user waiting for a server that is down

Encoded = bytes | str | os.PathLike
Images = np.ndarray | Encoded | Sequence[np.ndarray] | Sequence[Encoded]


class Client:
    """A client of one model.

    A request that failed is sent again, up to `retries` times, if no connection could be made or
    the server answered that it is busy. This is safe, since requests change nothing on the server.
    A request that timed out is not sent again: the server may still be working on it.

    Args:
        url: `http://HOST:8501`, `https://...`, `grpc://HOST:8500`, or `grpcs://...`.
        model: name of the model.
        version: its version; by default the version in service.
        timeout: seconds to wait for each answer.
        retries: how often to send a failed request again.
        token: access token of the server; by default that of the environment variable
            TFGAD_TOKEN. It is sent to the server that `url` names, unencrypted if the scheme is
            `http` or `grpc`.
        ca_certificate: PEM file to verify the server's certificate with; for a self-signed
            certificate, that certificate itself. By default the usual authorities.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        version: int | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        token: str | None = None,
        ca_certificate: str | os.PathLike | None = None,
    ):
        token = read_token(None) if token is None else check_token("token", "...", token)
        scheme, _, address = url.partition("://")
        is_secure = scheme in ("https", "grpcs")
        ca = Path(ca_certificate) if ca_certificate is not None else None
        if ca is not None:
            if not is_secure:
                hint = "give https://HOST:8501 or grpcs://HOST:8500"
                raise UsageError("url", url, "has no certificate to verify", hint)
            check_authority(ca)
        settings = (model, version, timeout, retries, token)
        self._transport: Transport
        if scheme in ("http", "https") and address:
            self._transport = RestTransport(url.rstrip("/"), *settings, ca)
        elif scheme in ("grpc", "grpcs") and address:
            from tfgad.serving.client.grpc_client import GrpcTransport  # imports TensorFlow

            self._transport = GrpcTransport(address.rstrip("/"), *settings, ca, is_secure=is_secure)
        else:
            hint = "give http://HOST:8501 or grpc://HOST:8500"
            raise UsageError("url", url, "is no address of a server", hint)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def score(self, images: Images) -> dict[str, np.ndarray]:
        """Scores images.

        Args:
            images: uint8 `[B, H, W, C]`, `[H, W, C]` or `[H, W]`; or PNG or JPEG files, as bytes
                or as paths; or a sequence of either. All images of a call have the same size,
                unless they are files and the model resizes them.

        Returns:
            `score` float32 `[B]`, `probability` float32 `[B]`, `is_anomalous` bool `[B]`,
            `map` float32 `[B, H, W]`, `reason` bytes `[B]` and, unless an earlier tfgad exported
            the model, `brightness` float32 `[B]`; of a model of several products also `product`
            bytes `[B]`.

        Raises:
            ClientError: the server answered an error, or did not answer.
            OSError: a file cannot be read.
        """
        return self._predict(images, DEFAULT_SIGNATURE, BYTES_SIGNATURE)

    def regions(self, images: Images) -> dict[str, np.ndarray]:
        """Scores images, and lists the connected regions above the threshold instead of the map.

        Args:
            images: as for `score`.

        Returns:
            What `score` does, without the map; `regions` float32 `[B, 64, 9]`, the largest first,
            the rest zeros; and `region_count` int32 `[B]`, which may be more than are listed, and
            is -1 where the score has no threshold for pixels.
            `tfgad.scores.map_regions.from_outputs` makes a list of those of one image.

        Raises:
            ClientError: the server answered an error, such as that the model was exported by an
                earlier tfgad, without regions; or it did not answer.
            OSError: a file cannot be read.
        """
        return self._predict(images, "regions", "regions_bytes")

    def _predict(self, images: Images, for_arrays: str, for_files: str) -> dict[str, np.ndarray]:
        """Calls one of two signatures with images; see `score`."""
        if isinstance(images, np.ndarray):
            batch = images if images.ndim == 4 else _as_batch(images)
            return self.predict({"images": batch}, for_arrays)
        listed = [images] if isinstance(images, (bytes, str, os.PathLike)) else list(images)
        files = [_content(each) for each in listed if isinstance(each, (bytes, str, os.PathLike))]
        if len(files) == len(listed):
            array = np.empty(len(files), object)
            array[:] = files
            return self.predict({"image_bytes": array}, for_files)
        batches = [_as_batch(np.asarray(each)) for each in listed]
        return self.predict({"images": np.concatenate(batches)}, for_arrays)

    def predict(self, inputs: Arrays, signature: str = DEFAULT_SIGNATURE) -> dict[str, np.ndarray]:
        """Calls a signature.

        Args:
            inputs: arrays by name; bytes in arrays of dtype object.
            signature: name of the signature.

        Returns:
            The outputs by name, in the dtypes of the signature.

        Raises:
            ClientError: the server answered an error, or did not answer.
        """
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        return self._transport.predict(arrays, signature)

    def metadata(self) -> dict[str, Any]:
        """Returns the model's signatures.

        Returns:
            `name`, `version`, and `signatures`: a dict by name, each with `inputs` and `outputs`,
            which are dicts of tensor name to `{"dtype": "DT_UINT8", "shape": [-1, ...]}`. The
            shape is None if the rank is unknown.

        Raises:
            ClientError: the server answered an error, or did not answer.
        """
        return self._transport.metadata()

    def status(self) -> dict[int, dict[str, str]]:
        """Returns the states of the model's versions.

        Returns:
            A dict of version to `state` (`AVAILABLE` for the version in service, `END` for one
            that was unloaded or cannot be loaded), `error_code` and `error_message`.

        Raises:
            ClientError: the server answered an error, or did not answer.
        """
        return self._transport.status()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()


def _content(file: Encoded) -> bytes:
    """Returns the content of a file, given as bytes or as a path."""
    return file if isinstance(file, bytes) else Path(file).read_bytes()


def _as_batch(image: np.ndarray) -> np.ndarray:
    """Returns an image `[H, W, C]` or `[H, W]` as a batch `[1, H, W, C]`."""
    return (image[..., None] if image.ndim == 2 else image)[None]
