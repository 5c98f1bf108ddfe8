"""MaxResults and NextToken, as EC2's listings take them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lab.fake_cloud import paging
from lab.fake_cloud.paging import BadToken, R
from lab.fake_ec2.errors import ApiError


def page(
    records: Iterable[R],
    action: str,
    parameters: Mapping[str, Any],
    *,
    ids: str = "",
    smallest: int = 5,
    largest: int = 1000,
) -> tuple[list[R], str | None]:
    """Records of this page and the next page's token.

    :param ids: name of the parameter that lists ids, which pagination does not go with.
    """
    size = parameters.get("MaxResults")
    if size is not None:
        if ids and parameters.get(ids):
            raise ApiError(
                "InvalidParameterCombination", f"The parameter {ids} cannot be used with the parameter maxResults"
            )
        if not smallest <= size <= largest:
            raise ApiError(
                "InvalidParameterValue",
                f"Value ( {size} ) for parameter maxResults is invalid. "
                f"Expecting a value between {smallest} and {largest}.",
            )
    asked = sorted((key, value) for key, value in parameters.items() if key not in ("NextToken", "MaxResults"))
    try:
        return paging.page(records, (action, asked), size, parameters.get("NextToken") or "")
    except BadToken:
        raise ApiError("InvalidNextToken", "The specified NextToken is not valid.") from None
