"""What a watch stream is made of: positions, and the batches that lead from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from services.api.watch.v1 import watch_pb2

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a subscriber stands; revisions of different epochs can't be compared. The default means: nowhere yet."""

    epoch: str = ""
    revision: int = 0

    @classmethod
    def from_proto(cls, message: watch_pb2.Position) -> Position:
        return cls(message.epoch, message.revision)

    def to_proto(self) -> watch_pb2.Position:
        return watch_pb2.Position(epoch=self.epoch, revision=self.revision)


START: Final = Position()


@dataclass(slots=True, eq=False)
class Batch(Generic[M]):
    """What brings a subscriber to `position`. Shared between subscribers: never change one.

    :ivar position: where the subscriber stands once the batch is applied. `START` inside an unfinished snapshot, for
        from there nobody can go on.
    :ivar snapshot: the batch starts a snapshot: what is not named until `complete` does not exist.
    :ivar complete: the snapshot ends here. Always true for deltas.
    :ivar upserts: new values; `keys` names them in the same order.
    :ivar deletes: keys that are gone.
    :ivar end: revision of the last change in it.
    :ivar wire: its encoded form, once somebody asked for it.
    """

    position: Position
    snapshot: bool
    complete: bool
    keys: list[str]
    upserts: list[M]
    deletes: list[str]
    end: int
    wire: bytes | None = None

    def header(self) -> watch_pb2.Header:
        return watch_pb2.Header(
            position=self.position.to_proto() if self.position.epoch else None,
            snapshot=self.snapshot,
            complete=self.complete,
        )


@dataclass(frozen=True, slots=True)
class SubscriberStatus:
    """One subscriber, for people and metrics."""

    name: str
    sent: int
    acked: int
    errors: Mapping[str, str]
