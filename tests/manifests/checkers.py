"""`make checkers`: kubernetes-validate, checkov, kube-score and `helm lint` on all that kustomize and the chart make.

Guarantees:
- A finding fails it, unless exceptions.yaml has a reason to leave it.
- An exception that nothing needs any more fails it, too.
- Every schema is strict: a field that Kubernetes does not know is a mistake.
- Without Helm and kube-score (`make control-plane` builds them) it says so. With REQUIRE_CLUSTER=1 it fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from tests.cluster.chart_tools import find_chart_tool
from tests.support.chart import CHART, MANIFESTS, Object, kustomized, run_helm, templated
from tests.support.releases import ALL, CASES, built, released

EXCEPTIONS = Path(__file__).with_name("exceptions.yaml")
VERSIONS = ("1.30", "1.34", "1.37")
"""Of Kubernetes: the oldest that has the admission policies' API, one between, and the one that tests run on."""
OTHERS = ("PrometheusRule",)
"""Kinds of other projects: Kubernetes' schemas have none of them."""
NO_HELM = "no Helm and kube-score here (`make control-plane` builds them, with Go): the chart is not checked"

Finding = tuple[str, str]
"""A check's name, and what it found fault with."""


def render(directory: Path, *, chart: bool) -> None:
    """All that kustomize and, with `chart`, Helm make: in `whole/` a file for each, in `new/` what none had yet."""
    # A Job needs what base installs.
    job = kustomized(MANIFESTS / "base") + kustomized(MANIFESTS / "job")
    rendered: dict[str, Iterable[Object]] = {"kustomize-job": job}
    for number, case in enumerate(CASES):
        name = case.name.replace(" ", "-")
        for tool, make in (("kustomize", built), ("chart", released)) if chart else (("kustomize", built),):
            place = directory / "work" / f"{tool}-{number}"
            place.mkdir(parents=True)
            rendered[f"{tool}-{name}"] = make(case, place)
    if chart:
        rendered["chart-every-value"] = templated(directory / "work", values=ALL)
    for folder in ("whole", "new"):
        (directory / folder).mkdir()
    seen = set()
    for name, objects in rendered.items():
        texts = [yaml.safe_dump(obj) for obj in objects if obj["kind"] not in OTHERS]
        new = [text for text in texts if text not in seen]
        seen.update(new)
        (directory / "whole" / f"{name}.yaml").write_text("---\n".join(texts))
        if new:
            (directory / "new" / f"{name}.yaml").write_text("---\n".join(new))


def validated(program: Path, files: Sequence[Path]) -> Iterator[Finding]:
    """By the strict schemas of each version. A kind without a schema is a finding as well."""
    for version in VERSIONS:
        command = [str(program), "--strict", "--quiet", "-k", version, *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("INFO")]
        yield from (("schema", line) for line in said)
        if done.returncode and not said:
            yield "schema", f"{program.name} ended with exit code {done.returncode}"


def checkov(program: Path, directory: Path) -> Iterator[Finding]:
    """Its own rules alone: nothing is asked of its makers' service."""
    command = [
        str(program),
        "-d",
        str(directory),
        "--framework",
        "kubernetes",
        "-o",
        "json",
        "--quiet",
        "--skip-download",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    report = json.loads(done.stdout)
    if not report["summary"]["passed"] or report["summary"]["parsing_errors"]:
        yield "checkov", f"it understood nothing, or not all: {report['summary']}"
    for found in report["results"]["failed_checks"]:
        yield found["check_id"], f"{found['check_name']}: {found['file_path']} {found['resource']}"


def kube_score(program: Path, files: Sequence[Path]) -> Iterator[Finding]:
    """Warnings count as well. File by file: of objects of one name in several files it would score the last alone."""
    for file in files:
        command = [
            str(program),
            "score",
            "--kubernetes-version",
            f"v{VERSIONS[0]}",
            "--output-format",
            "json",
            str(file),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        for scored in json.loads(done.stdout) or ():  # null: nothing in it that it knows
            for check in scored["checks"] or ():
                if check["grade"] < 10 and not check["skipped"]:
                    comments = sorted({comment["summary"] for comment in check["comments"] or ()})
                    yield check["check"]["id"], f"{', '.join(comments)}: {file.name} {scored['object_name']}"


def linted(directory: Path) -> Iterator[Finding]:
    for file in sorted((CHART / "ci").iterdir()):
        done = run_helm(directory, "lint", "--strict", CHART, "--values", file)
        if done.returncode:
            yield "helm lint", f"{file.name}: {done.stdout}{done.stderr}"


def judged(tool: str, found: Iterable[Finding], exceptions: dict[str, str]) -> list[str]:
    """What is wrong: findings without an exception, exceptions without a finding."""
    by_check: dict[str, list[str]] = {}
    for check, place in found:
        by_check.setdefault(check, []).append(place)
    wrong = [
        f"{tool}: {check}: {places[0]}" + (f" (and {len(places) - 1} more)" if places[1:] else "")
        for check, places in by_check.items()
        if check not in exceptions
    ]
    unused = exceptions.keys() - by_check.keys()
    return wrong + [f"{tool}: the exception {check} is needed no more: {EXCEPTIONS.name}" for check in sorted(unused)]


def check(programs: Path, directory: Path, *, chart: bool) -> list[str]:
    """What is wrong with all that is rendered, by the checkers of this folder and, with `chart`, the built ones."""
    exceptions = yaml.safe_load(EXCEPTIONS.read_text())
    render(directory, chart=chart)
    new, whole = (sorted((directory / place).iterdir()) for place in ("new", "whole"))
    print(f"rendered: {len(whole)} files")
    checks: dict[str, Iterator[Finding]] = {
        "kubernetes-validate": validated(programs / "kubernetes-validate", new),
        "checkov": checkov(programs / "checkov", directory / "new"),
    }
    score = find_chart_tool("kube-score")
    if chart and score is not None:
        checks |= {"kube-score": kube_score(score, whole), "helm": linted(directory)}
    wrong = []
    for tool, found in checks.items():
        begun = time.monotonic()
        faults = judged(tool, found, exceptions.get(tool, {}))
        print(f"{tool}: {len(faults)} faults, {time.monotonic() - begun:.0f} s")
        wrong += faults
    return wrong


def main() -> None:
    """Exit code 1 with what is wrong; the argument is the folder with kubernetes-validate and checkov."""
    chart = all(find_chart_tool(name) for name in ("helm", "kube-score"))
    if not chart:
        if os.environ.get("REQUIRE_CLUSTER") == "1":
            raise SystemExit(f"{NO_HELM}, but REQUIRE_CLUSTER=1")
        print(NO_HELM)
    with tempfile.TemporaryDirectory() as directory:
        wrong = check(Path(sys.argv[1]), Path(directory), chart=chart)
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
