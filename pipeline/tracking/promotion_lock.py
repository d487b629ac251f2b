"""A lock in a model registry on a server: MLflow has none, but it creates a registered model of one name only once."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.tracking.environment import first_line
from pipeline.tracking.markdown import as_markdown
from pipeline.tracking.processes import has_died, this_process

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOG = logging.getLogger(__name__)
_POLL_S = 0.5
_RENEWED_EVERY_S = 60.0
_ABANDONED_AFTER_POLLS = 600
"""How often the server may show a lock without a sign of life from its holder: five minutes where it responds at once.

Polls, not seconds: while the server does not respond, its holder cannot renew it either.
"""
_MAX_NAME_CHARACTERS = 200


def lock_name(name: str) -> str:
    """Return the name of the registered model that is the lock of another one."""
    return f"{name[:_MAX_NAME_CHARACTERS]} (being promoted)"


@contextlib.contextmanager
def promotion_lock(client: MlflowClient, name: str) -> Iterator[None]:
    """Hold the lock of a registered model: in this block no other promotion, on any machine, is in its own.

    The holder renews it every minute. The lock of a process that was killed is removed at once where that process was
    one of this machine, and after five minutes without renewal where it was of another.
    """
    lock = lock_name(name)
    token = (
        f"Held by jobs/promote.py while it registers a version of {as_markdown(name)}, then removed. "
        f"{uuid.uuid4().hex} {this_process()}"
    )
    _acquire(client, lock, token)
    is_over = threading.Event()
    renewal = threading.Thread(target=_renew, args=(client, lock, token, is_over), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        is_over.set()
        renewal.join()
        _release(client, lock, token)


def _renew(client: MlflowClient, lock: str, token: str, is_over: threading.Event) -> None:
    from mlflow.exceptions import MlflowException

    while not is_over.wait(_RENEWED_EVERY_S):
        with contextlib.suppress(MlflowException):  # unreachable for a moment: the next time
            if _token_of(client, lock).startswith(token):
                client.update_registered_model(lock, f"{token} {time.time():.0f}")


def _release(client: MlflowClient, lock: str, token: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        if (found := _token_of(client, lock)).startswith(token):
            _remove(client, lock, found)
    except MlflowException as error:  # the promotion itself has succeeded, or failed for its own reason
        _LOG.warning("the registered model %r is a lock that could not be removed: %s", lock, first_line(error))


def _acquire(client: MlflowClient, lock: str, token: str) -> None:
    holder, num_polls = "", 0
    while (found := _create(client, lock, token)) != token:
        if found != holder:
            if not holder:
                _LOG.info("another promotion is under way; waiting for it")
            holder, num_polls = found, 0
        num_polls += 1
        if _is_of_a_dead_process(holder) or num_polls > _ABANDONED_AFTER_POLLS:
            _remove(client, lock, holder)
        time.sleep(_POLL_S)


def _is_of_a_dead_process(token: str) -> bool:
    return any(has_died(word) for word in token.split()[-2:])  # a renewed one ends in the time of its renewal


def _create(client: MlflowClient, lock: str, token: str) -> str:
    """Try to create the lock; return the token of the one that exists then, or nothing if it was just removed."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(lock, description=token)
        return token
    except MlflowException as error:
        # The second where it is removed while the server looks for the reason why it cannot be created.
        if error.error_code not in {"RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"}:
            raise
    return _token_of(client, lock)  # it may be this one, where a response was lost and the request repeated


def _token_of(client: MlflowClient, lock: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(lock).description or ""
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return ""


def _remove(client: MlflowClient, lock: str, token: str) -> None:
    if _token_of(client, lock) == token:
        client.delete_registered_model(lock)
