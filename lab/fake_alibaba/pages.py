"""NextToken and MaxResults of ECS's newer listings, PageNumber and PageSize of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lab.fake_alibaba.errors import ApiError
from lab.fake_alibaba.parameters import number
from lab.fake_cloud import paging
from lab.fake_cloud.paging import BadToken, R

_DEFAULT = 10
_OF_PAGE = ("NextToken", "MaxResults", "PageNumber", "PageSize")


def page(
    records: Iterable[R], action: str, parameters: Mapping[str, Any], *, largest: int
) -> tuple[list[R], dict[str, Any]]:
    """Records of this page, and what the answer says of it.

    :param largest: rows that a page may have; ten if the call does not say.
    """
    if parameters.get("NextToken") or parameters.get("MaxResults"):
        size = number(parameters, "MaxResults", _DEFAULT, 1, largest)
        asked = sorted((key, value) for key, value in parameters.items() if key not in _OF_PAGE)
        try:
            found, token = paging.page(records, (action, asked), size, parameters.get("NextToken") or "")
        except BadToken:
            raise ApiError("InvalidParameter.NextToken", "The specified NextToken is invalid.") from None
        return found, {"NextToken": token or ""}
    return numbered(records, parameters, largest=largest)


def numbered(records: Iterable[R], parameters: Mapping[str, Any], *, largest: int) -> tuple[list[R], dict[str, Any]]:
    """A page by its number."""
    size = number(parameters, "PageSize", _DEFAULT, 1, largest)
    at = number(parameters, "PageNumber", 1, 1, 1 << 31)
    rows = list(records)
    return rows[(at - 1) * size : at * size], {"TotalCount": len(rows), "PageNumber": at, "PageSize": size}
