"""Clients of Kubernetes whose requests go to a machine in this process."""

from __future__ import annotations

import copy
import functools
from typing import cast

import aiohttp

from sandbox.transport.faults import Faults
from sandbox.transport.in_process import InProcessSession
from sandbox.transport.wire import Machine
from worker.kubernetes.library import Configuration, RESTClientObject
from worker.kubernetes.rest import RestClient


def rest_client(machine: Machine, faults: Faults | None = None) -> RestClient:
    """The worker's client; its session is `rest_client.pool_manager`."""
    return with_session(cast(aiohttp.ClientSession, InProcessSession(machine, faults)))


def with_session(session: aiohttp.ClientSession) -> RestClient:
    """The worker's client of `https://kubernetes.invalid`, with another session."""
    client = RestClient(_library_client().configuration, copy.copy(_library_client()))
    client.rest_client.pool_manager = session
    return client


@functools.cache
def _library_client() -> RESTClientObject:
    # Made once: a client builds an SSL context, which takes longer than a whole simulated run.
    return RESTClientObject(Configuration(host="https://kubernetes.invalid"))
