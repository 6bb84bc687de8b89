"What is done about it: policies, gates, the ledger, and the engine that acts."
from smartcloudops.core.runtime import front_door

__getattr__, __dir__, __all__ = front_door(__name__, {
    'Policies': 'policy', 'Policy': 'policy', 'load_policies': 'policy', 'read_policies': 'policy', 'explain_policy': 'policy', 'policy_schema': 'policy',
    'Plan': 'gates', 'Refusal': 'gates', 'State': 'gates', 'decide': 'gates',
    'Action': 'ledger', 'Ledger': 'ledger', 'log_remediation_to_s3': 'ledger', 'copy_segments': 'ledger',
    'Operation': 'operations', 'Report': 'operations', 'register': 'operations', 'remediate_action': 'operations',
    'Remediator': 'engine', 'Outcome': 'engine', 'Notifier': 'notify',
})
