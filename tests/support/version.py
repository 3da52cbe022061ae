"""The project's version, which setup.cfg says."""

from __future__ import annotations

from release.version import current
from tests.support.scene import ROOT

VERSION = current(ROOT)
