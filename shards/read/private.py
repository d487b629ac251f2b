"""Folders and files that only this user, or root, can have created.

The path of a cache can be guessed, and may be below a folder that everybody can write to. What another user put there
is never read, written to, or followed.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

from shards.errors import ShardError

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def default_cache_dir() -> Path:
    """Return this user's own cache folder for shards: below `XDG_CACHE_HOME`, else `~/.cache`."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(given) if given.startswith("/") else Path.home() / ".cache"
    except RuntimeError:  # a container's user without a home
        return Path(tempfile.gettempdir()) / f"sed-trainer-shards-{os.geteuid()}"
    return base / "sed-trainer" / "shards"


def make_private(folder: Path) -> None:
    """Create a folder for this user alone, or check that an existing one is the user's own or root's.

    Raises:
        ShardError: It belongs to another user.
        OSError: It cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _check_owner(folder, folder.stat())


def open_own(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a regular file of this user's or root's; a new one is for this user alone.

    Raises:
        ShardError: It belongs to another user, is a link, or is not a regular file.
        OSError: It is missing or cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise ShardError(f"{path} is a link or not a regular file; {_remedy(path.parent)}") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EISDIR):
            raise ShardError(f"{path} cannot be opened: {error.strerror}; {_remedy(path.parent)}") from error
        raise
    stream = os.fdopen(descriptor, "r+b" if flags & os.O_RDWR else "rb")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ShardError(f"{path} is not a regular file; {_remedy(path.parent)}")
        _check_owner(path, status)
    except BaseException:
        stream.close()
        raise
    return stream


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid in (os.geteuid(), 0):
        return
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = f"user {status.st_uid}"
    folder = path if stat.S_ISDIR(status.st_mode) else path.parent
    raise ShardError(f"{path} belongs to {owner}, who could have put anything there; {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    return f"the cache data.cache_dir={folder} cannot be used: give a folder of your own with --data.cache-dir"
