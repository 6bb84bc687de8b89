"What one wants in JupyterLab: history into a frame, a frame into a picture, incidents into a table."
from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .chart import plot as plot
    from .forecasts import coverage as coverage, days_until_full as days_until_full, forecast as forecast
    from .marks import BAD as BAD, BAND as BAND, GRID as GRID, INK as INK, LINE as LINE, Chart as Chart
    from .past import (
        PRACTICE_FAULTS as PRACTICE_FAULTS,
        Incidents as Incidents,
        incidents as incidents,
        practice as practice,
        what_if as what_if,
    )
    from .samples import load_history as load_history, score as score, watch as watch

__getattr__, __dir__, __all__ = front_door(__name__, {
    'load_history': 'samples', 'watch': 'samples', 'score': 'samples',
    'plot': 'chart', 'Chart': 'marks',
    'INK': 'marks', 'LINE': 'marks', 'BAND': 'marks', 'BAD': 'marks', 'GRID': 'marks',
    'Incidents': 'past', 'incidents': 'past', 'what_if': 'past', 'practice': 'past', 'PRACTICE_FAULTS': 'past',
    'forecast': 'forecasts', 'coverage': 'forecasts', 'days_until_full': 'forecasts',
})
