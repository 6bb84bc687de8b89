"""Pools the evidence of all series of a host (or of all hosts of a fleet) and judges it by the pool's own past."""
import math
from typing import NamedTuple

import numpy as np
from kernel import DAY, HOUR, WEEK, jit

class Pool(NamedTuple):
    "What was chosen for a pool: unit and meaning beside each."
    breadth: float = .5            # evidence that e times as many series are worth
    prior: float = 1.8             # level before anything is known
    own: float = 1.                # weight of the pool's own level in the end
    own_rows: float = 2000.        # rows after which it has half of that weight
    looks: float = .2              # independent looks in a row
    low_tail: float = .8
    high_tail: float = .98
    tail_gain: float = .004
    lead: float = 60.              # rows of silence at the start
    youth: float = 1.5              # dearer by so much for each decade that a pool is younger than a week
    price: float = .05             # alarms of late, squared, times this, are added to the level
    price_time: float = 5*DAY
    quiet: float = HOUR
    close: float = .3              # below its level by so much, the pool is as expected again


DEFAULT_POOL = Pool()
POOL_STATE = np.dtype(
    [
        ('n', 'f8'),
        ('born', 'f8'),
        ('last', 'f8'),
        ('dt', 'f8'),
        ('tail', 'f8', (2,)),
        ('price', 'f8'),
        ('since', 'f8'),
        ('abnormal', 'f8'),
        ('usual', 'f8'),
    ]
)


def new_pools(count: int) -> np.ndarray:
    state = np.zeros(count, POOL_STATE)
    state['tail'] = .7, 1.25
    state['since'] = 1e12
    return state


SCAN = (2, 3, 5, 8, 12)            # how many series may speak together
MOST = 12


@jit
def largest(evidence, first, end, best):
    "The largest of evidence[first:end], falling, into `best`; how many there are."
    count = 0
    best[:] = -1e300
    for j in range(first, end):
        x = evidence[j]
        if not math.isfinite(x): continue
        count += 1
        q = MOST - 1
        if x <= best[q]: continue
        while q > 0 and best[q - 1] < x:
            best[q] = best[q - 1]
            q -= 1
        best[q] = x
    return min(count, MOST)


@jit
def scan(best, count, breadth):
    """The most that the mean of the k largest, plus what breadth is worth, comes to (a scan statistic over k); NaN
    without any."""
    most, total, k = -1e300, 0., 0
    for q in range(count):
        total += best[q]
        k += 1
        if (k == 2 or k == 3 or k == 5 or k == 8 or k == 12) or (k == count and k < 2):
            most = max(most, total/k + breadth*math.log(k/5))
    return most if count else np.nan


@jit
def pool_level(p, dt, budget, P):
    slope = max(p.tail[1] - p.tail[0], .02)/math.log((1 - P.low_tail)/(1 - P.high_tail))
    own = p.tail[1] + slope*math.log(max((1 - P.high_tail)*P.looks*WEEK/budget/dt, 1.))
    known = P.own*p.n/(p.n + P.own_rows)
    return known*own + (1 - known)*P.prior


@jit
def pool_step(p, t, h, budget, P, out):
    "Judge the pooled evidence `h`: (evidence, usual, level, abnormal, new)."
    gap = max(t - p.last, 0.) if p.n > 0 else 0.
    if p.n > 0 and gap > 0: p.dt = gap if p.dt == 0 else p.dt + .05*(min(max(gap, p.dt/4), 4*p.dt) - p.dt)
    if p.n == 0: p.born = t
    p.last = t
    dt = p.dt if p.dt > 0 else 300.
    p.price *= math.exp(-gap/P.price_time)
    p.since += gap
    level = pool_level(p, dt, budget, P) + P.price*p.price + P.youth*max(math.log10(WEEK/max(t - p.born, dt)), 0.)
    abnormal = p.n >= P.lead and (h >= level or (p.abnormal > 0 and h >= level - P.close))
    new = abnormal and p.since > max(P.quiet, 4*dt)
    if new: p.price += 1
    if abnormal: p.since = 0.
    p.abnormal = 1. if abnormal else 0.
    if p.n >= P.lead:
        g = max((p.n + 1)**-.7, P.tail_gain)
        p.tail[0] += g*((1. if h > p.tail[0] else 0.) - (1 - P.low_tail))
        p.tail[1] += 2*g*((1. if h > p.tail[1] else 0.) - (1 - P.high_tail))
        p.tail[1] = max(p.tail[0], p.tail[1])
    p.usual += max(.002, 1/(p.n + 1))*(h - p.usual)
    p.n += 1
    out[0], out[1], out[2], out[3], out[4] = h, p.usual, level, 1. if abnormal else 0., 1. if new else 0.


@jit
def pool_walk(state, times, evidence, bounds, budget, P, out):
    "`evidence[T, S]`, series of host i in bounds[i]:bounds[i + 1]; into out[5, T, hosts]."
    best = np.empty(MOST)
    for i in range(len(state)):
        for r in range(len(times)):
            h = scan(best, largest(evidence[r], bounds[i], bounds[i + 1], best), P.breadth)
            if math.isfinite(h): pool_step(state[i], times[r], h, budget, P, out[:, r, i])


def pool(state, times, evidence, bounds, budget=1., P=DEFAULT_POOL):
    out = np.full((5, len(times), len(state)), np.nan)
    pool_walk(
        state,
        np.asarray(times, float),
        np.ascontiguousarray(evidence, float),
        np.asarray(bounds, np.int64),
        float(budget),
        P,
        out,
    )
    return out


def named(evidence, prior=1.6, top=5):
    "Series that carry the evidence of this row, the strongest first."
    e = np.nan_to_num(evidence, nan=-9)
    order = np.argsort(-e, kind='stable')
    return [int(j) for j in order if e[j] >= prior] or [int(j) for j in order[:top]]
