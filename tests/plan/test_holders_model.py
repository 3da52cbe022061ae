"""Who holds a superseded key: random histories against a model that replays what each container really read.

`holders_model.py` knows what is in which container; `holders_story.py` has runs look at it through worker/.

Mutations tried by hand on 2026-11-24, each of which failed the first property below (VOLUMES_FOLLOW 0: the one of
volumes that follow): STALE 0 or 4 minutes, CLOCKS_APART 0, no grace, no start of a key's time (`earliest`) or one at
its publication, no end of it (`< superseded`), volumes of a deleted Secret taken to follow or for certain only by
`earliest`, certain holders dropped or held until idle, possible ones dropped or held for ever, idle without last use,
containers about to start dropped or certain; env, envFrom, projected volumes, init or ephemeral containers not read,
subPath taken to follow, init containers over with their end, dated by their pod or following, sidecars handing on,
waiting ones dead, ended or crash-looping ones alive; superseded at the request or at its own publication, a presumed
key over at its request, the request forgotten, a key that was put back not promoted. Other
properties caught some too.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.holders_model import (
    BACK,
    EPOCH,
    MOUNTS,
    NEVER,
    OTHER,
    UNNOTICED,
    VOLUMES,
    Life,
    Node,
    Pod,
    Role,
    Way,
)
from tests.support.holders_story import IDLE, ROTATING, Do, Step, Story, Verdict
from worker.ledger.transitions import CLAIM
from worker.model.entries import Publication
from worker.model.targets import CleanupKind, CleanupPolicy
from worker.plan.retirement import Delete

UNKNOWN_FATE_PAUSE = 600
"""Seconds by which OpenAI may tell a use late."""
KUBELET = UNNOTICED + BACK
"""Seconds by which a kubelet's look may be old although no condition of its node tells."""
SLOW = 120
"""Seconds from a kubelet's look to the start of the container, at most."""
FOLLOW = 240
"""Seconds within which a volume follows."""
APART = 60
"""Seconds by which clocks differ at most."""
MANY, SOME = settings(max_examples=1200, derandomize=True), settings(max_examples=100, derandomize=True)


# --- what must come of it, told from the model alone ---------------------------------------------------------------


def may_not_lose(story: Story, verdict: Verdict) -> list[Pod]:
    """Who really holds the key of a verdict. One that started after it was replaced keeps it only by using it."""
    secret, now = story.secret, story.now
    return [
        pod
        for pod in story.pods
        for life in pod.living(secret, now)
        if verdict.key in pod.has(life, secret, now)
        and (pod.rhythm < NEVER or min(pod.reported(life), now - IDLE) < secret.left(verdict.key, now))
    ]


def might_hold(pod: Pod, story: Story, publication: Publication) -> bool:
    """May a pod, by what its node tells, have got this key, and if that is not certain, used it lately?"""
    secret, now = story.secret, story.now
    if not pod.lives[0].reads <= now < pod.ends:
        return False
    requested, superseded = seconds(publication.requested_at), seconds(publication.superseded_at)
    if pod.way in (*MOUNTS, Way.ENV_AND_VOLUME) and secret.was_gone(0, now):
        return True
    state, idle = pod.state(secret, now), now >= superseded + IDLE
    if state is None or ("waiting" in state and (pod.role is Role.INIT or not_looping(state))):
        return not idle
    if pod.role is not Role.INIT and pod.way in VOLUMES:
        return not story.blind and not idle and cut_off_since(pod, now, now - FOLLOW)
    if not idle and not story.blind and cut_off_since(pod, now, now - 160 - SLOW):
        return True  # it may have restarted unseen
    if pod.role is not Role.INIT and "running" not in state:
        return pod.way is Way.ENV_AND_VOLUME and not story.blind and not idle and cut_off_since(pod, now, now - FOLLOW)
    life = [life for life in pod.lived(secret, now) if life.starts <= pod.told(now)][-1]
    reads_on = pod.role is Role.INIT and pod.way in (*VOLUMES, Way.ENV_AND_VOLUME)
    last = life.ends + pod.node.skew if reads_on else pod.reported(life)
    started = pod.reported(life)
    if requested - APART <= last and started <= superseded:
        return True
    if pod.way is Way.ENV_AND_VOLUME and not story.blind and not idle and cut_off_since(pod, now, now - FOLLOW):
        return True
    return not idle and started >= superseded and soon_after(pod, started, superseded, story)


def cut_off_since(pod: Pod, now: int, moment: int) -> bool:
    """Does its node say that it is not Ready, or that it was not since then?"""
    ready = pod.node.ready_since(now)
    return ready is None or ready > moment


def soon_after(pod: Pod, started: int, superseded: int, story: Story) -> bool:
    """May its kubelet have given the old value to a container that started then?"""
    if story.blind:
        return started <= superseded + 3600
    cached = 0 if pod.created > superseded else pod.node.ttl + 90 + SLOW
    followed = FOLLOW + SLOW if pod.way in MOUNTS or pod.role is Role.INIT else 0
    late = superseded + max(160 + SLOW, cached, followed) + APART
    return started <= late or cut_off_since(pod, story.now, started - 160 - SLOW)


def not_looping(state: dict[str, dict[str, str]]) -> bool:
    return state["waiting"]["reason"] != "CrashLoopBackOff"


def must_go(story: Story, verdict: Verdict) -> bool:
    """Has its grace passed, has nobody used it since, and can nobody have it?"""
    superseded, requested = seconds(verdict.publication.superseded_at), seconds(verdict.publication.requested_at)
    retained = story.cleanup.kind is CleanupKind.RETAIN_LATEST
    grace = int((story.cleanup.grace if retained else story.cleanup.idle).total_seconds())
    followed = story.secret.changes[-1][0] + FOLLOW
    ripe = story.now >= max(superseded + max(grace, FOLLOW), followed, requested + int(CLAIM.total_seconds()))
    unused = verdict.last_used is None or verdict.last_used <= superseded
    return ripe and unused and not any(might_hold(pod, story, verdict.publication) for pod in story.pods)


def seconds(moment: datetime | None) -> int:
    assert moment is not None
    return int((moment - EPOCH).total_seconds())


# --- random histories --------------------------------------------------------------------------------------------

OFTEN = (*Do, Do.ROTATE, Do.ROTATE, Do.DIE_AFTER_PUBLISHING, Do.DELETE)
LASTLY = ([Do.ROTATE], [Do.ROTATE, Do.DELETE], [Do.DIE_AFTER_PUBLISHING, Do.DELETE, Do.ROTATE])
"""The last makes a key that the ledger notes only once it is not in the Secret any more."""


@st.composite
def some_steps(draw: st.DrawFn) -> list[Step]:
    happens = draw(st.lists(st.sampled_from(OFTEN), min_size=2, max_size=5)) + draw(st.sampled_from(LASTLY))
    gaps = st.sampled_from([60, 150, 400]) | st.integers(1, 7200)
    took, which = st.sampled_from([1, 5, 20]), st.integers(0, 9)
    return [Step(Do.ROTATE, 600), *(Step(do, draw(gaps), draw(took), draw(which)) for do in happens)]


END = [Step(Do.LOOK, gap) for gap in (60, 70, 20, 40, 120, 3700, 3700)]


EDGES = [(0, 0), (NEVER, 0), (NEVER, SLOW)]
"""How old a kubelet's look is, at most, and how early: what is at an edge goes wrong more often."""
LOOKS = st.sampled_from(EDGES) | st.tuples(st.integers(0, KUBELET), st.integers(0, SLOW))


@st.composite
def nodes_of(draw: st.DrawFn, steps: list[Step]) -> list[Node]:
    """Two nodes; one may have been cut off around some step, for long or unnoticed."""
    nodes = []
    for name in ("one", "two"):
        cuts: list[tuple[int, int]] = []
        if draw(st.booleans()):
            begun = moment_of(steps, draw(st.integers(0, len(steps) - 1))) - draw(st.integers(-40, 200))
            cuts.append((begun, begun + draw(st.sampled_from([20, UNNOTICED, 61, 330, 3000]))))
        skew = draw(st.sampled_from([-APART, 0, APART]) | st.integers(-APART, APART))
        nodes.append(Node(name, tuple(cuts), draw(st.sampled_from([0, 60, 300])), draw(st.integers(0, 44)), skew))
    return nodes


def moment_of(steps: list[Step], index: int) -> int:
    return sum(step.after + (step.took if step.do in ROTATING else 0) for step in steps[: index + 1])


def physical(pods: list[Pod]) -> list[Pod]:
    """The pods with looks that are as old as they were drawn, or as old as their kubelet can make them."""
    found: list[Pod] = []
    for pod in pods:
        beside = [other for other in pods if other is not pod and other.node is pod.node]
        lives = [
            replace(life, stale=min(life.stale, oldest(pod, number, beside))) for number, life in enumerate(pod.lives)
        ]
        found.append(replace(pod, lives=tuple(lives)))
    return found


def oldest(pod: Pod, number: int, beside: list[Pod]) -> int:
    """How old a kubelet's look may be for a life: a pod's first is asked for anew where no other pod has the Secret."""
    reads = pod.lives[number].reads
    lost = reads - pod.node.knows(reads)
    if number:
        return lost + pod.node.ttl
    watched = [
        other
        for other in beside
        if other.lives[0].reads <= reads < other.ends
        and (
            other.way in (*MOUNTS, Way.ENV_AND_VOLUME)
            or any(reads - 420 <= life.reads <= reads for life in other.lives)
        )
    ]
    return lost if watched else 0


@st.composite
def pods_of(draw: st.DrawFn, steps: list[Step], restarts: bool, nodes: list[Node]) -> Pod:
    """A pod that reads its key around some step, and is restarted in place now and then."""
    index = draw(st.integers(0, len(steps) - 1))
    stale, early = draw(LOOKS)
    reads = moment_of(steps, index) + min(stale, KUBELET) - draw(st.sampled_from([0, 1, 1, 1, 40, 200]))
    lives: list[Life] = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3])) if restarts else 1):
        ends = reads + early + 1 + draw(st.sampled_from([0, 30, 3000]) | st.integers(0, 6000))
        lives.append(Life(reads, stale, early, ends))
        reads = ends + draw(st.sampled_from([1, 300, 4000]))
        stale, early = draw(st.sampled_from([(0, 0), (60, 30), (0, 30), (NEVER, 0)]))
    role, way = draw(st.sampled_from(Role)), draw(st.sampled_from(Way))
    if role is not Role.INIT and draw(st.booleans()):
        lives[-1] = replace(lives[-1], ends=NEVER)
    ends = draw(st.sampled_from([lives[-1].ends, lives[-1].ends + 3000, NEVER]))
    behind, rhythm = draw(st.sampled_from([0, 20, 79])), draw(st.sampled_from([600, 1700, NEVER, NEVER]))
    node = draw(st.sampled_from(nodes))
    return Pod("p", role, way, tuple(lives), ends, node, behind, draw(st.booleans()), rhythm)


@st.composite
def stories(draw: st.DrawFn) -> tuple[Story, list[Step]]:
    steps = draw(some_steps())
    kind = draw(st.sampled_from([CleanupKind.RETAIN_LATEST, CleanupKind.RETAIN_LATEST, CleanupKind.IDLE]))
    grace = draw(st.sampled_from([10, 240, 600]))
    # A grace shorter than a kubelet's look is old is at the cost of who is being restarted.
    nodes = draw(nodes_of(steps))
    pods = physical(draw(st.lists(pods_of(steps, grace >= FOLLOW, nodes), min_size=1, max_size=3)))
    cleanup = CleanupPolicy(kind, timedelta(seconds=grace), timedelta(seconds=IDLE))
    return Story(pods, cleanup, draw(st.sampled_from([0, UNKNOWN_FATE_PAUSE]))), steps


@MANY
@given(stories())
def test_a_key_goes_when_and_only_when_nobody_can_hold_it(told: tuple[Story, list[Step]]) -> None:
    """Whatever happened, no verdict Delete is about a key that a living container really holds; and where none started
    at a time at which it could have read the key, and nobody has used it since, the verdict is Delete."""
    together, steps = told
    alone = [Story(physical([pod]), together.cleanup, together.late) for pod in together.pods]
    for story in (*alone, *([together] if len(alone) > 1 else [])):
        for verdict in story.tell(steps + END):
            if isinstance(verdict.decision, Delete):
                assert may_not_lose(story, verdict) == [], verdict
            else:
                assert not must_go(story, verdict), verdict


@SOME
@given(stories())
def test_with_the_last_pod_the_last_key_goes(told: tuple[Story, list[Step]]) -> None:
    """Nothing is kept for ever: once all pods have ended, every account but the current one may go."""
    story, steps = told
    list(story.tell(steps))
    story.pods = [replace(pod, ends=min(pod.ends, story.now)) for pod in story.pods]
    list(story.tell(END))
    last = list(story.tell([Step(Do.LOOK, 2 * 86400)]))
    assert all(isinstance(verdict.decision, Delete) for verdict in last), last


def environment(*lives: Life) -> Pod:
    return Pod("p", Role.MAIN, Way.ENV, lives, NEVER)


@SOME
@given(
    gaps=st.lists(st.integers(400, 7200), min_size=2, max_size=6),
    first=st.integers(600, 20_000),
    lengths=st.lists(st.integers(400, 7200), max_size=3),
    lag=st.integers(0, KUBELET - 1),
)
def test_of_many_generations_those_stay_that_a_living_container_could_have_read(
    gaps: list[int], first: int, lengths: list[int], lag: int
) -> None:
    """A day later what the container read at its last restart in place stays, and otherwise at most what it may just
    have missed: the generations between go, and those of its former starts."""
    begins = [first + sum(lengths[:index]) for index in range(len(lengths) + 1)]
    lives = [Life(begin - 5, lag - 5, 5, end) for begin, end in zip(begins, [*begins[1:], NEVER], strict=True)]
    story = Story([environment(*lives)])
    list(story.tell([Step(Do.ROTATE, gap) for gap in (500, *gaps)]))
    current = story.secret.read(story.now)
    kept = {v.key for v in story.tell([Step(Do.LOOK, 90_000)]) if not isinstance(v.decision, Delete)}
    really = story.pods[0].holds(story.secret, story.now) - {OTHER, current}
    started = max((begin for begin in begins if begin <= story.now), default=-NEVER)
    could = {story.secret.read(moment) for moment in range(started - KUBELET, started + APART + 5)}
    assert really <= kept <= could


@SOME
@given(
    some_steps(),
    st.integers(-7200, 500),
    st.integers(0, 120),
    st.sampled_from([Role.MAIN, Role.SIDECAR, Role.EPHEMERAL]),
)
def test_a_container_older_than_the_first_key_holds_nothing(
    steps: list[Step], started: int, early: int, role: Role
) -> None:
    """What becomes of each account is the same with it and without it."""
    old = replace(environment(Life(started - early, 0, early, NEVER)), role=role)
    assert decisions([old], steps) == decisions([], steps)


def decisions(pods: list[Pod], steps: list[Step]) -> list[object]:
    return [(verdict.now, verdict.key, verdict.decision) for verdict in Story(pods).tell(steps + END)]


def test_a_volume_has_time_to_follow() -> None:
    """However short the grace, a key stays until all volumes have followed."""
    pod = Pod("p", Role.MAIN, Way.VOLUME, (Life(700, 0, 5, NEVER),), NEVER, behind=FOLLOW - 1, rhythm=NEVER)
    story = Story([pod], CleanupPolicy(grace=timedelta(seconds=10)))
    for verdict in story.tell([Step(Do.ROTATE, 600), Step(Do.ROTATE, 400), Step(Do.LOOK, FOLLOW - 2)]):
        assert not isinstance(verdict.decision, Delete)


@pytest.mark.parametrize(
    ("pod", "steps"),
    [
        pytest.param(
            Pod("p", Role.MAIN, Way.VOLUME, (Life(700, 0, 5, NEVER),), NEVER, behind=60, rhythm=NEVER),
            [Step(Do.ROTATE, 600), Step(Do.DELETE, 1000), Step(Do.LOOK, 10), Step(Do.ROTATE, 1000)],
            id="a volume right after its deleted Secret is there again",
        ),
        *(
            pytest.param(
                Pod("p", Role.MAIN, way, (Life(700, 0, 5, 2600), Life(2601, 0, 5, NEVER)), NEVER, rhythm=NEVER),
                [Step(Do.ROTATE, 600), Step(Do.DELETE, 1000), Step(Do.LOOK, 10), Step(Do.LOOK, 180_000)],
                id=f"a {way} of a deleted Secret after a restart in place",
            )
            for way in (Way.VOLUME, Way.SUB_PATH)
        ),
        pytest.param(
            Pod("p", Role.MAIN, Way.VOLUME, (Life(700, 0, 5, 1500), Life(4000, 0, 5, NEVER)), NEVER, loops=True),
            [Step(Do.ROTATE, 600), Step(Do.DELETE, 1000), Step(Do.LOOK, 10), Step(Do.LOOK, 1000), Step(Do.LOOK, 2000)],
            id="a volume of a deleted Secret in a crash loop",
        ),
        pytest.param(
            Pod("p", Role.MAIN, Way.ENV_AND_VOLUME, (Life(700, 0, 5, NEVER),), NEVER, rhythm=NEVER),
            [Step(Do.ROTATE, 600), Step(Do.ROTATE, 1000), Step(Do.DELETE, 1000), Step(Do.LOOK, 9), Step(Do.LOOK, 999)],
            id="a volume of a deleted Secret beside an environment variable",
        ),
        pytest.param(
            Pod("p", Role.INIT, Way.VOLUME, (Life(700, 0, 5, 2200),), NEVER, rhythm=NEVER),
            [Step(Do.ROTATE, 600), Step(Do.ROTATE, 1000), Step(Do.ROTATE, 1000), Step(Do.LOOK, 1000)],
            id="an init container that has read its volume late",
        ),
    ],
)
def test_a_deleted_key_is_in_no_volume(pod: Pod, steps: list[Step]) -> None:
    """Neither at the time nor later on does a container find a key in its volume that may be deleted."""
    story = Story([pod])
    deleted: set[str] = set()
    for verdict in story.tell(steps):
        if isinstance(verdict.decision, Delete):
            deleted.add(verdict.key)
        assert not deleted & pod.holds(story.secret, story.now)
