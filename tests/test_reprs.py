"""What one sees on typing a name in a notebook: each public class tells itself in a line, and as a table where that
says more; no secret, no address in memory."""
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pandas as pd
import pytest

import smartcloudops
from smartcloudops.core.settings import Settings
from tests.remediation_fleet import START, anomaly, executor, freshness, good_state, incident

pytestmark = pytest.mark.phase7
INNER = {
    'dashboard',
    'cli',
}  # their front doors hand on functions, the Flask app and commands; what stands behind is for itself
SECRET = 'hunter2'
TABLES = {
    'RuleEngine',
    'Scores',
    'JointModels',
    'Incident',
    'Inventory',
    'Settings',
    'ReadResult',
    'Lags',
    'CloudWatchSource',
    'PrometheusSource',
    'History',
    'Discovered',
    'State',
    'Plan',
    'Refusal',
    'Policy',
    'Policies',
    'Action',
    'Ledger',
    'Backtest',
    'Drill',
    'ReportTemplate',
    'Reports',
    'Run',
    'Schedule',
    'Incidents',
}


def public_classes() -> set[type]:
    "Every class that a module names in its `__all__`; errors tell themselves, and a protocol has no objects."
    found = set()
    for module in pkgutil.walk_packages(smartcloudops.__path__, 'smartcloudops.'):
        room = module.name.split('.')[1]
        if room in INNER or room.startswith('_'): continue
        loaded = importlib.import_module(module.name)
        here = (getattr(loaded, name, None) for name in getattr(loaded, '__all__', ()))
        found |= {
            c
            for c in here
            if inspect.isclass(c)
            and c.__module__.startswith('smartcloudops.')
            and not issubclass(c, BaseException)
            and not getattr(c, '_is_protocol', False)
        }
    return {c for c in found if c.__module__.split('.')[1] not in INNER}


# One object of each, with what is awkward: secrets, markup, long texts, nothing at all

def of_core(folder):
    from smartcloudops.core import aws, clock, frames, inventory, kv, series, series_index, settings
    (folder / 'targets.json').write_text(
        '{"app": ["web-1:5000"], "node_exporter": [{"target": "web-1:9100", "labels": {"host": "<script>"}}]}'
    )
    sections = [
        getattr(settings, name)
        for name in settings.__all__
        if name.endswith(('Settings', 'Section')) and name != 'Settings'
    ]
    full = Settings(
        data_dir=folder,
        source='synthetic',
        hosts={f'10.0.0.{n}': f'web-{n}' for n in range(200)},
        notify=dict(urls=[f'mailto://ann:{SECRET}@example.org']),
        dashboard=dict(users={'ann': f'operator:{SECRET}'}, tokens={'ci': f'viewer:{SECRET}'}, secret_key=SECRET),
        prometheus=dict(password=SECRET, headers={'X-Key': SECRET}),
    )
    return [
        clock.SystemClock(),
        clock.FakeClock(),
        series.Series('cpu_utilization_percent', {'host': 'web-1'}),
        series.describe('load1'),
        frames.Rates(),
        *(made() for made in sections),
        full,
        Settings(),
        full.notify,
        full.prometheus,
        full.dashboard,
        inventory.read_targets(folder / 'targets.json'),
        inventory.read_targets(folder / 'targets.json').targets[0],
        kv.Key("watermark", 0),
        series_index.series_index(frames.empty_frame(["load1"]).columns),
        kv.Heartbeat(START, dict(series=12, note=f'token={SECRET}')),
        aws.AwsClients(full),
        aws.TokenBucket(25, 50),
    ]


def of_ingestion(folder):
    from smartcloudops.ingestion import (
        cloudwatch,
        cloudwatch_data,
        cloudwatch_queries,
        cloudwatch_settings,
        host,
        prometheus,
        prometheus_answers,
        prometheus_queries,
        replay,
        source,
        synthetic,
    )
    frame = synthetic.synthetic_frame(hosts=2, hours=1, every=300)
    frame.to_parquet(folder/'samples.parquet')
    watched = cloudwatch_settings.PRESETS['ec2'][0].model_copy(update=dict(period=300))
    url = f'http://ann:{SECRET}@127.0.0.1:9'
    settings = Settings(aws=dict(regions=['eu-west-1']), prometheus=dict(url=url, token=SECRET))
    name = 'cpu_utilization_percent{host="i-0abc"}'
    query = cloudwatch_queries.Query('eu-west-1', watched, (('InstanceId', 'i-0abc'),), name)
    lags = cloudwatch_data.Lags()
    for second in range(30): lags.saw(query, 0, 300 + second)
    asked, problems = cloudwatch.CloudWatchSource(settings), source.SourceProblems('cloudwatch')
    queries = prometheus_queries.prometheus_settings(settings)
    return [
        source.Source(), problems, source.Chunk(frame, START, START, .5), synthetic.PROFILES[0],
        synthetic.Fault('spike'), synthetic.Fault('spike', at=START),
        synthetic.SyntheticSource(faults=[synthetic.Fault('spike')]), host.CpuShare(), host.HostSource(),
        replay.layout_of(['time', *map(str, range(1000))]), replay.read_samples(folder/'samples.parquet'),
        replay.ReadResult(frame.iloc[:0], 'wide'), replay.ReplaySource(folder/'samples.parquet', speed=60), watched,
        cloudwatch_settings.cloudwatch_settings(settings),
        cloudwatch_queries.Instance('i-0abc', 'eu-west-1', 'web-1', 'running', 't3.micro'), query, lags,
        cloudwatch_data.Rows(lags), asked, prometheus_queries.NODE[0], queries, prometheus_answers.Naming(),
        prometheus.PrometheusSource(settings), prometheus.Marks(queries),
    ]


def of_monitoring(folder):
    from smartcloudops.core.settings import HistorySettings
    from smartcloudops.ingestion import synthetic_frame
    from smartcloudops.monitoring import (
        grafana,
        history,
        history_file,
        history_reader,
        history_writer,
        known_series,
        retention,
        sealing,
        targets,
    )
    with history.History(folder/'history.db') as kept: kept.append(synthetic_frame(hosts=1, hours=1, every=300))
    read, file = history.History(folder / 'history.db', readonly=True), history_file.HistoryFile(
        folder / 'history.db', True
    )
    numbers = np.arange(3)
    question = history_reader.Question(host=('web-1',), start=START)
    policy = next(getattr(retention, name) for name in retention.__all__ if name.startswith('Retention'))
    return [
        read, history.History(folder/'none.db', readonly=True),
        sealing.Rewritten('a.parquet', START, START, 100, 900), sealing.Sealer(folder/'history.db'), grafana.FLEET[0],
        targets.Discovered(tuple(f'10.0.0.{n}:9100' for n in range(200)), ('<script>:9100',), 3, True), question,
        history_reader.take_snapshot(file, question), sealing._look(read, 0, 9),
        history_writer.Batch(numbers, numbers, np.zeros((3, 3)), 0, 0),
        known_series.Numbered(pd.Index(['load1']), numbers, numbers), policy(file, HistorySettings()),
    ]


def of_detection(folder):
    from smartcloudops.core.database import open_state
    from smartcloudops.detection import evaluate, fault_cases, incidents, joint, rules, stream
    from smartcloudops.detection.models.state import FIELDS
    from smartcloudops.ingestion import synthetic_frame
    frame, state = synthetic_frame(hosts=1, hours=30, every=300), open_state(folder/'smartcloudops.db')
    learned, models, engine = stream.StreamDetector(), joint.JointModels(folder/'joint'), rules.RuleEngine()
    model = models.fit('web-1', frame, frame.index[-1])
    state = open_state(folder/'parts.db')
    return [
        FIELDS[0],
        joint.Placed(model, np.arange(2), np.arange(2)),
        *_of_tracker(state),
        stream.StreamDetector(),
        learned.score(frame),
        learned,
        model,
        model.scaler,
        models,
        engine,
        *engine.rules,
        anomaly(reason='x' * 900),
        incident(anomalies=(anomaly(),) * 200, title='<script>'),
        incidents.Changes((incident(),)),
        incidents.Changes(),
        incidents.IncidentTracker(open_state(folder / 'smartcloudops.db')),
        evaluate.Labelled('nab', 'a.csv', np.zeros(3), np.zeros(3), np.zeros(3, bool), [(0, 1)], 0, 1),
        evaluate.Events(3, 1, 2, 1, 4.0, ()),
        fault_cases.FaultCase('slow', frame, 'cpu', START, {}, None),
    ]


def _of_tracker(engine):
    "What incidents and rules are made of."
    from smartcloudops.core.series_index import series_index
    from smartcloudops.core.settings import IncidentSettings
    from smartcloudops.detection import alerts, breaches, feedback, grouping, incident_store, rules, silence, tracker
    opened = incident(title='<script>')
    context = tracker.TickContext(IncidentSettings(), START)
    rule = rules.RuleEngine().rules[0]
    return [
        alerts.Alert('f' * 64, 'firing', START, dict(alertname='HostDown'), dict(summary='x' * 900)),
        breaches.Breach(0.0, 9.0, 97.0, 99.0),
        feedback.Pattern('load1', 'spike', 1.0, 2.0, None),
        grouping.Home(opened, None),
        silence.Keys(rule, series_index(pd.Index(['load1{host="web-1"}']))),
        context,
        tracker.Transition(opened, opened),
        tracker.Opener(incident_store.IncidentStore(engine), context),
    ]


def _stores(ledger, settings):
    "What the ledger and the notifier are made of."
    from smartcloudops.remediation import (
        actions,
        approvals,
        intents,
        leases,
        modes,
        notify,
        silences,
        switch_store,
    )
    chain = ledger.chain
    store, notifier = actions.ActionStore(chain), notify.Notifier(ledger.engine, settings)
    with chain.change(1) as change: change.note('ann', f'token={SECRET}', 'x' * 500, {})
    return [
        chain,
        change,
        store,
        actions.Move('cancelled', f'password={SECRET}' * 50),
        approvals.ApprovalStore(chain, store),
        intents.IntentStore(chain),
        leases.LeaseStore(chain),
        modes.ModeStore(chain),
        modes.BreakerStore(chain),
        silences.SilenceStore(chain),
        switch_store.SwitchStore(chain),
        notifier.hidden,
        notifier.limit,
        notifier.delivery,
    ]


def of_remediation(folder):
    from smartcloudops.core.clock import FakeClock, to_us, use_clock
    from smartcloudops.remediation import backtest, drill, gates, notify, operations, operators, policy
    from tests.remediation_fleet import Always
    with use_clock(FakeClock(START)):
        done = executor(folder)
        outcomes = done.step(START, [incident()], freshness(['web-1', 'web-2', 'web-3'], START), Always(97.))
        mine, us = done.policies, to_us(START)
        state = good_state(
            silences=(gates.Silence(1, 'web-9', '', us, us + 9, 'ann', f'token={SECRET}'),),
            fleet={'web-1': 'ok', '<script>': 'late', 'web-3': 'ok'},
        )
        plan, refusal = (
            gates.decide(incident(), each, mine.policies[0], START)
            for each in (good_state(), good_state(switch=gates.Switch(False)))
        )
        past, action = (
            gates.PastAction(3, 'k' * 64, 'f', 1, 'web-cpu', 0, 'web-1', 1, 'recovered', us, us),
            done.ledger.actions()[0],
        )
    assert isinstance(plan, gates.Plan) and isinstance(refusal, gates.Refusal)
    known = [
        made(given, 'web-1')
        for made, given in (
            (operations.Webhook, dict(url=f'https://ann:{SECRET}@example.org/{{target}}')),
            (operations.Command, dict(run=['/bin/echo', f'password={SECRET}', 'x' * 900])),
            (operations.ServiceRestart, dict(unit='a.service')),
            (operations.Ec2, {}),
            (operations.Ec2Reboot, {}),
            (operations.Ec2StopStart, {}),
            (operations.AsgSetDesired, dict(group='web')),
            (operations.Operation, {}),
        )
    ]
    told = backtest.backtest(
        mine,
        [incident(), incident('web-2', id=2, state='closed', closed=START + pd.Timedelta('5min'))],
        settings=done.settings,
    )
    condition = policy.Condition(metric='load1', above=1)
    return [
        *_stores(done.ledger, done.settings),
        *outcomes,
        done,
        *of_engine(done, folder),
        done.tags,
        done.ledger,
        action,
        done.ledger.verify(),
        plan,
        plan.verdicts[0],
        refusal,
        state,
        gates.State(),
        past,
        gates.ActionIndex.of([past]),
        gates.Reading(us, 97.0, 15.0),
        gates.Switch(False),
        gates.Lease('me', 1, us),
        state.silences[0],
        mine,
        mine.policies[0],
        mine.policies[0].match,
        mine.policies[0].ladder[0],
        mine.policies[0].verify,
        policy.Limits(per_hour=9),
        condition,
        policy.Strict(),
        policy.Policies(),
        *known,
        known[0].parameters,
        operations.Report(None, 'no answer', dict(output='x' * 2000)),
        operations.Context('web-1', clients=lambda: None),
        operators.ModeProposal('web-cpu', 'observe', 'approve', f'observe → approve: token={SECRET}'),
        notify.Message('k', 'web-1: down', f'password={SECRET}\n' * 50, True),
        notify.Notifier(done.ledger.engine, done.settings),
        told,
        backtest.backtest(policy.Policies(), []),
        drill.Drill('web-cpu', tuple((START, o) for o in outcomes), 2, 1, False, 'one step was not reached'),
        drill.Drill('web-cpu', (), 2, 0, False, ''),
        drill.Service(folder / 'drill', 'web-1'),
    ]


def of_engine(done, folder):
    "What a remediator and a backtest are made of."
    from smartcloudops.remediation import drill, practice_fleet, verifier, walk
    stages, policies = done.stages, done.policies
    fleet = practice_fleet.PracticeFleet(practice_fleet.fault_for(policies.policies[0]))
    past = incident('web-2', id=2, state='closed', closed=START + pd.Timedelta('5min'))
    walked = walk.build_walk(policies, [past], done.settings, pd.DataFrame({'load1{host="web-2"}': [1.]}, [START]))
    walk.run_walk(walked)
    known = walk.KnownSamples(pd.DataFrame({'load1{host="web-2"}': [1.]}, [START]))
    live = walk.OpenIncident(incident(title='<script>'), policies.policies[0], set())
    real = drill.RealDrill(drill.Service(folder/'drill', 'web-1'), None, None, None, done, done.ledger.engine, print)
    return [stages, *(getattr(stages, f) for f in stages.__dataclass_fields__), stages.runner.trust, done.clock_doubt,
            fleet, verifier.Judgement(None, pd.Series([1., 2.])), walked, walked.actions, walked.fleet, walked.queue,
            known, live, real]


def of_together(folder):
    from smartcloudops import explore, main, reporting
    from smartcloudops.core.database import open_state
    from smartcloudops.process import SealProcess
    from smartcloudops.reporting import child
    settings = Settings(
        data_dir=folder,
        source='synthetic',
        policy_file='config/policies.yaml',
        reports=dict(schedule={'daily': '15 6 * * *'}),
    )
    loop = main.Loop(settings)
    loop.close()
    run = reporting.Run(
        'daily',
        False,
        START.isoformat(),
        3.2,
        {},
        dict(rows='x' * 5000, host='<script>'),
        f'cell 3: password={SECRET}',
        'a.ipynb',
        'a.html',
        'a.json',
    )
    engine, job = open_state(folder / 'smartcloudops.db'), reporting.Job(
        'daily', '15 6 * * *', 'UTC', dict(host='x' * 50)
    )
    process = child.ReportProcess(settings, job, START, 1, None)
    process.stop()
    from smartcloudops.loop import catch_up, replay, runner
    of_loop = loop.parts.history, loop.parts.models, loop.parts.problems
    parts = [
        catch_up.CatchUp(*of_loop),
        catch_up.LearnPast(*of_loop, 60.0),
        replay.ReplayStages(settings),
        runner.Rhythm(60.0),
    ]
    scheduled = [reporting.ReportRuns(engine), process, reporting.RunningReport(process, job, START, 1, START)]
    return [
        *parts,
        *scheduled,
        loop,
        loop.parts.checkpoint,
        main.Tick(START, 1, samples=21, anomalies=[anomaly()] * 500),
        main.DataDirLock(folder),
        main.WebProcess(['/usr/bin/gunicorn', f'token={SECRET}']),
        SealProcess(folder / 'history.db'),
        *reporting.list_reports(),
        reporting.list_reports(),
        run,
        *reporting.jobs(settings),
        reporting.Schedule(settings, open_state(folder / 'smartcloudops.db')),
        explore.Incidents([incident(title=f'<script> {"long " * 40}')]),
        explore.Incidents(),
        explore.plot(
            pd.DataFrame({'load1': [1.0, 2.0, np.nan]}, pd.date_range('2026-01-05', periods=3, freq='1min', tz='UTC'))
        ),
    ]


def parts_of(objects: list) -> list:
    "Of each other class one object that those are made of, found where it stands: in attributes, lists and dicts."
    known, found, waiting, seen = {type(each) for each in objects}, [], list(objects), set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen: continue
        seen.add(id(each))
        ours = type(each).__module__.startswith('smartcloudops.')
        if ours and type(each) not in known:
            known.add(type(each))
            found.append(each)
        if ours: waiting += [getattr(each, n, None) for n in getattr(type(each), '__slots__', ())]
        if ours: waiting += getattr(each, '__dict__', {}).values()
        elif isinstance(each, dict): waiting += list(each.values())[:20]
        elif isinstance(each, (list, tuple)): waiting += list(each)[:20]
        if isinstance(each, (list, tuple)) and ours: waiting += list(each)[:20]
    public = public_classes()
    return [each for each in found if type(each) in public]


@pytest.fixture(scope='module')
def objects(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dict(
            AWS_ACCESS_KEY_ID='AKIA' + 'X' * 16,
            AWS_SECRET_ACCESS_KEY=SECRET,
            AWS_DEFAULT_REGION='eu-west-1',
            AWS_EC2_METADATA_DISABLED='true',
        ).items():
            patch.setenv(name, value)
        rooms = (of_core, of_ingestion, of_monitoring, of_detection, of_remediation, of_together)
        named = [each for room in rooms for each in room(tmp_path_factory.mktemp(room.__name__))]
        return [*named, *parts_of(named)]


def test_every_public_class_is_shown_here(objects):
    "A new class belongs into one of the lists above, so that its form is looked at."
    assert sorted(c.__qualname__ for c in public_classes() - {type(each) for each in objects}) == []


def test_each_tells_itself_in_a_line(objects):
    wrong = []
    for each in objects:
        text, name = repr(each), type(each).__name__
        if isinstance(each, list): assert SECRET not in text and len(text) < 5000; continue      # a table of text
        if len(text) > 300 or '\n' in text: wrong.append((name, f'{len(text)} characters', text[:200]))
        if re.search(r'object at 0x|<function|<bound|Timestamp\(', text):
            wrong.append((name, 'tells of Python, not of itself', text))
        if SECRET in text or SECRET in str(each): wrong.append((name, 'tells a secret', text))
        if name not in text and name != 'Series': wrong.append((name, 'does not say what it is', text))
    assert wrong == []


def test_where_a_table_says_more_there_is_one(objects):
    shown_as_table = [
        each for each in objects if getattr(type(each), '_repr_html_', repr).__module__.startswith('smartcloudops.')
    ]  # matplotlib's figures have one of their own
    assert {type(each).__name__ for each in shown_as_table} == TABLES
    for each in shown_as_table:
        shown = each._repr_html_()
        assert SECRET not in shown and '<script' not in shown and 'object at 0x' not in shown, type(each)
        assert re.search(r'<(table|p)\b', shown), type(each)


def test_a_chart_shows_itself(objects):
    assert next(each for each in objects if type(each).__name__ == 'Chart')._repr_png_()[:4] == b'\x89PNG'


def test_a_long_sentence_is_not_cut_in_a_table(objects):
    shown = next(each for each in objects if type(each).__name__ == 'Incidents' and each)._repr_html_()
    assert shown.count('long') == 40
