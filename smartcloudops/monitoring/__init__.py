"What we know now, and how old it is."
from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .history import History as History
    from .latest import (
        clock_skew as clock_skew,
        freshness as freshness,
        gaps as gaps,
        get_latest_metrics as get_latest_metrics,
    )
    from .targets import check_targets as check_targets, render as render, write_targets as write_targets

__getattr__, __dir__, __all__ = front_door(__name__, {
    'History': 'history', 'get_latest_metrics': 'latest', 'freshness': 'latest', 'gaps': 'latest',
    'clock_skew': 'latest',
    'write_targets': 'targets', 'check_targets': 'targets', 'render': 'targets',
})
