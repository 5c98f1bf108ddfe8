"""The one error that a store raises."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, IntegrityError, InternalError, OperationalError, SQLAlchemyError


class StoreError(SQLAlchemyError):
    """The database did not take it, or could not be asked.

    A child of SQLAlchemyError, so that a domain's store, which knows SQLAlchemy but not the services, can catch it.

    :param kind: "unavailable", "conflict" (a constraint was violated), "precondition", "invalid" or "internal".
    :param field: the setting to blame, dotted, or empty.
    :param remedy: what the reader can do about it.
    :param retry_after_s: when trying again makes sense, in seconds; None if it does not.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "unavailable",
        field: str = "",
        remedy: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.remedy = remedy
        self.retry_after_s = retry_after_s


def store_error(error: BaseException, location: str, *, committing: bool = False) -> StoreError:
    """What `error`, raised while speaking to the database at `location`, means to a caller."""
    if isinstance(error, StoreError):
        return error
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    if isinstance(error, IntegrityError):
        return StoreError(f"{location} refused it: {said}", kind="conflict")
    if isinstance(error, DBAPIError) and error.connection_invalidated and committing:
        return StoreError(
            f"{location} was lost during a commit ({said}): what was written may or may not be stored",
            remedy="read it again before writing it again",
            retry_after_s=1.0,
        )
    if isinstance(error, OperationalError | InternalError):
        return StoreError(
            f"{location} did not take it: {said}",
            remedy="see that the database runs, is reachable and has space left",
            retry_after_s=1.0,
        )
    return StoreError(f"{location} could not do it: {said}", kind="internal")


__all__ = ["StoreError", "store_error"]
