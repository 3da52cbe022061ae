"""What reading a namespace's pods costs in memory and time: 20,000 pods of 10 kB, none or all of which take the key.

python -m benchmarks.pods [PODS]

The API server is a process of its own that makes up its pages; the reader is the worker's, in a process of its own for
each line, whose peak is read from the kernel. The aim: under 100 MB.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from typing import Any

from aiohttp import web

from benchmarks import reading

PODS = 20_000
SIZE = 10_000
"""Bytes of one pod as the API server sends it; with managedFields that is an ordinary one."""


def main() -> None:
    """Print a line for each case."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--serve"]:
        serve(int(arguments[1]), arguments[2] == "all")
    elif arguments[:1] == ["--read"]:
        print(json.dumps(asyncio.run(read(arguments[1]))))
    else:
        count = int(arguments[0]) if arguments else PODS
        print(f"{'pods':>8}  {'that take the key':18}  {'peak':>8}  {'over 1 pod':>10}  {'CPU':>7}  {'per pod':>8}")
        base = reading.measure("benchmarks.pods", "1", "none")
        for which in ("none", "all"):
            took = reading.measure("benchmarks.pods", str(count), which)
            growth, each = took["peak"] - base["peak"], 1000 * (took["cpu"] - base["cpu"]) / count
            print(
                f"{count:>8}  {which:18}  {took['peak']:>5.0f} MB  {growth:>7.0f} MB  {took['cpu']:>5.1f} s"
                f"  {each:>5.2f} ms   {took['found']} consumers"
            )


async def read(kubeconfig: str) -> dict[str, float]:
    """Read all pods as a run does."""
    from worker.kubernetes.client import KubernetesApi
    from worker.kubernetes.connection import connect
    from worker.model.values import Ref
    from worker.observe.consumers import Pods
    from worker.runtime.clocks import SystemClock

    begun = time.process_time()
    async with await connect(kubeconfig=kubeconfig, context=None, in_cluster=False, connections=10) as client:
        pods = Pods(
            KubernetesApi(client, random.Random(1)), SystemClock(), {"default": frozenset({"openai-credentials"})}
        )
        found = await pods.consumers(Ref("default", "openai-credentials"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak": peak, "cpu": time.process_time() - begun, "found": len(found)}


def serve(count: int, takes_key: bool) -> None:
    """Answer lists of pods, page by page, on a free port; its URL is the first line printed."""
    text = json.dumps(pod(takes_key))
    filler = json.dumps({"padding": "x" * max(0, SIZE - len(text))})

    async def answer(request: web.Request) -> web.Response:
        first, limit = int(request.query.get("continue") or 0), int(request.query["limit"])
        last = min(first + limit, count)
        items = ",".join(text.replace("NAME", f"pod-{i}").replace('"FILLER"', filler) for i in range(first, last))
        metadata = {"resourceVersion": "1", **({"continue": str(last)} if last < count else {})}
        body = f'{{"kind":"PodList","apiVersion":"v1","metadata":{json.dumps(metadata)},"items":[{items}]}}'
        return web.Response(text=body, content_type="application/json")

    reading.serve(answer)


def pod(takes_key: bool) -> dict[str, Any]:
    """A running pod with a sidecar, as a Deployment makes it."""
    name = "openai-credentials" if takes_key else "something-else"
    reference = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": name, "key": "api_key"}}}
    others = [{"name": f"VARIABLE_{i}", "value": f"value {i}"} for i in range(20)]
    containers: list[dict[str, Any]] = [
        {"name": "app", "image": "i", "env": [reference, *others]},
        {"name": "proxy", "image": "p"},
    ]
    running = {"running": {"startedAt": "2026-11-24T10:00:00Z"}}
    statuses = [{"name": c["name"], "ready": True, "restartCount": 0, "state": running} for c in containers]
    fields: dict[str, Any] = {f"f:field-{i}": {"f:sub": {"f:leaf": {}}} for i in range(120)}
    return {
        "metadata": {"name": "NAME", "namespace": "default", "managedFields": [{"fieldsV1": fields}], "x": "FILLER"},
        "spec": {"nodeName": "node-1", "containers": containers},
        "status": {"phase": "Running", "containerStatuses": statuses},
    }


if __name__ == "__main__":
    main()
