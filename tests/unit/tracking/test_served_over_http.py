"""A registered version behind `mlflow models serve`, on loopback."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from harness import BIN, photo
from served_versions import SCALE, URI, build_served, decoded, encoded
from servers import Server, free_port, running

from pipeline.inference.upscale import upscale


def post(url: str, body: Any) -> tuple[int, Any]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_version_responds_over_http(served_folder: Path) -> None:
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(BIN / "mlflow"), "models", "serve", "--model-uri", URI, "--env-manager", "local"]

    def ping() -> None:
        urllib.request.urlopen(f"{address}/ping", timeout=5).close()

    with running(Server([*command, "--port", str(port)], ping, served_folder / "server.log")):
        url, lq, generator = f"{address}/invocations", photo(0, 40, 70), build_served()
        expected = upscale(generator, lq, SCALE)
        text = encoded(lq)
        for body in (
            {"inputs": {"image": [text]}},
            {"dataframe_records": [{"image": text}]},
            {"inputs": [text], "params": {"tile_px": 512}},
        ):
            status, response = post(url, body)
            assert status == 200, response
            assert np.array_equal(decoded(response["predictions"][0]["image"]), expected)
        status, response = post(url, {"inputs": lq[:3, :4].tolist()})
        assert status == 200
        assert np.array_equal(np.array(response["predictions"]), upscale(generator, lq[:3, :4], SCALE))
        for body in ({"inputs": ["no image"]}, {"inputs": {"other": [text]}}, {"inputs": [[1, 2], [3, 4]]}):
            status, response = post(url, body)
            assert status == 400
            assert "give" in response["message"] or "encode" in response["message"]
            assert "Traceback" not in json.dumps(response)
