"What one wants in JupyterLab: history into a frame, a frame into a picture, incidents into a table."
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from smartcloudops import explore
from smartcloudops.core.frames import empty_frame
from smartcloudops.core.runtime import DataError, SmartCloudOpsError
from smartcloudops.ingestion.sources import synthetic_frame

pytestmark = pytest.mark.phase7


def scores_for(frame, flags=()):
    "Scores in the contract's shape, with some rows abnormal."
    values = frame.to_numpy()
    anomaly = np.zeros(values.shape, bool)
    for row in flags: anomaly[row, 0] = True
    return SimpleNamespace(score=anomaly.astype(float), expected=values, lower=values - 1, upper=values + 1, anomaly=anomaly)


@pytest.fixture
def frame(): return synthetic_frame(hosts=1, hours=2, every=60)


def test_a_frame_becomes_one_panel_a_series_with_title_unit_and_legend(frame):
    figure = explore.plot(frame.iloc[:, :3], scores_for(frame.iloc[:, :3], [5, 6, 40]), title='Two hours')
    panels = [ax for ax in figure.axes if ax.get_title(loc='left')]
    assert [ax.get_title(loc='left') for ax in panels] == ['cpu   web-1', 'memory   web-1', 'disk /   web-1']
    assert figure.get_suptitle() == 'Two hours'
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {'expected', 'abnormal', 'measured'}
    figure.canvas.draw()
    assert all('%' in t.get_text() for t in panels[0].get_yticklabels())


def test_line_and_colours_are_those_of_the_dashboard(frame):
    figure = explore.plot(frame.iloc[:, :1], scores_for(frame.iloc[:, :1], [5]))
    line = figure.axes[0].lines[0]
    assert line.get_linewidth() == 1.25 and line.get_color() == explore.LINE


def test_missing_stays_a_gap(frame):
    one = frame.iloc[:, :1].copy()
    one.iloc[30:60] = np.nan
    line = explore.plot(one).axes[0].lines[0]
    assert np.isnan(np.asarray(line.get_ydata(), float)).sum() == 1 and len(line.get_ydata()) == 120 - 30 + 1


def test_many_series_show_the_most_abnormal_and_say_so():
    frame = synthetic_frame(hosts=5, hours=1, every=60)
    flagged = scores_for(frame)
    flagged.anomaly[10:20, 33], flagged.score[10:20, 33] = True, 1.
    figure = explore.plot(frame, flagged, most=4)
    titles = [ax.get_title(loc='left') for ax in figure.axes]
    assert any('web-5' in t for t in titles) and '4 of 35 series' in figure.get_suptitle()


@pytest.mark.parametrize('suffix', ['png', 'svg', 'pdf'])
def test_a_plot_is_saved_as_its_suffix_says(frame, tmp_path, suffix):
    explore.plot(frame.iloc[:, :1], path=tmp_path/'deep'/f'a.{suffix}')
    assert (tmp_path/'deep'/f'a.{suffix}').stat().st_size > 1000


def test_nothing_to_draw_and_nowhere_to_save_are_errors_that_say_so(frame, tmp_path):
    with pytest.raises(DataError, match='no samples'): explore.plot(empty_frame())
    with pytest.raises(DataError, match='a.unknown'): explore.plot(frame.iloc[:, :1], path=tmp_path/'a.unknown')


def test_one_sample_and_constant_and_infinite_band_can_be_drawn(frame, tmp_path):
    one = frame.iloc[:1, :1]
    wide = scores_for(one)
    wide.lower[:], wide.upper[:] = -np.inf, np.inf
    explore.plot(one, wide, path=tmp_path/'one.png')
    flat = frame.iloc[:, :1] * 0 + 50.
    explore.plot(flat, scores_for(flat), path=tmp_path/'flat.png')


def test_history_file_folder_and_source_load_alike(frame, tmp_path):
    from smartcloudops.monitoring.history import History
    frame.to_parquet(tmp_path/'a.parquet')
    with History(tmp_path/'data'/'history.db') as history: history.append(frame)
    from_file, from_history = explore.load_history(tmp_path/'a.parquet'), explore.load_history(tmp_path/'data')
    pd.testing.assert_frame_equal(from_history[frame.columns], frame, check_freq=False, check_names=False, check_index_type=False, check_column_type=False)
    pd.testing.assert_frame_equal(from_file[frame.columns], frame, check_freq=False, check_names=False, check_index_type=False, check_column_type=False)
    half = frame.index[60]
    for where in (tmp_path/'a.parquet', tmp_path/'data'):
        part = explore.load_history(where, metric='cpu_utilization_percent', start=half.isoformat())
        assert list(part.columns) == ['cpu_utilization_percent{host="web-1"}'] and part.index[0] == half and len(part) == 60
    assert len(explore.load_history('synthetic'))


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(SmartCloudOpsError): explore.load_history(tmp_path/'none.csv')
    with pytest.raises(SmartCloudOpsError): explore.load_history(tmp_path/'none.db')
    with pytest.raises(SmartCloudOpsError, match="synthetic"): explore.load_history('syntetic')
    with pytest.raises(SmartCloudOpsError): explore.incidents(tmp_path/'smartcloudops.db')


def test_incidents_escape_what_they_show():
    at = pd.Timestamp('2026-01-05', tz='UTC')
    told = SimpleNamespace(id='1', state='open', opened=at, closed=None, updated=at, severity='page', host='<script>', title='<b>x</b>', suspects=())
    shown = explore.Incidents([told])._repr_html_()
    assert '<script>' not in shown and '&lt;script&gt;' in shown
    assert 'No incident' in explore.Incidents()._repr_html_()
