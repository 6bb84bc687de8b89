"""The counting: NAB's score from its definition and against its published results, pages, average precision, folders of
labelled CSVs."""
import json
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from smartcloudops.core.errors import DataError
from smartcloudops.detection.evaluate import (
    PROFILES,
    Labelled,
    average_precision,
    count_events,
    evaluate_dir,
    join_points,
    nab_score,
    pages,
    read_labelled,
)

pytestmark = pytest.mark.phase3


def series(windows, rows=1000, ignored=150):
    return Labelled(
        'toy', 'toy', np.arange(rows) * 300.0, np.zeros(rows), np.zeros(rows, bool), windows, ignored, 12, True
    )


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


def raw(files, scores, profile='standard', threshold=1.):
    "The sum before it is scaled to 0 … 100, as NAB's tables of single files give it."
    (_, miss), count = PROFILES[profile], sum(len(f.windows) for f in files)
    return nab_score(files, scores, profile, threshold)[0]/100*count*(1 + miss) - count*miss


@pytest.mark.parametrize(
    'rows,windows,alerts,expected,digits',
    [  # the numbers that NAB's own tests expect (tests/integration/*_test.py there), all weights 1
        (100, [(30, 34), (65, 69)], [30, 31, 37], -0.9540, 4),  # found, found again, one false, one missed
        (10, [(4, 5)], [4], 1, 12),
        (10, [(4, 6)], [4], 1, 12),
        (10, [(4, 5)], [4, 5], 1, 12),  # the first row of a window is worth 1, whatever the width and whatever follows
        (1000, [(495, 504)], [], -1, 12),
        (2000, [(392, 401), (794, 803), (1196, 1205), (1598, 1607)], [], -4, 12),
        (1000, [(495, 504)], [0], -2, 12),
    ],
)  # a false alarm before any window costs its full weight
def test_nabs_own_cases(monkeypatch, rows, windows, alerts, expected, digits):
    monkeypatch.setitem(PROFILES, 'ones', (1., 1.))
    assert raw([series(windows, rows, 0)], [at(rows, *alerts)], 'ones') == pytest.approx(expected, abs=10.**-digits)


def test_the_end_of_a_window_is_worth_nothing(monkeypatch):
    "NAB's own case: the last row inside and the first row outside add up to nothing; earlier is better on both sides."
    monkeypatch.setitem(PROFILES, 'ones', (1., 1.))
    file = series([(450, 549)], 1000, 0)
    worth = {row: raw([file], [at(1000, row)], 'ones') for row in (500, 549, 550, 551)}
    assert worth[549] + worth[550] + 1 == pytest.approx(0, abs=1e-3)
    assert worth[500] > worth[549] > worth[550] > worth[551]


@pytest.mark.parametrize(
    'profile,sums,published',
    [  # config/thresholds.json and results/final_results.json of NAB: numenta, contextOSE, ARTime, null; 116 windows
        (
            'standard',
            (46.634450197137596, 46.167000006791156, 57.66075157860638, -116),
            (70.10105611943965, 69.89956896844828, 74.85377223215792, 0),
        ),
        (
            'low_fp',
            (30.431072517124093, 39.38696292192149, 35.1572804170157, -116),
            (63.11684160219828, 66.97713919047413, 65.15400017974811, 0),
        ),
        (
            'low_fn',
            (26.634450197137568, 22.67222031445549, 47.66075157860638, -232),
            (74.3202443095115, 73.18167250416667, 80.36228493638114, 0),
        ),
    ],
)
def test_the_scale_is_the_scoreboards(profile, sums, published):
    """0 for silence and 100 for perfection, with each profile's price of a miss: the sums of published detectors become
    their published scores."""
    miss = PROFILES[profile][1]
    assert [100*(s + 116*miss)/(116*(1 + miss)) for s in sums] == pytest.approx(published, abs=1e-6)
    file = series([(20 + 8*k, 22 + 8*k) for k in range(116)], 1000, 0)
    assert raw([file], [at(1000)], profile) == pytest.approx(-116*miss)


def windowed_gaussian(values):
    """NAB's detector of that name by its definition: tail of a normal distribution over 6,400 rows, moved on by 100;
    kept to 12 digits as its result files are."""
    score, window, fresh, mean, deviation = np.zeros(len(values)), [], [], 0., 1.
    for n, value in enumerate(values):
        if window: score[n] = 1 - .5*math.erfc(abs(value - mean)/deviation/math.sqrt(2))
        (window if len(window) < 6400 and not fresh else fresh).append(value)
        if len(fresh) == 100: window, fresh = window[100:] + fresh, []
        if not fresh: mean, deviation = np.mean(window), np.std(window) or 1e-6
    return np.round(score, 12)


def test_a_published_detector_gets_its_published_score():
    """The files of nbs/detection/data; with NAB=FOLDER (data/ and labels.json in it) all files there whose results are
    kept here."""
    published = pd.read_csv(Path(__file__).parent/'vendor/nab/windowed_gaussian.csv', comment='#', index_col='file')
    files = [
        f
        for f in read_labelled(os.environ.get('NAB') or Path(__file__).parent.parent / 'nbs/detection/data')
        if f.name in published.index
    ]
    assert len(files) >= 4
    for file in files:
        score, told = windowed_gaussian(file.values), published.loc[file.name]
        alarm, inside = (score >= 1) & (np.arange(len(score)) >= file.ignored), np.zeros(len(score), bool)
        for a, b in file.windows: inside[a:b + 1] = True
        assert ((alarm & inside).sum(), (alarm & ~inside).sum()) == (told.right, told.false), file.name
        if file.windows: assert raw([file], [score]) == pytest.approx(told.score, abs=1e-9), file.name


def test_a_given_threshold_can_be_worse_than_silence():
    file, false = series([(700, 799)]), at(1000, 200, 300)
    assert (
        nab_score([file], [false], threshold=1)[0] == pytest.approx(-11) and nab_score([file], [false])[0] == 0
    )  # a free choice stays silent


def test_the_best_threshold_beats_every_other():
    rng, file = np.random.default_rng(0), series([(400, 499)])
    score = rng.random(1000)
    best, level = nab_score([file], [score])
    assert (
        best >= max(
            nab_score([file], [score], threshold=t)[0] for t in np.quantile(score, np.linspace(0.5, 1, 200))
        ) - 1e-9
    )
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
        pd.DataFrame(
            {
                'timestamp': pd.date_range('2026', periods=600, freq='h'),
                'value': values,
                'label': (np.arange(600) // 5 == 80).astype(int),
            }
        ).to_csv(tmp_path / f'{k}.csv', index=False)
    table = evaluate_dir(tmp_path)
    assert table.recall.iloc[0] == 1 and table.ap.iloc[0] > .6


@pytest.mark.parametrize('times,separator', [('s', ','), ('ms', ';'), ('text', ';')])
def test_times_and_separators_are_read_as_elsewhere(tmp_path, times, separator):
    at = pd.date_range('2026', periods=100, freq='h')
    table = pd.DataFrame(
        {
            'timestamp': at if times == 'text' else at.as_unit(times).asi8,
            'value': 1.5,
            'label': (np.arange(100) == 50).astype(int),
        }
    )
    table.to_csv(tmp_path/'a.csv', index=False, sep=separator)
    file, = read_labelled(tmp_path)
    assert (
        file.times[0] == at[0].timestamp()
        and np.all(np.diff(file.times) == 3600)
        and file.labels.sum() == 1
        and np.all(file.values == 1.5)
    )


@pytest.mark.parametrize(
    'row,said',
    [
        ('2026-01-01,1,yes', "'yes' in column 'label'"),
        ('2026-01-01,"1,5",0', "'1,5' in column 'value'"),
        (',1,0', "column 'timestamp'"),
    ],
)
def test_what_cannot_be_counted_is_named(tmp_path, row, said):
    (tmp_path/'a.csv').write_text(f'timestamp,value,label\n2025-12-31,1,0\n{row}\n')
    with pytest.raises(DataError, match=said): read_labelled(tmp_path)


def test_broken_labels_are_named(tmp_path):
    (tmp_path/'data').mkdir()
    (tmp_path/'data/a.csv').write_text('timestamp,value\n2026-01-01 00:00:00,1\n2026-01-01 00:05:00,2\n')
    for labels in ('{"a.csv": [', '["a.csv"]', '{"a.csv": ["today"]}', '{"a.csv": 7}'):
        (tmp_path/'labels.json').write_text(labels)
        with pytest.raises(DataError, match='labels.json'): read_labelled(tmp_path)


def test_nab_layout_and_what_is_wrong_with_a_folder(tmp_path):
    with pytest.raises(DataError, match='no folder'): read_labelled(tmp_path/'none')
    with pytest.raises(DataError, match='no labelled CSV'): read_labelled(tmp_path)
    (tmp_path/'data').mkdir()
    times = pd.date_range('2026', periods=100, freq='5min')
    pd.DataFrame({'timestamp': times, 'value': 1.}).to_csv(tmp_path/'data'/'x.csv', index=False)
    (tmp_path/'labels.json').write_text(json.dumps({'x.csv': [[str(times[50]), str(times[59])]]}))
    assert read_labelled(tmp_path)[0].windows == [(50, 59)] and read_labelled(tmp_path)[0].ignored == 15
