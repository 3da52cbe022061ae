"""Workers as processes, and what may befall a process: killed, stopped for longer than its claim, out of time, several
at once; with faults on the ways to the real API server and to OpenAI. Nothing is lost.

PROCESS_ROUNDS=10 makes it ten times as many kills and targets (`make kill ROUNDS=10`); PROCESS_SEED replays what the
seed decides: faults, moments, numbers. The order in which requests arrive is the machine's.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandbox.transport.faults import Fate, Latency, Rules, committed_late, delivered, request_lost
from sandbox.transport.wire import Request
from tests.cluster.endpoint import Endpoint
from tests.cluster.fleet import Fleet, Worker, fleet
from tests.cluster.relay import Trap, rough
from tests.cluster.rig import install_crds

ROUNDS = int(os.environ.get("PROCESS_ROUNDS", "1"))
SEED = int(os.environ.get("PROCESS_SEED", secrets.randbits(32)))
KILLS = 14
"""Per round."""
SHARE = 0.04
"""Of requests with a hard fate."""
AT_ONCE = 24
"""Fleets."""
LONGEST = 60
"""Seconds that a moment is waited for."""
IMPATIENT = 8
"""The same where any other moment will do: a run that has little to do may not come to it."""


ON_THE_WAY = (request_lost(), committed_late(0.0), committed_late(2.0), delivered())
"""What becomes of the last request of a worker that is killed."""

Act = Callable[[Fleet], None]


# --- moments of a rotation, told by the request that is about to be served


def intent(request: Request) -> bool:
    return (
        request.method in ("POST", "PATCH")
        and "/keyrotations" in request.path
        and b"claimedUntil" in request.body
        and b"publishedAt" not in request.body
    )


def create(request: Request) -> bool:
    return request.method == "POST" and request.path.endswith("/service_accounts")


def verify(request: Request) -> bool:
    return request.method == "GET" and request.path.endswith("/models")


def publish(request: Request) -> bool:
    return request.method in ("POST", "PATCH") and "/secrets" in request.path


def record(request: Request) -> bool:
    return request.method == "PATCH" and "/keyrotations" in request.path and b"publishedAt" in request.body


def delete(request: Request) -> bool:
    return request.method == "DELETE" and "/service_accounts/" in request.path


MOMENTS = (intent, create, verify, publish, record, delete)


def nth(wanted: Callable[[Request], bool], number: int) -> Callable[[Request], bool]:
    """The request with this number, from 1, of those that are wanted."""
    seen = 0

    def is_it(request: Request) -> bool:
        nonlocal seen
        seen += wanted(request)
        return seen == number

    return is_it


def anything(request: Request) -> bool:
    return True


# --- what is done to processes


def at_some_moment(fleet: Fleet, *arguments: str) -> Worker:
    """Start a worker and return at some moment of its run: at a request, which then has some fate, or at a time."""
    chance = fleet.chance
    kind = chance.choice((None, anything, *MOMENTS))
    if kind is None:
        worker = fleet.start(*arguments)
        time.sleep(chance.uniform(0.4, 4.0))
        return worker
    trap = fleet.trap(Trap(nth(kind, chance.randint(1, 90 if kind is anything else 6))))
    worker = fleet.start(*arguments)
    wait_for(trap, worker, IMPATIENT)
    trap.release(chance.choice(ON_THE_WAY))
    fleet.gate.trap = None
    return worker


def wait_for(trap: Trap, worker: Worker, seconds: float = LONGEST) -> bool:
    """Wait until the trap has sprung; False where that takes longer, or the worker ends before."""
    until = time.monotonic() + seconds
    while not trap.sprung.wait(0.02):
        if not worker.lives or time.monotonic() > until:
            return False
    return True


def kill_again_and_again(fleet: Fleet) -> None:
    """`kill -9` at random moments, each followed at once by another run; later on, while accounts are deleted."""
    chance = fleet.chance
    with fleet.busy(), fleet.weather(rough(random.Random(fleet.seed), SHARE)):
        while fleet.kills < KILLS:
            fleet.due()
            for _ in range(4):
                worker = at_some_moment(fleet, "--concurrency", str(chance.choice((2, 3, 6))), "--max-wait", "5s")
                fleet.kills += worker.tell(signal.SIGKILL)
                worker.ended()
            if chance.random() < 0.5:
                fleet.delete_a_key()
    fleet.sleep_until_claims_end()
    with fleet.busy():
        fleet.due()
        for _ in range(3):
            trap = fleet.trap(Trap(nth(delete, chance.randint(1, 6))))
            worker = fleet.start("--max-wait", "5s")
            wait_for(trap, worker)
            trap.release(chance.choice(ON_THE_WAY))
            fleet.kills += worker.tell(signal.SIGKILL)
            worker.ended()


def kill_several_at_once(fleet: Fleet) -> None:
    """Two or three workers at once, all killed, in any order."""
    chance = fleet.chance
    with fleet.busy(), fleet.weather(rough(random.Random(fleet.seed), SHARE)):
        while fleet.kills < KILLS / 2:
            fleet.due()
            others = [fleet.start("--concurrency", "4", "--max-wait", "5s") for _ in range(chance.choice((1, 2)))]
            workers = [*others, at_some_moment(fleet, "--concurrency", "2", "--max-wait", "5s")]
            chance.shuffle(workers)
            for worker in workers:
                fleet.kills += worker.tell(signal.SIGKILL)
                time.sleep(chance.choice((0.0, 0.0, 0.3)))
            for worker in workers:
                worker.ended()


def terminate(fleet: Fleet) -> None:
    """SIGTERM at random moments, in rough weather: the run ends by itself, and says that it was stopped."""
    with fleet.busy(), fleet.weather(rough(random.Random(fleet.seed), SHARE)):
        for _ in range(4):
            fleet.due()
            worker = at_some_moment(fleet, "--concurrency", "4")
            worker.tell(signal.SIGTERM)
            done = worker.ended()
            # Before it has begun it dies of the signal; one that could not reach the cluster says so.
            assert done.code in (0, 1, 3, -signal.SIGTERM), f"{fleet}: {done.output}"
            for line in done.said("run.finished"):
                assert line.get("stopped", "Stopped") == "Stopped", f"{fleet}: {done.output}"


def run_out_of_time(fleet: Fleet) -> None:
    """Runs that are cut in the middle by their deadline, one after the other."""
    slow = Rules(rough(random.Random(fleet.seed), SHARE).rules, fleet.chance, Latency(0.7))
    with fleet.busy(), fleet.weather(slow):
        for _ in range(3):
            fleet.due()
            done = fleet.run("--deadline", "5s", "--concurrency", "3")
            assert done.code in (1, 3), f"{fleet}: {done.output}"
            for line in done.said("run.finished"):
                assert line["stopped"] == "DeadlineExceeded"


def stop_for_a_while(fleet: Fleet) -> None:
    """SIGSTOP for longer than an intent is fresh, and shorter than it claims."""
    with fleet.weather(rough(random.Random(fleet.seed), SHARE)):
        with fleet.busy():
            fleet.due()
            worker = at_some_moment(fleet, "--concurrency", "4", "--max-wait", "5s")
            worker.stop()
        time.sleep(fleet.chance.uniform(20, 40))
        with fleet.busy():
            worker.tell(signal.SIGCONT)
            worker.ended()


def stop_for_too_long(moment: Callable[[Request], bool], fate: Fate | None, *, early: bool = False) -> Act:
    """A worker is stopped at one moment of its run, until another one has taken over after its claim.

    `fate`: of the request at which it is stopped; None: it is held until the other one is done. `early`: the other one
    begins before the claim has ended, and waits for that.
    """

    def act(fleet: Fleet) -> None:
        if moment is delete:
            fleet.sleep_until_accounts_may_go()
        with fleet.busy():
            fleet.due()
            trap = fleet.trap(Trap(nth(moment, fleet.chance.randint(1, 3))))
            worker = fleet.start("--concurrency", "3", "--max-wait", "20s")
            assert wait_for(trap, worker), f"{fleet}: {worker.ended().output}"
            worker.stop()
            if fate is not None:
                trap.release(fate)
        if early:
            other = fleet.run("--max-wait", "5m")
        else:
            fleet.sleep_until_claims_end()
            with fleet.busy():
                if moment is not delete:  # there is nothing else to do for the other one than the same
                    fleet.due()
                other = fleet.run("--max-wait", "20s")
        assert other.code == 0, f"{fleet}: {other.output}"
        fleet.check()
        with fleet.busy():
            if fate is None:
                trap.release(delivered())
            worker.tell(signal.SIGCONT)
            worker.ended()

    return act


STOPS: dict[str, Act] = {
    "stopped when its intent was written": stop_for_too_long(intent, delivered()),
    "stopped when its create was answered": stop_for_too_long(create, delivered()),
    "stopped when its create was lost": stop_for_too_long(create, request_lost(disconnected=True)),
    "stopped when its key was verified": stop_for_too_long(verify, delivered()),
    "stopped when its key was published": stop_for_too_long(publish, delivered()),
    "stopped when its publication was lost": stop_for_too_long(publish, request_lost(disconnected=True)),
    "stopped right before its publication": stop_for_too_long(publish, None),
    "stopped right before its publication, while another waits": stop_for_too_long(publish, None, early=True),
    "stopped when its record was written": stop_for_too_long(record, delivered()),
    "stopped when its record was lost": stop_for_too_long(record, request_lost(disconnected=True)),
    "stopped right before its delete": stop_for_too_long(delete, None),
}
ONCE: dict[str, Act] = {
    "terminated": terminate,
    "out of time": run_out_of_time,
    "stopped for a while": stop_for_a_while,
}
EACH_ROUND: dict[str, Act] = {"killed": kill_again_and_again, "several killed": kill_several_at_once}


@pytest.fixture(scope="module")
def cluster(real_api_server: Endpoint) -> Endpoint:
    install_crds(real_api_server, rules=False)
    return real_api_server


def test_sigterm_lets_the_step_under_way_end_and_starts_no_other(cluster: Endpoint, tmp_path: Path) -> None:
    """One at a time: the target whose intent is being written is rotated, and no other; nothing stays claimed."""
    with fleet("sigterm", SEED, cluster, tmp_path) as one:
        one.due()
        made = len(one.witness.made)
        trap = one.trap(Trap(nth(intent, 3)))
        worker = one.start("--concurrency", "1")
        assert wait_for(trap, worker)
        worker.tell(signal.SIGTERM)
        time.sleep(1)  # the request is held: it has nothing to do but to hear the signal
        trap.release(delivered())
        done = worker.ended()
        assert done.code == 1, done.output
        assert [line["stopped"] for line in done.said("run.finished")] == ["Stopped"]
        assert Counter(done.reasons().values()) == {
            "target.rotated Requested": 3,
            "target.failed Stopped": len(one.targets) - 3,
        }
        assert len(one.witness.made) == made + 3
        assert one.claimed_until() is None
        one.check()


def test_nothing_is_lost(cluster: Endpoint, tmp_path: Path) -> None:
    """Whatever befalls the processes: at no moment is anything lost, and at rest each target has one account.

    The fleets live at the same time, so that they wait together for their claims to end.
    """
    print(f"replay: PROCESS_SEED={SEED} PROCESS_ROUNDS={ROUNDS} pytest {__file__}")

    began = time.monotonic()

    def life(name: str, act: Act, seed: int, namespaces: int, fed: int) -> Counter[str]:
        with fleet(name, seed, cluster, tmp_path, namespaces=namespaces, fed=fed) as one:
            act(one)
            one.check()
            print(f"{time.monotonic() - began:4.0f} s: {name}", flush=True)
            one.settle()
        print(f"{time.monotonic() - began:4.0f} s: {name}: at rest", flush=True)
        return Counter(one.tally())

    lives = [(name, act, 1, 1) for name, act in STOPS.items()]
    lives += [(f"{name}, {i}", act, 4, 2) for i in range(ROUNDS) for name, act in EACH_ROUND.items()]
    lives += [(name, act, 2, 2) for name, act in ONCE.items()]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = [
            pool.submit(life, name, act, SEED + number, namespaces, fed)
            for number, (name, act, namespaces, fed) in enumerate(lives)
        ]
        tallies = [one.result() for one in waiting]
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally)
    print(f"{len(tallies)} fleets: {dict(total)}")
