"What is wrong, since when, and why."
from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .anomalies import Anomaly as Anomaly, from_scores as from_scores
    from .incidents import (
        Changes as Changes,
        Incident as Incident,
        IncidentTracker as IncidentTracker,
        get_incident as get_incident,
        ingest_alerts as ingest_alerts,
        list_incidents as list_incidents,
        open_incidents as open_incidents,
    )
    from .joint import JointDetector as JointDetector, JointModels as JointModels, fit_joint as fit_joint
    from .readings import detect_anomaly as detect_anomaly, log_anomaly_to_s3 as log_anomaly_to_s3
    from .rules import Rule as Rule, RuleEngine as RuleEngine, rules_from_settings as rules_from_settings
    from .scores import Scores as Scores
    from .stream import StreamDetector as StreamDetector
    from .suspects import rank_suspects as rank_suspects

__getattr__, __dir__, __all__ = front_door(__name__, {
    'detect_anomaly': 'readings', 'log_anomaly_to_s3': 'readings',
    'Rule': 'rules', 'RuleEngine': 'rules', 'rules_from_settings': 'rules',
    'StreamDetector': 'stream', 'Scores': 'scores',
    'JointDetector': 'joint', 'JointModels': 'joint', 'fit_joint': 'joint',
    'Anomaly': 'anomalies', 'from_scores': 'anomalies',
    'Incident': 'incidents', 'IncidentTracker': 'incidents', 'Changes': 'incidents', 'open_incidents': 'incidents',
    'get_incident': 'incidents', 'list_incidents': 'incidents', 'ingest_alerts': 'incidents',
    'rank_suspects': 'suspects'})
