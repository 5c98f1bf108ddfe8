"""Pods of a node one after the other: when each starts and ends. One seed gives the same pods under every setting.

Each stream of each node draws from randomness of its own, so that another group or another setting changes nothing.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator

from ipam.simulation.model import DAY_S, PodStream

Span = tuple[float, float]
SHORTEST_S = 0.001


def spans(streams: tuple[PodStream, ...], *, seed: str, from_s: float, to_s: float) -> Iterator[Span]:
    """Starts and ends of all pods of a node that is there from `from_s` to `to_s`, ordered by start."""
    each = [
        _of_stream(stream, random.Random(f"{seed}/{number}/{stream.name}"), from_s, to_s)  # noqa: S311 - no secret
        for number, stream in enumerate(streams)
    ]
    return heapq.merge(*each) if len(each) > 1 else iter(each[0] if each else ())


def _of_stream(stream: PodStream, chance: random.Random, from_s: float, to_s: float) -> Iterator[Span]:
    parts = []
    if stream.standing:
        parts.append(iter([(from_s, math.inf)] * stream.standing))
    if stream.per_minute:
        parts.append(_by_chance(stream, chance, from_s, to_s))
    if stream.burst_size:
        parts.append(_bursts(stream, chance, from_s, to_s))
    return parts[0] if len(parts) == 1 else heapq.merge(*parts)


def _by_chance(stream: PodStream, chance: random.Random, from_s: float, to_s: float) -> Iterator[Span]:
    """A Poisson stream; where the day has a shape, by thinning out the one of its busiest hour."""
    most = max(stream.day, default=1.0)
    per_s = stream.per_minute / 60.0 * most
    at = from_s
    while (at := at + chance.expovariate(per_s)) < to_s:
        if not stream.day or chance.random() * most < factor(stream, at):
            yield at, at + _lifetime(stream, chance)


def _bursts(stream: PodStream, chance: random.Random, from_s: float, to_s: float) -> Iterator[Span]:
    """Pods of a burst that begins before the one before has ended are put in order."""
    ahead: list[Span] = []
    for at in _moments(stream, chance, from_s, to_s):
        while ahead and ahead[0][0] <= at:
            yield heapq.heappop(ahead)
        share = 1.0 if stream.together else factor(stream, at)
        for _ in range(round(stream.burst_size * share)):
            start = at + chance.uniform(0.0, stream.burst_spread_s)
            if start < to_s:
                heapq.heappush(ahead, (start, start + _lifetime(stream, chance)))
    while ahead:
        yield heapq.heappop(ahead)


def _moments(stream: PodStream, chance: random.Random, from_s: float, to_s: float) -> Iterator[float]:
    if stream.together:
        number = max(math.ceil((from_s - stream.burst_first_s) / stream.burst_every_s), 0)
        while (at := stream.burst_first_s + number * stream.burst_every_s) < to_s:
            yield at
            number += 1
        return
    at = max(from_s, stream.burst_first_s)
    while (at := at + chance.expovariate(1.0 / stream.burst_every_s)) < to_s:
        yield at


def factor(stream: PodStream, at_s: float) -> float:
    """What the hour of the day makes of the stream."""
    return stream.day[int(at_s % DAY_S // 3600.0)] if stream.day else 1.0


def _lifetime(stream: PodStream, chance: random.Random) -> float:
    if stream.lifetime == "fixed":
        return stream.lifetime_s
    return max(chance.expovariate(1.0 / stream.lifetime_s), SHORTEST_S)
