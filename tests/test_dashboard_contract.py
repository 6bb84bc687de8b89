"""The JSON of every GET address, key by key, as programs outside this repository read it.

Recorded in dashboard_keys.json from a made-up night; a key may come, none may go or change its place.
Record it anew after a deliberate change: python -m tests.test_dashboard_contract
"""

import json
import tempfile
from pathlib import Path

import pandas as pd
import pytest

from smartcloudops.core.clock import FakeClock, use_clock
from smartcloudops.core.settings import Settings
from smartcloudops.dashboard import create_app
from tests.fleet import build

pytestmark = pytest.mark.phase5
RECORDED = Path(__file__).with_name('dashboard_keys.json')
AT = pd.Timestamp('2026-03-01 02:12:40', tz='UTC')
CPU = 'cpu_utilization_percent{host="web-7"}'
FILLED = {'id': '6', 'name': 'web-7', 'kind': 'alertmanager'}
NOT_JSON = {'static', 'icon', 'metrics', 'events', 'login', 'report', 'api.csv'}
QUERY = {'api.points': {'series': CPU, 'hours': 6}}


def keys(value: object, at: str = '') -> set[str]:
    "Every path of keys in a JSON value; the items of a list share one path."
    if isinstance(value, dict):
        return set().union({at or '{}'}, *(keys(v, f'{at}.{k}' if at else k) for k, v in value.items()))
    if isinstance(value, list):
        return set().union({f'{at}[]'}, *(keys(v, f'{at}[]') for v in value))
    return {at}


def answers(folder: Path) -> dict[str, list[str]]:
    "The keys that each GET address answers, over a made-up night in `folder`."
    build(folder, AT)
    (folder / 'targets.json').write_text('{"app": ["127.0.0.1:9"], "node_exporter": []}')
    (folder / 'reports').mkdir()
    (folder / 'reports' / 'week.html').write_text('<h1>Week</h1>')
    settings = Settings(
        data_dir=folder,
        policy_file=folder / 'policies.yaml',
        targets_file=folder / 'targets.json',
        reports_dir=folder / 'reports',
    )
    with use_clock(FakeClock(AT)):
        app = create_app(folder, settings)
        client, found = app.test_client(), {}
        client.get('/')
        token = {'Accept': 'application/json'}
        for rule in app.url_map.iter_rules():
            if 'GET' not in rule.methods or rule.endpoint in NOT_JSON:
                continue
            path = rule.rule
            for name, text in FILLED.items():
                path = path.replace(f'<{name}>', text).replace(f'<path:{name}>', text)
            if rule.endpoint == 'series':
                path = f'/series/{CPU}'
            answer = client.get(path, query_string=QUERY.get(rule.endpoint), headers=token)
            found[rule.rule] = [str(answer.status_code), *sorted(keys(answer.get_json(force=True)))]
        found['an error'] = sorted(keys(client.get('/api/v1/hosts/nobody').get_json()))
    return dict(sorted(found.items()))


def test_no_key_of_the_json_is_gone(tmp_path):
    told, recorded = answers(tmp_path), json.loads(RECORDED.read_text())
    assert told.keys() >= recorded.keys()
    for path, known in recorded.items():
        assert set(known) - set(told[path]) == set(), path


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as place:
        RECORDED.write_text(json.dumps(answers(Path(place)), indent=1, ensure_ascii=False) + '\n')
