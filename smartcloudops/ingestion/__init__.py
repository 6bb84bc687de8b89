"Where samples come from: this host, CloudWatch, Prometheus, files, or a made-up fleet."
from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .cloudwatch import CloudWatchSource as CloudWatchSource
    from .host import HostSource as HostSource
    from .prometheus import PrometheusSource as PrometheusSource
    from .registry import fetch_metrics as fetch_metrics, make_source as make_source
    from .replay import (
        ReadResult as ReadResult,
        ReplaySource as ReplaySource,
        read_csv as read_csv,
        read_parquet as read_parquet,
        read_samples as read_samples,
    )
    from .source import Chunk as Chunk, Source as Source
    from .synthetic import Fault as Fault, SyntheticSource as SyntheticSource, synthetic_frame as synthetic_frame

__getattr__, __dir__, __all__ = front_door(__name__, {
    'fetch_metrics': 'registry', 'make_source': 'registry', 'Source': 'source', 'Chunk': 'source',
    'synthetic_frame': 'synthetic', 'Fault': 'synthetic', 'SyntheticSource': 'synthetic', 'HostSource': 'host',
    'ReplaySource': 'replay', 'read_csv': 'replay', 'read_parquet': 'replay', 'read_samples': 'replay',
    'ReadResult': 'replay', 'CloudWatchSource': 'cloudwatch', 'PrometheusSource': 'prometheus',
})
