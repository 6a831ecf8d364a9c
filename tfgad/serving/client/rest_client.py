"""The REST transport of a client, by requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tfgad.serving.client.transport import INITIAL_BACKOFF, Arrays, ClientError

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
    "DT_STRING": np.object_,
}
# gRPC codes for the HTTP statuses of TF Serving and `tfgad serve`.
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


class RestTransport:
    """A connection to one model by REST; see `tfgad.serving.client.client.Client`."""

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
        retry = Retry(
            connect=retries,
            status=retries,
            read=False,  # a request that timed out is not sent again
            other=0,
            redirect=0,
            status_forcelist=(503,),
            allowed_methods=None,  # POST, too: requests change nothing, see `Client`
            backoff_factor=INITIAL_BACKOFF,
            raise_on_status=False,
        )
        self._session = requests.Session()
        self._session.trust_env = False  # ignore proxy settings: the server is a local one
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"
        if ca_certificate is not None:
            self._session.verify = str(ca_certificate)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=64))
        self._signatures: dict[str, Any] = {}

    def predict(self, inputs: Arrays, signature: str) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name."""
        values = {name: _to_json(array) for name, array in inputs.items()}
        document = {"signature_name": signature, "inputs": values}
        body = json.dumps(document, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        answer = self._request("POST", ":predict", data=body, headers=headers)["outputs"]
        specs = self._outputs(signature)
        if len(specs) == 1:  # a single output comes without its name
            answer = {next(iter(specs)): answer}
        elif not isinstance(answer, dict) or answer.keys() != specs.keys():
            self._signatures.clear()  # another version with other outputs is in service now
            specs = self._outputs(signature)
        return {name: _from_json(answer[name], specs[name]["dtype"]) for name in specs}

    def metadata(self) -> dict[str, Any]:
        """Returns the model's signatures."""
        answer = self._request("GET", "/metadata")
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
        """Returns the states of the model's versions."""
        return {
            int(each["version"]): {"state": each["state"], **each["status"]}
            for each in self._request("GET", "")["model_version_status"]
        }

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

    def _outputs(self, signature: str) -> dict[str, Any]:
        """Returns the specs of a signature's outputs, since JSON carries no dtypes."""
        if signature not in self._signatures:
            self._signatures = self.metadata()["signatures"]
        return self._signatures[signature]["outputs"]

    def _request(self, method: str, path: str, **content: Any) -> Any:
        """Sends a request; returns the parsed answer."""
        try:
            answer = self._session.request(
                method, self._url + path, timeout=self._timeout, **content
            )
        except self._errors.RequestException as error:
            # requests reports a timeout within the answer's body as a ConnectionError.
            is_late = any(isinstance(each, self._read_timeout) for each in error.args)
            if is_late or isinstance(error, self._errors.Timeout):
                raise ClientError("DEADLINE_EXCEEDED", f"no answer in {self._timeout} s") from error
            raise ClientError(
                "UNAVAILABLE", f"no server answers at {self._url}: {error}"
            ) from error
        if answer.ok:
            return json.loads(answer.content)  # Python's parser reads NaN, which TF Serving writes
        code = CODES.get(answer.status_code, "INTERNAL")
        try:
            message = json.loads(answer.content)["error"]
        except (ValueError, KeyError, TypeError):  # the answer of a proxy or of another server
            message = f"HTTP status {answer.status_code}: {answer.text[:200]}"
        raise ClientError(code, message)


def _spec(info: Mapping[str, Any]) -> dict[str, Any]:
    shape = info.get("tensor_shape", {})
    lengths = None if shape.get("unknown_rank") else [int(d["size"]) for d in shape.get("dim", ())]
    return {"dtype": info["dtype"], "shape": lengths}


def _to_json(array: np.ndarray) -> Any:
    """Returns an array as nested lists, with bytes in base64."""
    values = array.tolist()
    return _encode(values) if array.dtype.kind in "SO" else values


def _encode(value: Any) -> Any:
    if isinstance(value, list):
        return [_encode(each) for each in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value


def _from_json(value: Any, dtype: str) -> np.ndarray:
    """Returns nested lists as an array."""
    if dtype == "DT_STRING":
        return np.array(_decode(value), object)
    return np.array(value, DTYPES[dtype])


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(each) for each in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()
