"A day of a host on which nothing is wrong: at most one incident, daily tasks and all."
import pandas as pd
import pytest

from tests.conftest import soak
from tests.idle_host import RECORDING, bootstrapped, made_up
from tests.test_incidents_stream import watch

pytestmark = pytest.mark.phase3


@pytest.mark.parametrize('seed', range(soak(1, 5)))
def test_a_day_of_an_idle_host_is_at_most_one_incident(tmp_path, seed):
    "Every five seconds, from an empty state; three hours (one backup) in each run, the whole day at full count."
    told = watch(made_up(soak(3, 24), seed), tmp_path)
    assert len(told) <= 1, [i.title for i in told]


@pytest.mark.skipif(
    not RECORDING.exists(),
    reason='no recording of an idle machine here: python -m tests.idle_host 30, while it is left alone',
)
@pytest.mark.parametrize('seed', range(soak(1, 5)))
def test_a_day_of_this_host_replayed_is_at_most_one_incident(tmp_path, seed):
    "Blocks of a recording of the real source, five minutes each."
    told = watch(
        bootstrapped(pd.read_csv(RECORDING, index_col=0, parse_dates=True).astype(float), soak(3, 24), seed), tmp_path
    )
    assert len(told) <= 1, [i.title for i in told]
