"""Why a node has, or has not, the addresses it should have: findings, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from ipam.config import IpamConfig
from ipam.fleet import Fleet, OpenIntent
from ipam.model import AddressState, Finding, IntentKind, Level
from ipam.overrides import matching
from ipam.plan import Shortfall, plan_allocation, prefix_block
from ipam.pools import Pool
from ipam.retired import in_use, is_retired
from ipam.review import Reviewer, patience
from ipam.watermarks import needed
from ipam.wishes import PLAIN


def explain(fleet: Fleet, reviewer: Reviewer, config: IpamConfig, pool: Pool, *, now: float) -> list[Finding]:
    """`now` is monotonic. Findings come in the order in which one would look."""
    findings = [*(_retired(fleet, pool) if is_retired(fleet, pool) else _node(pool)), *_level(reviewer)]
    missing = False
    if pool.usage is not None and pool.instance is not None:
        counts = pool.counts()
        missing = needed(counts.attached, counts.used, reviewer.wishes.marks(pool)) > 0 or counts.pending > 0
        findings += _marks(reviewer, config, pool)
        findings += _watermark(reviewer, pool, config, now)
        findings += _limits(reviewer, pool, missing)
        findings += _hidden(fleet, pool)
    if missing:
        findings += _facts(fleet, reviewer, pool, now)
    findings += _blocks(fleet, pool, now, missing)
    opened = fleet.intents.get(pool.intent_id)
    if opened is not None:
        findings += _intent(opened, now)
    findings += _dead(fleet, pool)
    findings += _release(pool, now)
    findings += _disputes(fleet, pool)
    return findings


def _node(pool: Pool) -> Iterator[Finding]:
    name = pool.spec.name
    if pool.gone:
        yield Finding(
            Level.PROBLEM, "node", f"the cloud knows no instance {pool.spec.instance_id}",
            "correct the node's instance_id, or the account and region of this service",
        )  # fmt: skip
    elif pool.usage is None:
        yield Finding(
            Level.WAITING, "node", f"{name} has not reported since this service started",
            "see whether its node daemon runs and reaches this service",
        )  # fmt: skip
    elif not pool.connected:
        yield Finding(
            Level.WAITING, "node", f"{name} is not connected: its pool is kept as it is, and pods start from it",
            "see whether its node daemon runs and reaches this service",
        )  # fmt: skip
    elif pool.instance is None:
        yield Finding(Level.WAITING, "node", f"instance {pool.spec.instance_id} has not been read yet")
    else:
        yield Finding(Level.OK, "node", f"{name} is connected, instance {pool.instance.id} is a {pool.instance.type}")


def _retired(fleet: Fleet, pool: Pool) -> Iterator[Finding]:
    used = len(fleet.addresses(pool) & in_use(fleet, pool))
    yield Finding(
        Level.WAITING, "node", f"{pool.spec.node} has no such pool any more; its running pods use {used} of its "
        "addresses", "interfaces that this service made go once nothing of them is used" if pool.spec.release_excess
        else "release_excess is off: its interfaces stay until they are detached by hand",
    )  # fmt: skip


def _level(reviewer: Reviewer) -> Iterator[Finding]:
    level, why = reviewer.level()
    if level:
        yield Finding(
            Level.PROBLEM, "level", f"the service is at level {level.word}, {why}",
            "plimsoll ipam level set normal, once the cause is gone; what the budget set ends by itself",
        )  # fmt: skip


def _marks(reviewer: Reviewer, config: IpamConfig, pool: Pool) -> Iterator[Finding]:
    """Where the marks come from, if it is not plainly the service's settings or the node's."""
    rules = [each.name for each in matching(config.overrides, pool.spec.labels)]
    if rules:
        yield Finding(Level.OK, "watermark", f"overrides by its labels: {', '.join(rules)}")
    if pool.spec.policy != PLAIN:
        marks, why = reviewer.wishes.estimate(pool).marks, reviewer.wishes.estimate(pool).why
        yield Finding(
            Level.OK, "watermark",
            f"{marks.pre_allocate} addresses are kept free, {marks.min_allocate} in all at least: {why}",
        )  # fmt: skip


def _watermark(reviewer: Reviewer, pool: Pool, config: IpamConfig, now: float) -> Iterator[Finding]:
    counts = pool.counts()
    marks = reviewer.wishes.marks(pool)
    missing = needed(counts.attached, counts.used, marks)
    surplus = reviewer.wishes.excess(pool, counts)
    delay_s = config.release_delay_s * patience(marks, surplus, config)
    have = f"{counts.attached} addresses, {counts.used} of them used"
    if missing:
        waited = f" for {now - pool.deficit_since:.0f} s" if pool.deficit_since is not None else ""
        yield Finding(
            Level.WAITING, "watermark", f"{have}: {missing} below the lower mark{waited}",
            f"a mild deficit waits {config.coalesce_s:g} s for more; a pod that waits is served at once",
        )  # fmt: skip
    elif surplus:
        yield Finding(
            Level.OK, "watermark", f"{have}: {surplus} above the upper mark",
            f"they are released after {delay_s:g} s" if pool.spec.release_excess
            else "release_excess is off: they stay",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, "watermark", f"{have}: between its marks")
    if counts.pending:
        yield Finding(Level.WAITING, "watermark", f"{counts.pending} pods wait for an address")
    if marks.max_allocate and counts.attached >= marks.max_allocate:
        yield Finding(
            Level.PROBLEM if counts.pending else Level.OK, "watermark",
            f"max_allocate {marks.max_allocate} is reached", "raise max_allocate of the node",
        )  # fmt: skip


def _limits(reviewer: Reviewer, pool: Pool, missing: bool) -> Iterator[Finding]:
    limits = reviewer.limits(pool)
    if limits is None:
        kind = pool.instance.type if pool.instance else pool.spec.instance_type
        yield Finding(
            Level.WAITING,
            "limits",
            f"nothing is known of instance type {kind!r} yet",
            "wait, or add it to the limits_file",
        )
    elif missing and not reviewer.room(pool):
        yield Finding(
            Level.PROBLEM, "limits",
            f"all {limits.interfaces} interfaces x {limits.ipv4_per_interface} addresses of a {limits.instance_type} "
            "are taken", "use a larger instance type, or move pods to other nodes",
        )  # fmt: skip


def _hidden(fleet: Fleet, pool: Pool) -> Iterator[Finding]:
    subnet_id = pool.hidden(fleet.subnets)
    if subnet_id:
        yield Finding(
            Level.PROBLEM, "subnet", f"an interface lies in {subnet_id}, which is not among the subnets looked at: "
            "the node is told nothing of it", "widen the workers' scope, or exclude the interface by a tag",
        )  # fmt: skip


def _facts(fleet: Fleet, reviewer: Reviewer, pool: Pool, now: float) -> Iterator[Finding]:
    """Whether the next addresses could be planned with what is known of subnets and security groups."""
    limits = reviewer.limits(pool)
    if pool.instance is None or limits is None or not fleet.subnets:
        return
    plan = plan_allocation(
        pool.spec, pool.instance, want=reviewer.want(pool), limits=limits,
        calls=reviewer.call_limits(),
        subnets=fleet.subnets.values(), security_groups=list(fleet.groups.values()), blocked=fleet.blocked(now),
    )  # fmt: skip
    if plan.shortfall is Shortfall.NO_SUBNET:
        yield Finding(Level.PROBLEM, "subnet", plan.why, plan.remedy)
    elif plan.shortfall is Shortfall.NO_SECURITY_GROUP:
        yield Finding(Level.PROBLEM, "security-group", plan.why, plan.remedy)


def _blocks(fleet: Fleet, pool: Pool, now: float, missing: bool) -> Iterator[Finding]:
    """Subnets within reach that are passed over. Without prefixes a node does even when it lacks nothing."""
    if pool.instance is None:
        return
    for subnet in fleet.subnets.values():
        if (subnet.zone, subnet.vpc_id) != (pool.instance.zone, pool.instance.vpc_id):
            continue
        keys = {subnet.id: ""} if missing else {}
        keys |= {prefix_block(subnet.id): " for prefixes"} if pool.spec.prefix_delegation else {}
        for key, what in keys.items():
            if key in fleet.blocks:
                block, until = fleet.blocks[key]
                left_s = max(until - now, 0)
                why = f"{subnet.id} is passed over{what} for {left_s:.0f} s: {block.why}"
                yield Finding(Level.WAITING, "subnet", why)


def _intent(opened: OpenIntent, now: float) -> Iterator[Finding]:
    intent = opened.intent
    what = f"{intent.kind} {intent.id}"
    if intent.kind is IntentKind.ALLOCATE:
        what += f" of {intent.want} addresses"
    if opened.leased(now):
        yield Finding(Level.WAITING, "intent", f"{what} is being done by {intent.holder}, attempt {intent.attempts}")
    elif now < opened.ready_at:
        yield Finding(
            Level.WAITING,
            "intent",
            f"{what} is tried again in {opened.ready_at - now:.0f} s, attempt {intent.attempts + 1}",
        )
    elif intent.holder:
        yield Finding(Level.WAITING, "intent", f"{what} was left by {intent.holder}; another worker takes it over")
    else:
        yield Finding(
            Level.WAITING, "intent", f"{what} waits for a worker", "see whether workers run and the queue is reachable"
        )
    if intent.last_error:
        subject = "budget" if "budget" in intent.last_error or "throttl" in intent.last_error else "cloud"
        yield Finding(
            Level.PROBLEM, subject, intent.last_error,
            "raise the account's request rate, or wait: calls are spread" if subject == "budget" else "",
        )  # fmt: skip


def _dead(fleet: Fleet, pool: Pool) -> Iterator[Finding]:
    for kind in IntentKind:
        letter = fleet.dead_letter_of(pool.spec.name, kind)
        if letter is not None:
            yield Finding(
                Level.PROBLEM, "cloud", f"{kind} gave up: {letter.why}",
                f"remove the cause, then replay dead letter {letter.id}",
            )  # fmt: skip


def _release(pool: Pool, now: float) -> Iterator[Finding]:
    marked = len(pool.in_state(AddressState.MARKED))
    ready = len(pool.in_state(AddressState.READY))
    releasing = len(pool.in_state(AddressState.RELEASING))
    if marked:
        yield Finding(
            Level.WAITING, "release", f"{marked} addresses are marked; the node has not answered "
            f"for {max(now - pool.marked_at, 0):.0f} s",
        )  # fmt: skip
    if ready or releasing:
        yield Finding(Level.OK, "release", f"{ready} addresses are fenced by the node, {releasing} are being released")
    if pool.unanswered:
        yield Finding(
            Level.WAITING, "release", f"{len(pool.unanswered)} addresses were marked and the node did not answer",
            "see the node daemon's log",
        )  # fmt: skip


def _disputes(fleet: Fleet, pool: Pool) -> Iterator[Finding]:
    for (vpc_id, address), claimant in fleet.disputes.items():
        owner = fleet.owners.get((vpc_id, address))
        if pool.spec.name in (claimant, owner):
            yield Finding(
                Level.PROBLEM, "cloud", f"{address} of {vpc_id} is on {owner}, and the cloud says on {claimant} too",
                "both are read again; if it stays, look at both instances in the cloud",
            )  # fmt: skip
