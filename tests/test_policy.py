"""The policy file: what is wrong is said with file, line, field and the nearest word; nothing in particular selects
nothing."""
import json

import pytest
from hypothesis import given, settings, strategies as st

from smartcloudops.core.errors import PolicyError
from smartcloudops.core.files import package_file
from smartcloudops.remediation.gates import matching
from smartcloudops.remediation.policy import (
    Match,
    Policies,
    Policy,
    explain_policy,
    load_policies,
    parse_yaml,
    policy_schema,
    read_policies,
    seconds,
)
from tests.remediation_fleet import anomaly, incident

pytestmark = pytest.mark.phase4

GOOD = '''policies:
  - name: web
    match: {metric: cpu_utilization_percent}
    ladder:
      - do: ec2_reboot
'''


@pytest.mark.parametrize('wrong, line, says', [
    (GOOD.replace('match:', 'mach:'), 3, "mach: unknown field; did you mean 'match'?"),
    (GOOD.replace('ec2_reboot', 'ec2_rebot'), 5, "unknown operation 'ec2_rebot'; did you mean 'ec2_reboot'?"),
    (GOOD + '    limits: {in_flight: 9, per_hour: 2}\n', 6, 'can never be reached'),
    (GOOD + '    limits: {cooldown: -5 min}\n', 6, "'-5 min' is not a duration"),
    (GOOD + '    limits: {cooldown: .inf}\n', 6, 'is not a duration'),
    (GOOD + '    limits:\n      share_of_fleet: 140 %\n', 7, 'more than the whole fleet'),
    (GOOD + '    mode: of\n', 6, "'of' is not allowed"),
    (GOOD + '    mode: autp\n', 6, "did you mean 'auto'?"),
    (GOOD.replace('{metric: cpu_utilization_percent}', '{}'), 3, 'empty selector'),
    (GOOD.replace('{metric: cpu_utilization_percent}', "{host: '*'}"), 3, 'empty selector'),
    (GOOD + '      - {do: webhook, with: {url: "http://x", urrl: y}}\n', 6, "urrl: unknown field; did you mean 'url'?"),
    (GOOD + '      - {do: webhook, with: {url: "http://x"}, then: ec2_reboot}\n', 2,
     "cyclic ladder: step 'webhook' leads back to 'ec2_reboot'"),
    (GOOD + '      - {do: command, with: {run: [rm]}}\n', 6, "'rm' is not a full path"),
    (GOOD + '    verify: {within: 1 min, back_for: 5 min}\n', 6, 'too short'),
    (GOOD + '    name: again\n', 6, "field 'name' stands there twice"),
    (GOOD + '    limits: {quiet_hours: evening}\n', 6, 'not a span of hours'),
    (GOOD + '    limits: {timezone: Mars/Base}\n', 6, 'is not a time zone'),
    ('policies: [\n', 2, 'not valid YAML'),
    ('- a\n', 1, 'expected fields such as policies:'),
    ('opt_in: [web-*]\n', 1, 'is not one host'),
    ('a: &x [1]\nb: [*x]\n', 1, 'anchors and aliases'),
])
def test_says_what_is_wrong_and_where(tmp_path, wrong, line, says):
    path = tmp_path/'policies.yaml'
    path.write_text(wrong)
    with pytest.raises(PolicyError) as e: load_policies(path)
    assert str(path) in str(e.value) and f'line {line}' in str(e.value) and says in str(e.value), str(e.value)


def test_yaml_bomb_and_depth_end_at_once():
    bomb = 'a0: &a0 [x,x,x]\n' + ''.join(f'a{i}: &a{i} [{",".join([f"*a{i-1}"] * 9)}]\n' for i in range(1, 30))
    with pytest.raises(PolicyError, match='anchors'): read_policies(bomb)
    with pytest.raises(PolicyError): read_policies('[' * 5000)
    with pytest.raises(PolicyError): read_policies('x: ' + '{a: ' * 200 + '1' + '}' * 200)
    with pytest.raises(PolicyError, match='over 1 MB'): read_policies('#' * 1_000_001)


@pytest.mark.parametrize('content', [b'\xff\xfe\x00', b'', b'policies:\n'])
def test_odd_files(tmp_path, content):
    path = tmp_path/'p.yaml'
    path.write_bytes(content)
    if content == b'': assert load_policies(path).policies == ()
    else:
        with pytest.raises(PolicyError): load_policies(path)
    with pytest.raises(PolicyError, match='no such policy file'): load_policies(tmp_path/'none.yaml')
    with pytest.raises(PolicyError, match='is a folder'): load_policies(tmp_path)


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_any_text_is_policies_or_a_policy_error(text):
    try: assert isinstance(read_policies(text), Policies)
    except PolicyError as e: assert str(e)


@given(st.lists(st.sampled_from(['', '*', '**', '?', ' *']), max_size=3),
       st.dictionaries(st.just('env'), st.sampled_from(['*', '?*'])))
def test_invariant_1_an_empty_selector_selects_nothing(hosts, labels):
    "By the file it is an error; a match that was built past the check still matches nothing."
    with pytest.raises(ValueError): Match(host=hosts, labels=labels)
    rogue = Match.model_construct(metric=(), labels=labels, host=tuple(hosts), kind=(), severity=(), score=0.,
                                  lasting=0.)
    policy = Policy.model_construct(name='x', match=rogue, mode='auto', ladder=())
    assert matching(incident(anomalies=(anomaly(),)), policy) == []


def test_shipped_policies_are_valid_and_observe():
    policies = load_policies(package_file('config/policies.yaml'))
    assert policies.policies and all(p.mode == 'observe' for p in policies.policies) and policies.opt_in == ()
    for p in policies.policies: assert explain_policy(p).startswith('When ')


def test_shipped_schema_is_the_models():
    assert json.loads(package_file('config/policies.schema.json').read_text()) == json.loads(
        json.dumps(policy_schema())
    )


@pytest.mark.parametrize('text, value', [('90 s', 90), ('1h30m', 5400), ('250ms', .25), ('1.5 min', 90), (7, 7),
                                         ('2 d', 172800)])
def test_durations(text, value): assert seconds(text) == value


def test_words_that_yaml_would_turn_into_something_else():
    data, _ = parse_yaml('a: off\nb: 22:00\nc: 2026-01-01\nd: no\ne: 012')
    assert data == {'a': 'off', 'b': '22:00', 'c': '2026-01-01', 'd': 'no', 'e': '012'}


def test_a_copy_that_lost_its_selector_matches_nothing():
    "Made past the check: whatever was known about the selector it was copied from does not carry over."
    good = read_policies(GOOD).policies[0]
    assert matching(incident(), good)
    rogue = good.model_copy(update={'match': good.match.model_copy(update={'metric': ()})})
    assert matching(incident(), rogue) == []
