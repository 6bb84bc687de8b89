"What a metric and a host are; settings, errors, the clock."
from smartcloudops.core.imports import front_door

__getattr__, __dir__, __all__ = front_door(__name__, {
    'Series': 'series', 'Metric': 'series', 'METRICS': 'series', 'describe': 'series', 'short_name': 'series',
    'SeriesIndex': 'series_index',
    'validate': 'frames', 'normalise': 'frames', 'to_tidy': 'frames', 'from_tidy': 'frames', 'resample': 'frames',
    'Rates': 'frames', 'per_second': 'frames',
    'Settings': 'settings', 'load_settings': 'settings', 'show_settings': 'settings',
    'Inventory': 'inventory', 'Target': 'inventory', 'read_targets': 'inventory', 'canonical_host': 'inventory',
    'own_host': 'inventory',
    'open_state': 'database', 'SmartCloudOpsError': 'errors', 'now': 'clock', 'use_clock': 'clock',
    'FakeClock': 'clock',
    'configure_logging': 'logs',
})
