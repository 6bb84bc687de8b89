"What we know now, and how old it is."
from smartcloudops.core.imports import front_door

__getattr__, __dir__, __all__ = front_door(__name__, {
    'History': 'history', 'get_latest_metrics': 'latest', 'freshness': 'latest', 'gaps': 'latest', 'clock_skew': 'latest',
    'write_targets': 'targets', 'check_targets': 'targets', 'render': 'targets',
})
