"What is done about it: policies, gates, the ledger, and the engine that acts."
from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .backtest import (
        Backtest as Backtest,
        keep_backtest as keep_backtest,
        last_backtests as last_backtests,
        run_backtest as run_backtest,
    )
    from .drill import run_drill as run_drill
    from .engine import Outcome as Outcome, Remediator as Remediator, read_switch as read_switch
    from .gates import Plan as Plan, Refusal as Refusal, State as State, decide as decide
    from .ledger import (
        Action as Action,
        Ledger as Ledger,
        Verification as Verification,
        copy_segments as copy_segments,
        log_remediation_to_s3 as log_remediation_to_s3,
        verify_lines as verify_lines,
    )
    from .notify import Notifier as Notifier
    from .operations import (
        Operation as Operation,
        Report as Report,
        make_operation as make_operation,
        register as register,
        remediate_action as remediate_action,
    )
    from .operators import (
        add_silence as add_silence,
        approve as approve,
        cancel as cancel,
        close_breaker as close_breaker,
        deny as deny,
        end_silence as end_silence,
        figures as figures,
        get_action as get_action,
        give_feedback as give_feedback,
        grant_mode as grant_mode,
        ledger_export as ledger_export,
        ledger_verify as ledger_verify,
        list_actions as list_actions,
        list_silences as list_silences,
        proposals as proposals,
        switch_off as switch_off,
        switch_on as switch_on,
        switch_status as switch_status,
        tell_action as tell_action,
    )
    from .policy import (
        Policies as Policies,
        Policy as Policy,
        explain_policy as explain_policy,
        load_policies as load_policies,
        policy_schema as policy_schema,
        read_policies as read_policies,
    )

__getattr__, __dir__, __all__ = front_door(
    __name__,
    {
        'remediate_action': 'operations',
        'log_remediation_to_s3': 'ledger',
        'Policies': 'policy',
        'Policy': 'policy',
        'load_policies': 'policy',
        'read_policies': 'policy',
        'explain_policy': 'policy',
        'policy_schema': 'policy',
        'Plan': 'gates',
        'Refusal': 'gates',
        'State': 'gates',
        'decide': 'gates',
        'Action': 'ledger',
        'Ledger': 'ledger',
        'Verification': 'ledger',
        'copy_segments': 'ledger',
        'verify_lines': 'ledger',
        'Operation': 'operations',
        'Report': 'operations',
        'make_operation': 'operations',
        'register': 'operations',
        'Remediator': 'engine',
        'Outcome': 'engine',
        'read_switch': 'engine',
        'Notifier': 'notify',
        'run_backtest': 'backtest',
        'Backtest': 'backtest',
        'keep_backtest': 'backtest',
        'last_backtests': 'backtest',
        'run_drill': 'drill',
        'list_actions': 'operators',
        'get_action': 'operators',
        'tell_action': 'operators',
        'approve': 'operators',
        'deny': 'operators',
        'cancel': 'operators',
        'switch_on': 'operators',
        'switch_off': 'operators',
        'switch_status': 'operators',
        'add_silence': 'operators',
        'list_silences': 'operators',
        'end_silence': 'operators',
        'ledger_verify': 'operators',
        'ledger_export': 'operators',
        'figures': 'operators',
        'proposals': 'operators',
        'grant_mode': 'operators',
        'close_breaker': 'operators',
        'give_feedback': 'operators',
    },
)
