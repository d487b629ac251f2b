"""Why a photo cannot be used."""

from __future__ import annotations

from shards.format.rejects import RejectReason


class DecodeError(Exception):
    """A photo cannot be used; carries the reason that a reject is counted under."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: RejectReason = reason
        self.detail = detail
