"""Watch streams, both ends: `topic` serves them, `follow` consumes them. Import from here."""

from services.runtime.batch import START, Batch, Position, SubscriberStatus
from services.runtime.follow import Call, Follower, FollowState, Mirror, follow
from services.runtime.topic import Subscription, Topic

__all__ = [
    "START",
    "Batch",
    "Call",
    "FollowState",
    "Follower",
    "Mirror",
    "Position",
    "SubscriberStatus",
    "Subscription",
    "Topic",
    "follow",
]
