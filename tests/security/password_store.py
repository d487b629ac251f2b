"""A store on loopback that opens to one user and password, as people put them into a URL: a small FTP server."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class PasswordStore:
    """Objects by path."""

    user: str
    password: str
    objects: dict[str, bytes] = field(default_factory=dict)
    port: int = 0
    num_logins: int = 0

    def url(self, folder: str) -> str:
        """Return a folder's URL with user and password."""
        return f"ftp://{self.user}:{self.password}@127.0.0.1:{self.port}/{folder}"

    def list(self, folder: str) -> bytes | None:
        """Return the listing of a folder as MLSD sends it; None if there is no such folder."""
        prefix = folder.rstrip("/") + "/"
        inside = {name[len(prefix) :]: content for name, content in self.objects.items() if name.startswith(prefix)}
        files = [f"type=file;size={len(content)}; {name}\r\n" for name, content in inside.items() if "/" not in name]
        folders = {name.partition("/")[0] for name in inside if "/" in name}
        lines = [*files, *(f"type=dir; {name}\r\n" for name in folders)]
        return "".join(lines).encode() if lines or folder == "/" else None


_METHODS = {
    "USER": "take_user",
    "PASS": "take_password",
    "TYPE": "take_type",
    "REST": "take_offset",
    "PASV": "open_port",
    "MLSD": "send_listing",
    "RETR": "send_file",
    "STOR": "take_file",
    "DELE": "delete",
}


class _Connection(socketserver.StreamRequestHandler):
    """One client."""

    store: PasswordStore
    user = ""
    is_known = False

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that is killed
            self.converse()

    def converse(self) -> None:
        self.reply("220 ready")
        for line in self.rfile:
            command, _, argument = line.decode().strip().partition(" ")
            if command == "QUIT":
                self.reply("221 bye")
                return
            method = getattr(self, _METHODS.get(command, ""), None)
            if not self.is_known and command not in ("USER", "PASS"):
                self.reply("530 log in first")
            elif method is None:
                self.reply("502 unknown")
            else:
                method(argument)

    def reply(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def take_user(self, name: str) -> None:
        self.user = name
        self.reply("331 password")

    def take_password(self, password: str) -> None:
        self.is_known = (self.user, password) == (self.store.user, self.store.password)
        self.store.num_logins += self.is_known
        self.reply("230 welcome" if self.is_known else "530 wrong password")

    def take_type(self, kind: str) -> None:
        self.reply("200 fine")

    def take_offset(self, offset: str) -> None:
        self.offset = int(offset)
        self.reply("350 fine")

    def open_port(self, _: str) -> None:
        self.data = socket.create_server(("127.0.0.1", 0))
        port = self.data.getsockname()[1]
        self.reply(f"227 (127,0,0,1,{port // 256},{port % 256})")

    def send(self, content: bytes | None) -> None:
        if content is None:
            self.reply("550 no such file")
            return
        self.reply("150 here it comes")
        with self.data, self.data.accept()[0] as connection, contextlib.suppress(ConnectionError):
            connection.sendall(content[getattr(self, "offset", 0) :])
        self.offset = 0
        self.reply("226 done")

    def send_listing(self, folder: str) -> None:
        self.send(self.store.list(folder))

    def send_file(self, path: str) -> None:
        self.send(self.store.objects.get(path))

    def take_file(self, path: str) -> None:
        self.reply("150 ready")
        with self.data, self.data.accept()[0] as connection, connection.makefile("rb") as stream:
            kept = self.store.objects.get(path, b"")[: getattr(self, "offset", 0)]
            self.store.objects[path] = kept + stream.read()
        self.offset = 0
        self.reply("226 done")

    def delete(self, path: str) -> None:
        self.reply("250 gone" if self.store.objects.pop(path, None) is not None else "550 no such file")


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextlib.contextmanager
def password_store(user: str, password: str) -> Iterator[PasswordStore]:
    """Run a store on a port of its own."""
    store = PasswordStore(user, password)
    with _Server(("127.0.0.1", 0), type("Connection", (_Connection,), {"store": store})) as server:
        store.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield store
        server.shutdown()
