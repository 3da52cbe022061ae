"""`python -m sandbox`: both APIs on loopback, until SIGTERM or SIGINT.

A shell can read its output: the paths of the kubeconfig and the admin key, and the two URLs.
In the applied files, `${OPENAI_URL}` and `${OPENAI_ADMIN_KEY}` stand for the values of this sandbox.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sandbox.http_server import serving, write_kubeconfig
from sandbox.kubernetes.server import Kubernetes
from sandbox.kubernetes.setup import apply, create_namespace, install_crds, set_node
from sandbox.openai.server import OpenAI
from sandbox.transport.faults import Faults, Latency, NoFaults, Rules, parse_rule


def main() -> None:
    """Run until a signal comes."""
    asyncio.run(_run(_options()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--apply", type=Path, action="append", default=[], metavar="FILE", help="apply this YAML")
    parser.add_argument("--project", action="append", default=[], metavar="ID", help="OpenAI project to have")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="of each Kubernetes request")
    parser.add_argument("--openai-latency", type=float, default=0.0, metavar="SECONDS", help="of each OpenAI request")
    parser.add_argument("--acceptance-delay", type=float, default=0.0, metavar="SECONDS", help="new keys answer 401")
    parser.add_argument(
        "--fault",
        type=parse_rule,
        action="append",
        default=[],
        metavar="FATE[:METHOD[:PATH[:PROBABILITY[:COUNT]]]]",
        help="what befalls requests, of either API, whose method and path match: 429, 502, request-lost, "
        "response-lost, disconnect-before, disconnect-after, late=SECONDS, slow=SECONDS",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--kubernetes-port", type=int, default=0)
    parser.add_argument("--openai-port", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="where to write the kubeconfig and the admin key")
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    source = random.Random(options.seed)
    kubernetes, openai = Kubernetes(_now, source), OpenAI(_now, source)
    openai.acceptance_delay = options.acceptance_delay
    admin_key = openai.add_organization("sandbox")
    for project in options.project or ["my-openai-project-id"]:
        openai.add_project("sandbox", project)
    install_crds(kubernetes)
    create_namespace(kubernetes, "openai-key-rotator")
    set_node(kubernetes, "node-1", ready=True, since=_now() - timedelta(days=1))
    to_kubernetes = _faults(options, options.latency, source)
    to_openai = _faults(options, options.openai_latency, source)
    with tempfile.TemporaryDirectory(prefix="sandbox-") as temporary:
        directory = options.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        async with (
            serving(kubernetes, to_kubernetes, port=options.kubernetes_port) as kubernetes_url,
            serving(openai, to_openai, port=options.openai_port) as openai_url,
        ):
            for path in options.apply:
                text = path.read_text().replace("${OPENAI_URL}", f"{openai_url}/v1")
                apply(kubernetes, text.replace("${OPENAI_ADMIN_KEY}", admin_key))
            key_file = directory / "admin-key"
            key_file.touch(mode=0o600)
            key_file.write_text(admin_key)
            print(f"KUBECONFIG={write_kubeconfig(directory / 'kubeconfig', kubernetes_url)}")
            print(f"KUBERNETES_URL={kubernetes_url}")
            print(f"OPENAI_URL={openai_url}/v1")
            print(f"OPENAI_ADMIN_KEY_FILE={key_file}", flush=True)
            await stop.wait()


def _faults(options: argparse.Namespace, latency: float, source: random.Random) -> Faults:
    usual = Latency(latency) if latency else NoFaults()
    return Rules(options.fault, source, usual) if options.fault else usual


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
