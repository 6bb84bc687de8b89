"One tick, and the running of ticks."
from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .checkpoint import DetectorCheckpoint as DetectorCheckpoint
    from .clock_guard import ClockGuard as ClockGuard
    from .models import Models as Models
    from .replay import ReplayStages as ReplayStages, replay_stages as replay_stages
    from .runner import Loop as Loop, Pipeline as Pipeline
    from .tick import Problems as Problems, Stage as Stage, Tick as Tick, run_stages as run_stages

__getattr__, __dir__, __all__ = front_door(__name__, {
    'DetectorCheckpoint': 'checkpoint', 'ClockGuard': 'clock_guard', 'Models': 'models',
    'ReplayStages': 'replay', 'replay_stages': 'replay', 'Loop': 'runner', 'Pipeline': 'runner',
    'Problems': 'tick', 'Stage': 'tick', 'Tick': 'tick', 'run_stages': 'tick',
})
