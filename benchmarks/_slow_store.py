"""A local S3 server behind a proxy that delays each request and counts the bytes of responses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_START_TIMEOUT_S = 60


class SlowStore:
    """What clients see of it.

    Attributes:
        url: Of the proxy.
        num_bytes: Of all responses.
    """

    def __init__(self, port: int, behind: int, bucket: str, latency_s: float) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.num_bytes = 0
        self._port, self._behind, self._bucket, self._latency_s = port, behind, bucket, latency_s

    @property
    def variables(self) -> dict[str, str]:
        """Where clients find it, and its keys."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "S3_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",  # which clients in Rust insist on
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def upload(self, folder: Path) -> None:
        """Put the files of a folder under its name, without delay."""
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self._behind}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = f"{folder.name.replace(' ', '_')}/{path.relative_to(folder)}"
                client.upload_file(str(path), self._bucket, name, ExtraArgs={"ACL": "public-read"})

    def make_bucket(self) -> None:
        """Create the bucket."""
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{self._behind}/{self._bucket}", method="PUT"), timeout=5
        ).close()

    async def serve(self) -> None:
        """Pass connections through."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", self._port)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        await asyncio.gather(
            self._pass(reader, behind_writer, is_request=True), self._pass(behind_reader, writer, is_request=False)
        )

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 18):
                if is_request:
                    await asyncio.sleep(self._latency_s)  # a request without a body is one piece
                else:
                    self.num_bytes += len(data)
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            writer.close()


@contextlib.contextmanager
def slow_store(folder: Path, bucket: str, latency_s: float) -> Iterator[SlowStore]:
    """Run the server and the proxy with an empty bucket."""
    behind, port = _free_port(), _free_port()
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(behind)]
    with (folder / "store.txt").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        store = SlowStore(port, behind, bucket, latency_s)
        try:
            deadline_s = time.monotonic() + _START_TIMEOUT_S
            while True:
                try:
                    store.make_bucket()
                    break
                except OSError:
                    if time.monotonic() > deadline_s or server.poll() is not None:
                        raise
                    time.sleep(0.2)
            threading.Thread(target=lambda: asyncio.run(store.serve()), daemon=True).start()
            yield store
        finally:
            server.kill()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
