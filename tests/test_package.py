"The wheel: built, installed alone into an empty environment, and used there."
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import soak

pytestmark = [pytest.mark.phase7, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parent.parent
FULL = soak(0, 1)      # the real installation takes a minute


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp('dist')
    built = subprocess.run(
        [sys.executable, '-m', 'build', '--wheel', '--outdir', out, ROOT], capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return next(out.glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    """`make soak`: an empty environment with nothing but the wheel and its extra `reports`. Else the wheel alone, over
    the packages that are here already."""
    place = tmp_path_factory.mktemp('empty')
    subprocess.run([sys.executable, '-m', 'venv', place/'env'], check=True)
    what = [f'{wheel}[reports]'] if FULL else ['--no-deps', wheel]
    done = subprocess.run(
        [place / 'env' / 'bin' / 'pip', 'install', '--quiet', '--disable-pip-version-check', *what],
        capture_output=True,
        text=True,
        timeout=500,
    )
    if not FULL:
        next((place / 'env' / 'lib').glob('python*/site-packages')).joinpath('borrowed.pth').write_text(
            '\n'.join(p for p in sys.path if p.endswith('site-packages'))
        )
    assert done.returncode == 0, done.stderr
    return place


def used(installed, *arguments, **more):
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(('SMARTCLOUDOPS_', 'AWS_', 'PYTHON', 'VIRTUAL_ENV', 'JUPYTER'))
    }
    if not FULL: env['JUPYTER_PATH'] = f'{sys.prefix}/share/jupyter'
    return subprocess.run(
        [installed / 'env' / 'bin' / 'smartcloudops', *arguments],
        cwd=installed,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        **more,
    )


def test_the_wheel_brings_reports_templates_and_configuration_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert (
        'smartcloudops/_shipped/reports/e2e_local.ipynb' in names
        and 'smartcloudops/_shipped/reports/daily.ipynb' in names
    )
    assert (
        any(n.startswith('smartcloudops/_shipped/config/') for n in names)
        and any('/templates/' in n for n in names)
        and any('/static/' in n for n in names)
    )
    assert all(n.startswith(('smartcloudops/', 'smartcloudops-')) for n in names)
    assert not any(n.endswith('.ipynb') and '/reports/' not in n or '__pycache__' in n for n in names)


def test_it_runs_and_reports_where_nothing_else_is_installed(installed):
    listed = subprocess.run(
        [
            installed / 'env' / 'bin' / 'python',
            '-c',
            (
                'import smartcloudops, importlib.util as u; print(smartcloudops.__file__, u.find_spec("nbdev"),'
                ' u.find_spec("fastcore"))'
            ),
        ],
        cwd=installed,
        capture_output=True,
        text=True,
    )
    assert str(installed) in listed.stdout and (listed.stdout.count('None') == 2 or not FULL)
    once = used(installed, 'run', '--once', '--source', 'synthetic', '--json')
    assert once.returncode == 0, once.stderr
    assert json.loads(once.stdout)['series'] == 21
    report = used(installed, 'report', 'e2e_local', '-p', 'hours', '6', '-p', 'fault', 'none')
    assert report.returncode == 0, report.stderr
    assert {f.suffix for f in (installed/'reports').iterdir()} == {'.ipynb', '.html', '.json'}


@pytest.mark.soak
def test_without_the_extra_the_error_names_it(installed):
    missing = subprocess.run(
        [installed / 'env' / 'bin' / 'python', '-c', 'from smartcloudops.core.aws import aws_clients; aws_clients()'],
        cwd=installed,
        capture_output=True,
        text=True,
    )
    assert 'smartcloudops[aws]' in missing.stderr
