"What is done about it: policies, gates, the ledger, and the engine that acts."
from smartcloudops.core.imports import front_door

__getattr__, __dir__, __all__ = front_door(__name__, {
    'remediate_action': 'operations', 'log_remediation_to_s3': 'ledger',
    **{name: 'policy' for name in ('Policies', 'Policy', 'load_policies', 'read_policies', 'explain_policy', 'policy_schema')},
    **{name: 'gates' for name in ('Plan', 'Refusal', 'State', 'decide')},
    **{name: 'ledger' for name in ('Action', 'Ledger', 'Verification', 'copy_segments', 'verify_lines')},
    **{name: 'operations' for name in ('Operation', 'Report', 'make_operation', 'register')},
    **{name: 'engine' for name in ('Remediator', 'Outcome', 'read_switch')},
    'Notifier': 'notify', **{name: 'backtest' for name in ('run_backtest', 'Backtest', 'keep_backtest', 'last_backtests')}, 'run_drill': 'drill',
    **{name: 'operators' for name in ('list_actions', 'get_action', 'tell_action', 'approve', 'deny', 'cancel', 'switch_on', 'switch_off', 'switch_status',
                                      'add_silence', 'list_silences', 'end_silence', 'ledger_verify', 'ledger_export', 'figures', 'proposals', 'grant_mode', 'close_breaker')},
})
