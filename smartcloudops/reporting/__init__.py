"Reports: notebooks with parameters, executed once or by a schedule."
from typing import TYPE_CHECKING

from smartcloudops.core.imports import front_door

if TYPE_CHECKING:
    from .child import ReportProcess as ReportProcess
    from .cron import last_due as last_due, next_due as next_due
    from .page import to_html as to_html
    from .planned import Job as Job, jobs as jobs
    from .results import MIME as MIME, ReportError as ReportError, Run as Run, record as record
    from .run_records import (
        MOST_ATTEMPTS as MOST_ATTEMPTS,
        ReportLock as ReportLock,
        ReportRuns as ReportRuns,
        list_runs as list_runs,
        report_runs as report_runs,
    )
    from .runs import run_report as run_report
    from .schedule import (
        DueReports as DueReports,
        RunningReport as RunningReport,
        Schedule as Schedule,
        tidy_reports as tidy_reports,
    )
    from .templates import (
        Reports as Reports,
        ReportTemplate as ReportTemplate,
        checked as checked,
        find_report as find_report,
        list_reports as list_reports,
    )
    from .timers import as_cron as as_cron, as_systemd as as_systemd, on_calendar as on_calendar

__getattr__, __dir__, __all__ = front_door(__name__, {
    'ReportTemplate': 'templates', 'Reports': 'templates', 'list_reports': 'templates', 'find_report': 'templates',
    'checked': 'templates', 'record': 'results', 'MIME': 'results', 'Run': 'results', 'ReportError': 'results',
    'to_html': 'page', 'run_report': 'runs', 'next_due': 'cron', 'last_due': 'cron',
    'Job': 'planned', 'jobs': 'planned',
    'ReportRuns': 'run_records', 'ReportLock': 'run_records', 'report_runs': 'run_records', 'list_runs': 'run_records',
    'MOST_ATTEMPTS': 'run_records', 'ReportProcess': 'child', 'DueReports': 'schedule', 'RunningReport': 'schedule',
    'Schedule': 'schedule', 'tidy_reports': 'schedule',
    'on_calendar': 'timers', 'as_systemd': 'timers', 'as_cron': 'timers',
})
