"""The known ways from layouts of former releases to this one's, newest first. Each release that raises LAYOUT_VERSION
adds one for every map whose entries should survive the upgrade; a map without one is refused, never emptied."""

from __future__ import annotations

from typing import Final

from datapath.loader.layouts import Migration

MIGRATIONS: Final[tuple[Migration, ...]] = ()
