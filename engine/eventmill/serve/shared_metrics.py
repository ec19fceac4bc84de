"""Where the processes of one ``serve`` share their metrics."""

from __future__ import annotations

import os
import shutil

from eventmill.core.config import Config


def prepare_metrics(config: Config) -> None:
    """Start with empty shared metrics; must run before prometheus_client is imported."""
    folder = config.state_dir / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
