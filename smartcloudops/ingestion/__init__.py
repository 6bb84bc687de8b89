"Where samples come from: this host, CloudWatch, Prometheus, files, or a made-up fleet."
from smartcloudops.core.imports import front_door

__getattr__, __dir__, __all__ = front_door(__name__, {
    'fetch_metrics': 'sources', 'Source': 'sources', 'make_source': 'sources', 'synthetic_frame': 'sources', 'Fault': 'sources',
    'SyntheticSource': 'sources', 'HostSource': 'host', 'ReplaySource': 'replay', 'read_csv': 'replay', 'read_parquet': 'replay',
    'read_samples': 'replay', 'ReadResult': 'replay', 'CloudWatchSource': 'cloudwatch', 'PrometheusSource': 'prometheus',
})
