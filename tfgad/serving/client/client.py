"""A client of TF Serving and of `tfgad serve`, by REST or gRPC.

    client = Client("http://127.0.0.1:8501", "parts")
    client.score("part.png")  # {"score": [1], "probability": [1], "is_anomalous": [1], "map": ...}
    client.score(images)  # uint8 [B, H, W, C]
    Client("grpc://127.0.0.1:8500", "parts").score([file.read_bytes() for file in files])
    Client("https://inspection:8501", "parts", token=token, ca_certificate="ca.pem")

REST needs numpy and requests, no TensorFlow; gRPC needs tensorflow-serving-api, which imports it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import numpy as np

from tfgad.errors import UsageError
from tfgad.serving.credentials import check_authority, check_token, read_token

DEFAULT_SIGNATURE, BYTES_SIGNATURE = "serving_default", "score_bytes"
TIMEOUT = 60.0  # seconds for an answer
RETRIES = 2  # more would wait longer than most people do
BACKOFF = 0.2  # seconds before the first retry; doubled for the next
# The types of the interface: those of TensorFlow's DataType that numpy has.
DTYPES = {
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_HALF": np.float16,
    "DT_BFLOAT16": np.float32,
    "DT_INT8": np.int8,
    "DT_INT16": np.int16,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
    "DT_UINT16": np.uint16,
    "DT_UINT32": np.uint32,
    "DT_UINT64": np.uint64,
    "DT_BOOL": np.bool_,
    "DT_STRING": object,
}
# gRPC's codes for the HTTP statuses that TF Serving and `tfgad serve` answer with.
CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

Encoded = bytes | str | os.PathLike
Arrays = Mapping[str, Any]


class ClientError(Exception):
    """What a server answered, or that it did not.

    Attributes:
        code: the name of a gRPC status code: `INVALID_ARGUMENT`, `NOT_FOUND`, `UNAVAILABLE` (also
            where nothing answers), `DEADLINE_EXCEEDED`, `RESOURCE_EXHAUSTED`, `INTERNAL`...
            By REST `FAILED_PRECONDITION` has the status of `INVALID_ARGUMENT`, and comes as that.
        message: the server's.
    """

    def __init__(self, code: str, message: str):
        self.code, self.message = code, message
        super().__init__(f"{code}: {message}")


class Transport(Protocol):
    """A way to a server."""

    def predict(self, inputs: Arrays, signature: str) -> dict[str, np.ndarray]:
        """Returns the outputs by name."""

    def metadata(self) -> dict[str, Any]:
        """Returns what `Client.metadata` does."""

    def status(self) -> dict[int, dict[str, str]]:
        """Returns what `Client.status` does."""

    def close(self) -> None:
        """Ends its connections."""


class Client:
    """A client of one model.

    A request is sent again up to `retries` times where that is safe: where no connection came
    about, or the server said that it is busy. All requests only ask, so that one may run twice; one
    whose time is up is not repeated, as its first run may still keep the server busy.

    Args:
        url: `http://HOST:8501`, `https://...`, `grpc://HOST:8500`, or `grpcs://...`.
        model: its name.
        version: its number; the one in service, if not given.
        timeout: seconds for each answer.
        retries: how often to try again.
        token: that the server asks for; that of the environment variable TFGAD_TOKEN, if not given.
            It is sent to whatever server `url` names, by plain `http://` and `grpc://` readable on
            its way.
        ca_certificate: PEM file of what the server's certificate is checked against, such as that
            certificate itself if it is self-signed; the usual authorities, if not given.
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
                raise UsageError("url", url, "has no certificate to check", hint)
            check_authority(ca)
        way = (model, version, timeout, retries, token)
        if scheme in ("http", "https") and address:
            self._transport: Transport = _Rest(url.rstrip("/"), *way, ca)
        elif scheme in ("grpc", "grpcs") and address:
            from tfgad.serving.client.grpc_client import Grpc

            self._transport = Grpc(address.rstrip("/"), *way, ca, is_secure=is_secure)
        else:
            hint = "give http://HOST:8501 or grpc://HOST:8500"
            raise UsageError("url", url, "is no address of a server", hint)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def score(
        self, images: np.ndarray | Encoded | Sequence[np.ndarray] | Sequence[Encoded]
    ) -> dict[str, np.ndarray]:
        """Judges images.

        Args:
            images: uint8 `[B, H, W, C]`, `[H, W, C]` or `[H, W]`; or whole PNG or JPEG files, as
                bytes or as paths; or a sequence of either. Those of one call are of one size,
                unless the model resizes files.

        Returns:
            `score`, `probability` `[B]`, `is_anomalous` bool `[B]`, `map` `[B, H, W]` and `reason`
            `[B]`.

        Raises:
            ClientError: the server's answer is an error, or there is none.
            OSError: a path cannot be read.
        """
        if isinstance(images, (bytes, str, os.PathLike)):
            images = [images]
        if not isinstance(images, np.ndarray) and all(
            isinstance(each, (bytes, str, os.PathLike)) for each in images
        ):
            files = [
                each if isinstance(each, bytes) else Path(each).read_bytes() for each in images
            ]
            return self.predict({"image_bytes": _strings(files)}, BYTES_SIGNATURE)
        if not isinstance(images, np.ndarray):
            images = np.stack([_with_channels(np.asarray(each)) for each in images])
        elif images.ndim < 4:
            images = _with_channels(images)[None]
        return self.predict({"images": images})

    def predict(self, inputs: Arrays, signature: str = DEFAULT_SIGNATURE) -> dict[str, np.ndarray]:
        """Calls a signature.

        Args:
            inputs: arrays by name; strings of bytes as arrays of type object.
            signature: its name.

        Returns:
            The outputs by name, in the types of the signature.

        Raises:
            ClientError: the server's answer is an error, or there is none.
        """
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        return self._transport.predict(arrays, signature)

    def metadata(self) -> dict[str, Any]:
        """Returns the model's signatures.

        Returns:
            `name`, `version`, and `signatures`: by name, each with `inputs` and `outputs`, which
            are by name `{"dtype": "DT_UINT8", "shape": [-1, ...]}`; the shape is None for any rank.

        Raises:
            ClientError: the server's answer is an error, or there is none.
        """
        return self._transport.metadata()

    def status(self) -> dict[int, dict[str, str]]:
        """Returns the states of the model's versions.

        Returns:
            By number `state` (`AVAILABLE` for the one in service, `END` for one that was unloaded
            or cannot be loaded), `error_code` and `error_message`.

        Raises:
            ClientError: the server's answer is an error, or there is none.
        """
        return self._transport.status()

    def close(self) -> None:
        """Ends the connections."""
        self._transport.close()


class _Rest:
    """The REST interface."""

    def __init__(
        self,
        url: str,
        model: str,
        version: int | None,
        timeout: float,
        retries: int,
        token: str | None = None,
        ca_certificate: Path | None = None,
    ):
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.exceptions import ReadTimeoutError
        from urllib3.util import Retry

        self._errors, self._read_timeout = requests.exceptions, ReadTimeoutError
        self._timeout = timeout
        self._url = f"{url}/v1/models/{quote(model, safe='')}"
        if version is not None:
            self._url += f"/versions/{version}"
        again = Retry(
            connect=retries,
            status=retries,
            read=False,  # a timeout stays one
            other=0,
            redirect=0,
            status_forcelist=(503,),
            allowed_methods=None,  # also POST: see `Client`
            backoff_factor=BACKOFF,
            raise_on_status=False,
        )
        self._session = requests.Session()
        self._session.trust_env = False  # a server of one's own is behind no proxy
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"
        if ca_certificate is not None:
            self._session.verify = str(ca_certificate)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=again, pool_maxsize=64))
        self._signatures: dict[str, Any] = {}

    def predict(self, inputs: Arrays, signature: str) -> dict[str, np.ndarray]:
        values = {name: _to_json(array) for name, array in inputs.items()}
        body = _dumps({"signature_name": signature, "inputs": values})
        headers = {"Content-Type": "application/json"}
        answer = self._ask("POST", ":predict", data=body, headers=headers)["outputs"]
        specs = self._outputs(signature)
        if len(specs) == 1:  # a single output goes without its name
            answer = {next(iter(specs)): answer}
        elif not isinstance(answer, dict) or answer.keys() != specs.keys():
            self._signatures.clear()  # another version is in service, with other outputs
            specs = self._outputs(signature)
        return {name: _from_json(answer[name], specs[name]["dtype"]) for name in specs}

    def metadata(self) -> dict[str, Any]:
        answer = self._ask("GET", "/metadata")
        definitions = answer["metadata"]["signature_def"]["signature_def"]
        spec = answer["model_spec"]
        return {
            "name": spec["name"],
            "version": int(spec["version"]),
            "signatures": {
                name: {
                    side: {each: _spec(info) for each, info in definition[side].items()}
                    for side in ("inputs", "outputs")
                }
                for name, definition in definitions.items()
            },
        }

    def status(self) -> dict[int, dict[str, str]]:
        return {
            int(each["version"]): {"state": each["state"], **each["status"]}
            for each in self._ask("GET", "")["model_version_status"]
        }

    def close(self) -> None:
        self._session.close()

    def _outputs(self, signature: str) -> dict[str, Any]:
        """Returns the outputs of a signature; JSON says nothing of their types."""
        if signature not in self._signatures:
            self._signatures = self.metadata()["signatures"]
        return self._signatures[signature]["outputs"]

    def _ask(self, method: str, path: str, **content) -> Any:
        try:
            answer = self._session.request(
                method, self._url + path, timeout=self._timeout, **content
            )
        except self._errors.RequestException as error:
            # What times out amid the answer's body, requests calls a ConnectionError.
            is_late = any(isinstance(each, self._read_timeout) for each in error.args)
            if is_late or isinstance(error, self._errors.Timeout):
                raise ClientError("DEADLINE_EXCEEDED", f"no answer in {self._timeout} s") from error
            raise ClientError("UNAVAILABLE", f"nothing answers at {self._url}: {error}") from error
        if answer.ok:
            return _loads(answer.content)
        code = CODES.get(answer.status_code, "INTERNAL")
        try:
            message = _loads(answer.content)["error"]
        except (ValueError, KeyError, TypeError):  # a proxy's, or no such server's
            message = f"HTTP status {answer.status_code}: {answer.text[:200]}"
        raise ClientError(code, message)


def _with_channels(image: np.ndarray) -> np.ndarray:
    return image[..., None] if image.ndim == 2 else image


def _strings(files: Sequence[bytes]) -> np.ndarray:
    array = np.empty(len(files), object)
    array[:] = files
    return array


def _spec(info: Mapping[str, Any]) -> dict[str, Any]:
    shape = info.get("tensor_shape", {})
    lengths = None if shape.get("unknown_rank") else [int(d["size"]) for d in shape.get("dim", ())]
    return {"dtype": info["dtype"], "shape": lengths}


def _to_json(array: np.ndarray) -> Any:
    """Returns an array as nested lists, with strings of bytes in base 64."""
    if array.dtype.kind in "SO":
        return _encoded(array.tolist())
    return array.tolist()


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(each) for each in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value


def _from_json(value: Any, dtype: str) -> np.ndarray:
    wanted = DTYPES[dtype]
    if wanted is not object:
        return np.array(value, wanted)
    return np.array(_decoded(value), object)


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _loads(content: bytes) -> Any:
    """Parses an answer; Python's own parser reads NaN, which TF Serving writes."""
    return json.loads(content)
