"The counting: NAB's score from its definition, pages, average precision, folders of labelled CSVs."
import json

import numpy as np, pandas as pd, pytest
from sklearn.metrics import average_precision_score

from smartcloudops.core.runtime import DataError
from smartcloudops.detection.evaluate import Labelled, average_precision, count_events, evaluate_dir, join_points, nab_score, pages, read_labelled

pytestmark = pytest.mark.phase3


def series(windows, rows=1000, ignored=150):
    return Labelled('toy', 'toy', np.arange(rows)*300., np.zeros(rows), np.zeros(rows, bool), windows, ignored, 12, True)


def at(rows, *where):
    score = np.zeros(rows)
    score[list(where)] = 1
    return score


@pytest.mark.parametrize('profile', ['standard', 'low_fp', 'low_fn'])
def test_nab_anchors(profile):
    file = series([(400, 499), (700, 799)])
    assert nab_score([file], [at(1000, 400, 700)], profile, 1)[0] == pytest.approx(100)
    assert nab_score([file], [np.zeros(1000)], profile, 1)[0] == 0


def test_nab_by_hand():
    "The definition's own numbers: sigmoid(y) = 2/(1+e^5y) − 1; a miss −1, a false alarm .11 by its distance."
    file, curve = series([(400, 499), (700, 799)]), lambda y: 2/(1 + np.exp(5*y)) - 1
    late = curve(-.01)/curve(-1)                                         # last row of a window of 100
    assert nab_score([file], [at(1000, 499, 700)], 'standard', 1)[0] == pytest.approx(100*(late + 1 + 2)/4)
    before = 100*(1 + 1 - .11 + 2)/4                                     # nothing precedes it: the full price
    assert nab_score([file], [at(1000, 200, 400, 700)], 'standard', 1)[0] == pytest.approx(before)
    after = 100*(2 + .11*curve(10/99) + 2)/4                             # ten rows after the first window
    assert nab_score([file], [at(1000, 400, 509, 700)], 'standard', 1)[0] == pytest.approx(after)
    assert nab_score([file], [at(1000, 20, 400, 700)], 'standard', 1)[0] == pytest.approx(100)      # probation is free


def test_the_best_threshold_beats_every_other():
    rng, file = np.random.default_rng(0), series([(400, 499)])
    score = rng.random(1000)
    best, level = nab_score([file], [score])
    assert best >= max(nab_score([file], [score], threshold=t)[0] for t in np.quantile(score, np.linspace(.5, 1, 200))) - 1e-9
    assert nab_score([file], [score], threshold=level)[0] == pytest.approx(best)


def test_average_precision_is_scikit_learns():
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels, score = rng.random(300) < .1, rng.integers(0, 20, 300)/20
        assert average_precision(labels, score) == pytest.approx(average_precision_score(labels, score))


def test_pages_and_events():
    assert pages(at(100, 10, 12, 14, 30, 42), 12).tolist() == [10, 30]
    counted = count_events([series([(400, 420), (700, 720)])], [at(1000, 100, 405, 410, 600) > 0])
    assert (counted.right, counted.wrong, counted.found, counted.missed) == (1, 1, 1, 1) and counted.delays == (25.,)
    assert join_points(at(100, 20, 23, 40) > 0, 10) == [(19, 26), (39, 43)]


def test_ones_own_folder(tmp_path):
    rng = np.random.default_rng(2)
    for k in range(2):
        values = rng.normal(10, 1, 600)
        values[400:405] += 40
        pd.DataFrame({'timestamp': pd.date_range('2026', periods=600, freq='h'), 'value': values, 'label': (np.arange(600)//5 == 80).astype(int)}).to_csv(tmp_path/f'{k}.csv', index=False)
    table = evaluate_dir(tmp_path)
    assert table.recall.iloc[0] == 1 and table.ap.iloc[0] > .6


def test_nab_layout_and_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(DataError, match='no folder'): read_labelled(tmp_path/'none')
    with pytest.raises(DataError, match='no labelled CSV'): read_labelled(tmp_path)
    (tmp_path/'data').mkdir()
    times = pd.date_range('2026', periods=100, freq='5min')
    pd.DataFrame({'timestamp': times, 'value': 1.}).to_csv(tmp_path/'data'/'x.csv', index=False)
    (tmp_path/'labels.json').write_text(json.dumps({'x.csv': [[str(times[50]), str(times[59])]]}))
    assert read_labelled(tmp_path)[0].windows == [(50, 59)] and read_labelled(tmp_path)[0].ignored == 15
