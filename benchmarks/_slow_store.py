"""A local S3 server behind a proxy that delays each request and counts the bytes of responses."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

_HOST = "127.0.0.1"
_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class SlowStore:
    """What clients see of it.

    Attributes:
        url: Of the proxy.
        num_bytes: Of all responses.
    """

    def __init__(self, behind: int, bucket: str, latency_s: float) -> None:
        self.url = ""
        self.num_bytes = 0
        self._behind, self._bucket, self._latency_s = behind, bucket, latency_s

    @property
    def variables(self) -> dict[str, str]:
        """Where clients find it, and its keys."""
        addresses = {"AWS_ENDPOINT_URL": self.url, "S3_ENDPOINT_URL": self.url}
        # Clients in Rust insist on the one; the other is where a machine in a cloud would look for keys.
        return addresses | _KEYS | {"AWS_ALLOW_HTTP": "true", "AWS_EC2_METADATA_DISABLED": "true"}

    def key_of(self, folder: Path) -> str:
        """Return bucket and prefix of an uploaded folder."""
        return f"{self._bucket}/{folder.name.replace(' ', '_')}"

    def upload(self, folder: Path) -> None:
        """Put the files of a folder under its name, without delay."""
        client = self._client()
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"{self.key_of(folder)}/{path.relative_to(folder)}".partition("/")[2]
                client.upload_file(str(path), self._bucket, key, ExtraArgs={"ACL": "public-read"})

    def make_bucket(self) -> None:
        """Create the bucket."""
        self._client().create_bucket(Bucket=self._bucket)

    async def serve(self, is_ready: threading.Event) -> None:
        """Pass connections through until the process ends."""
        server = await asyncio.start_server(self._connection, _HOST, 0)
        self.url = f"http://{_HOST}:{server.sockets[0].getsockname()[1]}"
        is_ready.set()
        await server.serve_forever()

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://{_HOST}:{self._behind}",
            aws_access_key_id=_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=_KEYS["AWS_DEFAULT_REGION"],
        )

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(_HOST, self._behind)
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
def slow_store(bucket: str, latency_s: float) -> Iterator[SlowStore]:
    """Run the server and the proxy with an empty bucket."""
    server = ThreadedMotoServer(_HOST, 0, verbose=False)
    server.start()
    store, is_ready = SlowStore(server.get_host_and_port()[1], bucket, latency_s), threading.Event()
    threading.Thread(target=lambda: asyncio.run(store.serve(is_ready)), daemon=True).start()
    is_ready.wait()
    store.make_bucket()
    try:
        yield store
    finally:
        server.stop()
