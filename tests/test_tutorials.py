"Every tutorial runs from top to bottom, unattended, in a folder of its own."
import os, shutil, sys
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.phase7
ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = sorted((ROOT/'nbs'/'tutorials').glob('*.ipynb'))


def test_there_are_six_and_each_says_what_it_is_for():
    assert len(TUTORIALS) >= 6
    for path in TUTORIALS:
        cells = nbformat.read(path, 4).cells
        assert cells[0].source.startswith('# ') and '\n> ' in cells[0].source, path.name
        assert any('image/png' in o.get('data', {}) for c in cells if c.cell_type == 'code' for o in c.outputs), f'{path.name} shows no plot'


@pytest.mark.soak      # in place they run with the other notebooks (tests/notebooks.py); here, away from the checkout
@pytest.mark.parametrize('path', TUTORIALS, ids=lambda p: p.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    from nbclient import NotebookClient
    (tmp_path/'tutorials').mkdir()
    shutil.copytree(ROOT/'nbs'/'data', tmp_path/'data')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=200, kernel_name='python3', resources=dict(metadata=dict(path=str(tmp_path/'tutorials')))).execute()
    left = [p.name for p in (tmp_path/'tutorials').iterdir() if not p.name.startswith('.')]
    assert left == [], 'it leaves nothing behind'
