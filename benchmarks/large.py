"""What reading the largest objects that a tenant can make costs in memory and time, and 20,000 ordinary targets.

python -m benchmarks.large

The API server is a process of its own that makes up its pages; the reader is the worker's, in a process of its own for
each line, whose peak is read from the kernel. The aim: under 200 MB, where the manifests give the worker 256Mi.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from benchmarks import reading
from benchmarks.pods import pod

LARGE = 1_400_000
"""Bytes that etcd takes in one object, but for the rest of it."""
REFERENCE = {"kind": "OpenAI", "name": "gen"}
SPEC = {"projectId": "proj_1", "openAiAdminKey": {"name": "admin", "key": "api-key"}}
FED: dict[str, Any] = {"dataFrom": [{"sourceRef": {"generatorRef": REFERENCE}}]}


def generator(**spec: Any) -> dict[str, Any]:
    """A generator that is valid but for what is given."""
    return {"metadata": {"namespace": "default", "name": "NAME", "uid": "u"}, "spec": SPEC | spec}


def external_secret(**target: Any) -> dict[str, Any]:
    """An ExternalSecret that is valid but for what is given."""
    return {"metadata": {"namespace": "default", "name": "NAME", "uid": "u"}, "spec": FED | {"target": target}}


def large_pod() -> dict[str, Any]:
    """Three bytes of JSON each make an object of 64 in memory; etcd has two bytes for them."""
    large = pod(takes_key=True)
    large["spec"]["imagePullSecrets"] = [{}] * (LARGE // 2)
    return large


def many_holders() -> dict[str, Any]:
    """A pod in which all containers that fit into one take the key."""
    large = pod(takes_key=True)
    taken = [{"secretRef": {"name": "openai-credentials"}}]
    large["spec"]["containers"] = [{"name": f"{i:06}", "image": "i", "envFrom": taken} for i in range(LARGE // 80)]
    return large


CASES: dict[str, tuple[int, Callable[[], dict[str, dict[str, Any]]]]] = {
    "nothing": (0, dict),
    "texts": (100, lambda: {"openais": generator(projectId="x" * LARGE)}),
    "escapes": (100, lambda: {"openais": generator(projectId="\x01" * LARGE)}),
    "wide characters": (100, lambda: {"openais": generator(projectId="x" * LARGE + "\U0001f511")}),
    "many labels": (
        100,
        lambda: {"externalsecrets": external_secret(template={"metadata": {"labels": many(LARGE // 12)}})},
    ),
    "many fields": (100, lambda: {"openais": generator(**many(LARGE // 12))}),
    "pods": (100, lambda: {"pods": large_pod()}),
    "pods' holders": (100, lambda: {"pods": many_holders()}),
    "20,000 targets": (20_000, lambda: {"openais": generator(), "externalsecrets": external_secret()}),
}


def many(count: int) -> dict[str, str]:
    """A map of small entries: most of what it takes in memory is not in its JSON."""
    return {f"{i:06}": "" for i in range(count)}


def main() -> None:
    """Print a line for each case."""
    if sys.argv[1:2] == ["--serve"]:
        serve(*CASES[sys.argv[2]])
    elif sys.argv[1:2] == ["--read"]:
        print(json.dumps(asyncio.run(read(sys.argv[2]))))
    else:
        print(f"{'objects':>8}  {'each':16}  {'peak':>8}  {'CPU':>7}")
        for name in sys.argv[1:] or CASES:
            took = reading.measure("benchmarks.large", name)
            print(f"{CASES[name][0]:>8}  {name:16}  {took['peak']:>5.0f} MB  {took['cpu']:>5.1f} s")


async def read(kubeconfig: str) -> dict[str, float]:
    """Read everything as a run does."""
    from worker.discover.listing import discover
    from worker.kubernetes.client import KubernetesApi
    from worker.kubernetes.connection import connect
    from worker.model.values import Ref
    from worker.observe.consumers import Pods
    from worker.runtime.clocks import SystemClock
    from worker.settings.options import Options

    begun = time.process_time()
    async with await connect(kubeconfig=kubeconfig, context=None, in_cluster=False, connections=10) as client:
        cluster = KubernetesApi(client, random.Random(1))
        found = await discover(cluster, Options("openai-key-rotator"))
        pods = Pods(cluster, SystemClock(), {"default": frozenset({"openai-credentials"})})
        await pods.consumers(Ref("default", "openai-credentials"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak": peak, "cpu": time.process_time() - begun, "targets": len(found.targets)}


def serve(count: int, made: Callable[[], dict[str, dict[str, Any]]]) -> None:
    """Answer lists page by page, on a free port; its URL is the first line printed."""
    texts = {plural: json.dumps(obj, ensure_ascii=False) for plural, obj in made().items()}

    async def answer(request: web.Request) -> web.StreamResponse:
        text, plural = texts.get(request.path.rpartition("/")[2]), request.path.rpartition("/")[2]
        first, limit = int(request.query.get("continue") or 0), int(request.query["limit"])
        last = min(first + limit, count) if text is not None else first
        metadata = {"resourceVersion": "1", **({"continue": str(last)} if text is not None and last < count else {})}
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        with suppress(ConnectionError):  # the reader has had enough
            await response.prepare(request)
            await response.write(f'{{"kind":"{plural}","metadata":{json.dumps(metadata)},"items":['.encode())
            for i in range(first, last):
                await response.write(((text or "").replace("NAME", f"n-{i}") + ("," if i + 1 < last else "")).encode())
            await response.write(b"]}")
        return response

    reading.serve(answer)


if __name__ == "__main__":
    main()
