"Rules: the plain front door, thresholds that wait, trends, silence."
import json
import math

import boto3
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from moto import mock_aws

from smartcloudops.core.errors import AwsError, ConfigError, DataError
from smartcloudops.core.settings import DetectionSettings
from smartcloudops.detection import detect_anomaly, log_anomaly_to_s3
from smartcloudops.detection.anomalies import sentence
from smartcloudops.detection.rules import Rule, RuleEngine, parse_rules, rules_from_settings, trend

pytestmark = pytest.mark.phase3
CPU = 'cpu_utilization_percent{host="web-1"}'


def frame(values, every='5s', name=CPU, start='2026-01-01'):
    index = pd.date_range(start, periods=len(values), freq=every, tz='UTC', name='time')
    return pd.DataFrame({name: np.asarray(values, float)}, index=index)


def run(rule, data, now=None):
    return RuleEngine([rule]).update(data, now or data.index[-1])


@pytest.mark.parametrize('metrics,expected', [
    ({'cpu': 90, 'memory': 90}, False), ({'cpu': 90.0001, 'memory': 0}, True), ({'cpu': 0, 'memory': 91}, True),
    ({'cpu': np.float32(95), 'memory': np.int64(1)}, True), ({'cpu': 1, 'memory': 2, 'disk': 'whatever'}, False)])
def test_threshold_is_strict(metrics, expected): assert detect_anomaly(metrics) is expected


@pytest.mark.parametrize('bad', [None, True, np.True_, '97', float('nan'), float('inf'), [97], object(), 97j])
@pytest.mark.parametrize('key', ['cpu', 'memory'])
def test_a_reading_that_is_none_names_its_key(key, bad):
    with pytest.raises(DataError, match=key): detect_anomaly({'cpu': 99, 'memory': 99} | {key: bad})


def test_missing_key_and_no_mapping():
    with pytest.raises(DataError, match="'memory'"): detect_anomaly({'cpu': 99})
    with pytest.raises(DataError, match='mapping'): detect_anomaly([99, 99])


def test_thresholds_come_from_settings(monkeypatch):
    monkeypatch.setenv('SMARTCLOUDOPS_DETECTION__CPU_THRESHOLD', '50')
    assert detect_anomaly({'cpu': 60, 'memory': 0}) and not detect_anomaly({'cpu': 60, 'memory': 0}, cpu=70)


def test_anomaly_is_kept_in_s3(monkeypatch):
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'): monkeypatch.setenv(name, 'test')
    with mock_aws():
        s3 = boto3.client('s3', region_name='us-east-1')
        with pytest.raises(AwsError, match='nowhere'): log_anomaly_to_s3({'cpu': 1}, 'nowhere', s3)
        s3.create_bucket(Bucket='kept')
        keys = {log_anomaly_to_s3({'cpu': 97, 'wo': 'Köln', 'n': n}, 'kept', s3) for n in range(3)}
        assert len(keys) == 3 and all(k.startswith('anomalies/') and k.endswith('.json') for k in keys)
        assert json.loads(s3.get_object(Bucket='kept', Key=sorted(keys)[0])['Body'].read())['wo'] == 'Köln'


@pytest.mark.parametrize(
    'entry,message',
    [
        ({'name': 'a'}, 'exactly one'),
        ({'name': 'a', 'metric': 'm', 'above': 1, 'below': 2}, 'above and below'),
        ({'name': 'a', 'above': 1}, 'needs a metric'),
        ({'name': 'a', 'metric': 'm', 'above': 1, 'clear': 2}, 'clear'),
        ({'name': 'a', 'metric': 'm', 'below': 2, 'clear': 1}, 'clear'),
        ({'name': 'a', 'metric': 'm', 'above': 'x'}, 'above'),
        ({'name': 'a', 'metric': 'm', 'above': 1, 'for': -1}, 'for'),
        ({'name': 'a', 'metric': 'm', 'abov': 1}, 'abov'),
        ({'metric': 'm', 'above': 1}, 'name'),
        ('text', r'\[0\]'),
    ],
)
def test_wrong_rules_name_entry_and_field(entry, message):
    with pytest.raises(ConfigError, match=message): parse_rules([entry])


def test_own_rules_replace_and_disable_defaults():
    own = DetectionSettings(
        cpu_threshold=70,
        rules=[
            {'name': 'memory', 'metric': 'memory_used_percent', 'above': 50},
            {'name': 'silent', 'absent': 9, 'enabled': False},
        ],
    )
    rules = {r.name: r for r in rules_from_settings(type('S', (), {'detection': own}))}
    assert rules['cpu'].above == 70 and rules['memory'].above == 50 and 'silent' not in rules


def test_for_and_hysteresis():
    rule = Rule(name='cpu', metric='cpu_utilization_percent', above=90, clear=80, seconds=30)
    assert run(rule, frame([95] * 5)) == []                                   # 25 s
    [a] = run(rule, frame([95] * 6))
    assert a.ongoing and a.origin == 'rule:cpu' and a.host == 'web-1' and 'cpu' in a.reason
    [a] = run(rule, frame([95] * 6 + [85] * 9)); assert a.ongoing             # under the limit, not yet clear
    [a] = run(rule, frame([95] * 6 + [79])); assert not a.ongoing and a.rows == 6
    assert run(rule, frame([95, 95, 70] * 5)) == []
    [a] = run(Rule(name='low', metric='cpu_utilization_percent', below=5), frame([1]))
    assert a.lower == 5 and a.kind == 'threshold'


def test_one_average_over_five_minutes_covers_thirty_seconds():
    rule = Rule(name='cpu', metric='cpu_utilization_percent', above=90, seconds=30)
    assert len(run(rule, frame([20, 20, 97], '5min'))) == 1


def test_a_hole_starts_the_waiting_again():
    rule = Rule(name='cpu', metric='cpu_utilization_percent', above=90, seconds=30)
    data = pd.concat([frame([20, 20, 95]), frame([95], start='2026-01-01 06:00')])
    assert run(rule, data) == []


def test_labels_and_missing_samples():
    rule = Rule(name='disk', metric='disk_used_percent', labels={'mount': '/var'}, above=95)
    data = pd.concat(
        [
            frame([99, math.nan], name='disk_used_percent{host="a",mount="/"}'),
            frame([99, math.nan], name='disk_used_percent{host="a",mount="/var"}'),
        ],
        axis=1,
    )
    [a] = run(rule, data); assert a.series.endswith('mount="/var"}') and a.ongoing


def test_late_and_repeated_rows_change_nothing():
    engine = RuleEngine([Rule(name='cpu', metric='cpu_utilization_percent', above=90, seconds=30)])
    data = frame([95] * 6)
    first = engine.update(data, data.index[-1])
    assert repr(engine.update(data, data.index[-1])) == repr(first)


@settings(max_examples=40)
@given(st.lists(st.sampled_from([20., 84., 89., 91., 97., math.nan]), min_size=1, max_size=60), st.integers(0, 60))
def test_cut_anywhere_with_json_between_says_the_same(values, cut):
    rules = [
        Rule(name='cpu', metric='cpu_utilization_percent', above=90, clear=85, seconds=15),
        Rule(name='silent', absent=20),
    ]
    data = frame(values)
    now = data.index[-1]
    whole = RuleEngine(rules).update(data, now)
    first = RuleEngine(rules)
    early = [a for a in first.update(data[:cut], now) if not a.ongoing]
    rest = RuleEngine(rules, json.loads(json.dumps(first.state))).update(data[cut:], now)
    assert repr([a for a in early + rest if a.origin != 'absent']) == repr([a for a in whole if a.origin != 'absent'])


def test_rate_of_change_and_filling():
    t = np.arange(72)
    rising = frame(50 + .1 * t, '5min')                                        # 1.2 an hour
    assert len(run(Rule(name='r', metric='cpu_utilization_percent', rate_above=1, over=21600), rising)) == 1
    assert run(Rule(name='r', metric='cpu_utilization_percent', rate_above=2, over=21600), rising) == []
    assert (
        len(
            run(
                Rule(name='r', metric='cpu_utilization_percent', rate_below=-1, over=21600), frame(50 - 0.1 * t, '5min')
            )
        )
        == 1
    )
    [a] = run(Rule(name='f', metric='cpu_utilization_percent', full_in_hours=48, over=21600), rising)
    assert a.kind == 'filling' and 'full in about' in a.reason
    assert run(Rule(name='f', metric='cpu_utilization_percent', full_in_hours=10, over=21600), rising) == []


def test_a_trend_that_is_unknown_after_a_hole_is_said_no_more():
    "A host was off for half an hour, or eight: of the minutes that count nothing is known any more."
    rule, disk = Rule(name='f', metric='disk_used_percent', full_in_hours=24, over=1200), 'disk_used_percent{host="a"}'
    for back, ended in (('2026-01-01 00:50', 1), ('2026-01-01 08:00', 0)):
        engine, filling = RuleEngine([rule]), frame(np.linspace(50, 80, 240), '5s', disk)
        [going] = engine.update(filling, filling.index[-1]); assert going.ongoing
        said = engine.update(after := frame([80], name=disk, start=back), after.index[-1])
        assert [a.ongoing for a in said] == [False] * ended


def test_two_rules_of_one_name_are_refused():
    rule = dict(name='busy', metric='cpu_utilization_percent', above=80)
    with pytest.raises(
        ConfigError, match=r"detection.rules\[2\] \('busy'\): name: detection.rules\[0\] has it already"
    ):
        parse_rules([rule, rule | dict(name='other'), rule | dict(above=90)])


def test_what_was_wrong_days_ago_is_not_wrong_since_then():
    "A host was taken down while it was busy; when it is back, only what it does now counts."
    engine, busy = RuleEngine(
        [Rule(name='cpu', metric='cpu_utilization_percent', above=90, clear=85, seconds=30)]
    ), frame([97] * 20)
    assert len(engine.update(busy, busy.index[-1])) == 1
    back = frame([87] * 20, start='2026-01-05')
    assert engine.update(back, back.index[-1]) == []
    worse = frame([95] * 20, start='2026-01-05 01:00')
    [a] = engine.update(worse, worse.index[-1]); assert a.start == worse.index[0]


@pytest.mark.parametrize(
    'before, after',
    [
        (dict(above=40), dict(absent=60)),
        (dict(above=40), dict(full_in_hours=40)),
        (dict(absent=60), dict(above=90)),
        (dict(absent=60, metric='*'), dict(absent=60)),
        (dict(above=40), dict(above=40, labels={'mount': '/'})),
    ],
)
def test_a_rule_that_was_changed_begins_anew(before, after):
    "Its records are kept by name: those of another condition or of other series say nothing to it."
    rule = lambda how: Rule(**dict(name='mine', metric='cpu_utilization_percent') | how)
    old, data = RuleEngine([rule(before)]), frame(np.linspace(50, 60, 72))
    old.update(data, data.index[-1])
    changed, new, rest = (
        RuleEngine([rule(after)], json.loads(json.dumps(old.state))),
        RuleEngine([rule(after)]),
        frame(np.linspace(60, 70, 720), start='2026-01-01 00:06'),
    )
    nothing = data[:0]
    assert changed.update(nothing, data.index[-1]) == new.update(nothing, data.index[-1]) == []
    assert [a.origin for a in changed.update(rest, rest.index[-1])] == [
        a.origin for a in new.update(rest, rest.index[-1])
    ]


def test_a_rule_that_looks_back_further_than_before_sees_a_trend_again():
    rule = lambda over: Rule(name='mine', metric='cpu_utilization_percent', rate_above=1, over=over)
    old, data = RuleEngine([rule(600)]), frame(np.full(240, 10.))
    assert old.update(data, data.index[-1]) == []
    changed, rest = RuleEngine([rule(6000)], old.state), frame(np.linspace(10, 90, 1200), start='2026-01-01 00:20')
    [a] = changed.update(rest, rest.index[-1]); assert a.kind == 'rate'


def test_the_sentence_that_is_sent_says_what_the_rule_saw():
    """A trend is told as a trend, and neither 84 % nor 180 % is said to lie outside what it lies within, or within what
    it lies outside."""
    told = lambda rule, data: sentence(run(rule, data)[0], data.index[-1]).replace('\u202f', ' ')
    cpu = dict(name='r', metric='cpu_utilization_percent')
    assert told(Rule(full_in_hours=48, over=21600, **cpu), frame(50 + 0.1 * np.arange(72), '5min')).startswith(
        'web-1: cpu 57 %, full in about 1 d 11 h ('
    )
    assert (
        told(Rule(above=90, clear=80, **cpu), frame([50, 96, 95, 84], '1min'))
        == 'web-1: cpu 84 %, was above 90 % and is not clear of it, for 2 min'
    )
    assert (
        told(Rule(above=150, **cpu), frame([50, 180, 180], '1min'))
        == 'web-1: cpu 180 %, expected up to 150 %, for 1 min'
    )


def test_the_sentence_tells_the_worst_and_what_keeps_it_open():
    "Hysteresis holds a stretch open at 84 %, and neither is 84 % above 90 % nor the worst that was seen."
    rule = Rule(name='r', metric='cpu_utilization_percent', above=90, clear=80)
    [going] = run(rule, frame([50, 96, 95, 84], '1min'))
    assert going.reason.replace('\u202f', ' ') == 'cpu 84 %, was above 90 % and is not clear of it, for 2 min'
    [over] = [a for a in run(rule, frame([50, 96, 95, 84, 60], '1min')) if not a.ongoing]
    assert over.reason.replace('\u202f', ' ') == 'cpu 96 %, above 90 % for 3 min' and over.worst == 96


def test_noise_rarely_has_a_trend():
    rng = np.random.default_rng(0)
    hours = np.arange(72) / 12
    spoke = sum((lambda t: t[1] > 0 or t[2] < 0)(trend(hours, rng.normal(0, 1, 72))) for _ in range(200))
    assert spoke <= 12                                                         # 2 % are expected


def test_silence_returns_forgets_and_knows_late_sources():
    engine = RuleEngine([Rule(name='silent', absent=120)])
    data, at = frame([10] * 10), lambda s: pd.Timestamp('2026-01-01', tz='UTC') + pd.Timedelta(seconds=s)
    for n in range(10): engine.update(data[n:n + 1], data.index[n])
    none = data[:0]
    assert engine.update(none, at(100)) == []
    [a] = engine.update(none, at(200)); assert a.origin == 'absent' and a.host == 'web-1' and a.start == data.index[-1]
    assert engine.update(frame([10], start='2026-01-01 00:04'), at(240)) == []
    assert len(engine.update(none, at(600))) == 1
    assert engine.update(none, at(2 * 86400)) == []                            # gone for good
    late = RuleEngine([Rule(name='silent', absent=120)])
    for n in range(10): late.update(data[n:n + 1], data.index[n] + pd.Timedelta('5min'))
    assert late.update(none, data.index[-1] + pd.Timedelta('6min')) == []


@pytest.mark.parametrize('every, lag', [(300, 300), (300, 540), (60, 150), (15, 0)])
def test_a_source_with_its_own_rhythm_and_lag_is_silent_by_these_alone(every, lag):
    """CloudWatch's five minutes, handed on five to nine later, from the very first value on; looked at each quarter of
    a minute."""
    engine, zero = RuleEngine([Rule(name='silent', absent=120)]), pd.Timestamp('2026-01-01', tz='UTC')
    data, told = frame([10] * 12, every=f'{every}s'), []
    last = 11 * every
    for second in range(lag, last + lag + 3600, 15):
        new = data[
            (data.index > zero + pd.Timedelta(seconds=second - lag - 15))
            & (data.index <= zero + pd.Timedelta(seconds=second - lag))
        ]
        told += [second] * len(engine.update(new, zero + pd.Timedelta(seconds=second)))
    assert told and last + lag + max(120, 3 * every) - 15 <= told[0] <= last + lag + max(120, 3 * every) + 15
