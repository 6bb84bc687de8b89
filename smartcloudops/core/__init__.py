"What a metric and a host are; settings, errors, the clock."
from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .clock import FakeClock as FakeClock, now as now, use_clock as use_clock
    from .database import open_state as open_state
    from .errors import SmartCloudOpsError as SmartCloudOpsError
    from .frames import (
        Rates as Rates,
        from_tidy as from_tidy,
        normalise as normalise,
        per_second as per_second,
        resample as resample,
        to_tidy as to_tidy,
        validate as validate,
    )
    from .inventory import (
        Inventory as Inventory,
        Target as Target,
        canonical_host as canonical_host,
        own_host as own_host,
        read_targets as read_targets,
    )
    from .logs import configure_logging as configure_logging
    from .series import (
        METRICS as METRICS,
        Metric as Metric,
        Series as Series,
        describe as describe,
        short_name as short_name,
    )
    from .series_index import SeriesIndex as SeriesIndex
    from .settings import Settings as Settings, load_settings as load_settings, show_settings as show_settings

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
