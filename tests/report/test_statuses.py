"""Statuses, on clusters whose CRDs take them or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.support.builders import source
from tests.support.virtual_time import run_virtually
from worker.errors import NotFound, Refused, RotatorError, Unanswered
from worker.kubernetes.generator import GENERATORS
from worker.model.values import JSON, Answer, Ref, Resource
from worker.report.statuses import Statuses

READY = {"type": "Ready", "status": "False"}
STALLED = {"type": "Stalled", "status": "True"}
PATCH: JSON = {"status": {"conditions": [READY, STALLED]}}
GENERATOR = source(kind="OpenAI", resource=GENERATORS)


class Crd:
    """A cluster whose CRD answers so; what it was asked."""

    def __init__(self, answer: Callable[[JSON], JSON | RotatorError], *, serves: bool | RotatorError = True) -> None:
        self.answer, self.served = answer, serves
        self.patches: list[JSON] = []
        self.looks = 0

    async def patch(
        self, resource: Resource, ref: Ref, patch: JSON, *, subresource: str = "", dry_run: bool = False
    ) -> Answer:
        assert subresource == "status"
        self.patches.append(patch)
        await asyncio.sleep(1)
        answer = self.answer(patch)
        if isinstance(answer, RotatorError):
            raise answer
        return Answer(answer)

    async def serves(self, resource: Resource, subresource: str = "") -> bool:
        assert subresource == "status"
        self.looks += 1
        if isinstance(self.served, RotatorError):
            raise self.served
        return self.served


def write(crd: Crd, count: int = 3) -> list[str]:
    """So many generators at once; the errors."""

    async def all_of_them() -> list[str]:
        statuses = Statuses()
        writes = [statuses.write_generator(crd, GENERATOR, PATCH) for _ in range(count)]  # type: ignore[arg-type]
        return [problem for problems in await asyncio.gather(*writes) for problem in problems]

    problems, _ = run_virtually(all_of_them(), 0.0)
    return problems


def test_a_cluster_that_keeps_conditions_is_told_of_each_generator() -> None:
    crd = Crd(lambda patch: patch)
    assert write(crd) == []
    assert len(crd.patches) == 3


def test_a_cluster_that_drops_conditions_is_asked_once() -> None:
    """As with the enterprise operator's CRD."""
    crd = Crd(lambda patch: {"status": {}})
    assert write(crd) == []
    assert len(crd.patches) == 1


def test_a_cluster_without_such_a_status_is_asked_once() -> None:
    crd = Crd(lambda patch: NotFound("NotFound", "not found", status=404), serves=False)
    assert write(crd) == []
    assert (len(crd.patches), crd.looks) == (1, 1)


def test_a_generator_that_was_deleted_keeps_none_of_the_others_from_being_told() -> None:
    """It answers the same as a cluster without such a status."""
    answers: Iterator[JSON | RotatorError] = iter([NotFound("NotFound", "gone", status=404), PATCH, PATCH])
    crd = Crd(lambda patch: next(answers))
    assert write(crd) == []
    assert (len(crd.patches), crd.looks) == (3, 1)


@pytest.mark.parametrize("trouble", [Unanswered("Lost", "no answer"), Refused("No", "refused", status=403)])
def test_another_trouble_is_told_and_says_nothing_of_the_crd(trouble: RotatorError) -> None:
    crd = Crd(lambda patch: trouble)
    assert write(crd, 2) == [trouble.message] * 2
    unsure = Crd(lambda patch: NotFound("NotFound", "gone", status=404), serves=Unanswered("Lost", "no answer"))
    assert write(unsure, 2) == ["no answer"] * 2


# --- ExternalSecrets


def write_external_secrets(crd: Crd, *patches: JSON) -> list[str]:
    async def one_by_one() -> list[str]:
        statuses, found = Statuses(), []
        for patch in patches:
            found += await statuses.write_external_secret(crd, source(), patch)  # type: ignore[arg-type]
        return found

    problems, _ = run_virtually(one_by_one(), 0.0)
    return problems


def only_known_types(patch: JSON) -> JSON | RotatorError:
    """As External Secrets Operator's CRD has it."""
    known = all(condition["type"] in ("Ready", "Deleted") for condition in patch["status"]["conditions"])
    return patch if known else Refused("ClusterRefused", "refused", status=422)


def test_a_cluster_that_refuses_stalled_is_told_the_rest_and_not_asked_again() -> None:
    crd = Crd(only_known_types)
    assert write_external_secrets(crd, PATCH, PATCH) == []
    plain = {"status": {"conditions": [READY]}}
    assert crd.patches == [PATCH, plain, plain]


def test_a_cluster_that_takes_stalled_is_told_at_once() -> None:
    crd = Crd(lambda patch: patch)
    assert write_external_secrets(crd, PATCH, PATCH) == []
    assert crd.patches == [PATCH, PATCH]


def test_what_is_refused_for_another_reason_is_told() -> None:
    """And stalled is tried the next time, for it was not to blame."""
    crd = Crd(lambda patch: Refused("ClusterRefused", "refused", status=422))
    assert write_external_secrets(crd, PATCH, PATCH) == ["refused", "refused"]
    assert len(crd.patches) == 4
    forbidden = Crd(lambda patch: Refused("Forbidden", "no right", status=403))
    assert write_external_secrets(forbidden, PATCH) == ["no right"]
    assert len(forbidden.patches) == 1
