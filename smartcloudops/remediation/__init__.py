"What is done about it: policies, gates, the ledger, and the engine that acts."
# ruff: noqa: F401
from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:      # what editors and type checkers read; at run time each name is imported when it is first used
    from .backtest import Backtest, keep_backtest, last_backtests, run_backtest
    from .drill import run_drill
    from .engine import Outcome, Remediator, read_switch
    from .gates import Plan, Refusal, State, decide
    from .ledger import Action, Ledger, Verification, copy_segments, log_remediation_to_s3, verify_lines
    from .notify import Notifier
    from .operations import Operation, Report, make_operation, register, remediate_action
    from .operators import (
        add_silence, approve, cancel, close_breaker, deny, end_silence, figures, get_action, give_feedback, grant_mode,
        ledger_export, ledger_verify, list_actions, list_silences, proposals, switch_off, switch_on, switch_status,
        tell_action)
    from .policy import Policies, Policy, explain_policy, load_policies, policy_schema, read_policies

_HOMES = {
    'backtest': 'Backtest keep_backtest last_backtests run_backtest',
    'drill': 'run_drill',
    'engine': 'Outcome Remediator read_switch',
    'gates': 'Plan Refusal State decide',
    'ledger': 'Action Ledger Verification copy_segments log_remediation_to_s3 verify_lines',
    'notify': 'Notifier',
    'operations': 'Operation Report make_operation register remediate_action',
    'operators': 'add_silence approve cancel close_breaker deny end_silence figures get_action give_feedback grant_mode '
                 'ledger_export ledger_verify list_actions list_silences proposals switch_off switch_on switch_status '
                 'tell_action',
    'policy': 'Policies Policy explain_policy load_policies policy_schema read_policies',
}
__getattr__, __dir__, __all__ = front_door(__name__, {n: home for home, names in _HOMES.items() for n in names.split()})
