"What is wrong, since when, and why."
from smartcloudops.core.imports import front_door

__getattr__, __dir__, __all__ = front_door(__name__, {
    'detect_anomaly': 'readings', 'log_anomaly_to_s3': 'readings',
    'Rule': 'rules', 'RuleEngine': 'rules', 'rules_from_settings': 'rules',
    'StreamDetector': 'stream', 'Scores': 'scores',
    'JointDetector': 'joint', 'JointModels': 'joint', 'fit_joint': 'joint',
    'Anomaly': 'anomalies', 'from_scores': 'anomalies',
    'Incident': 'incidents', 'IncidentTracker': 'incidents', 'Changes': 'incidents', 'open_incidents': 'incidents',
    'get_incident': 'incidents', 'list_incidents': 'incidents', 'give_feedback': 'incidents', 'ingest_alerts': 'incidents',
    'rank_suspects': 'suspects'})
