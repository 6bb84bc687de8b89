"""Scores one sample of every series at every tick, from that series' own past only.

A sample is held against seven simple models. How far it is from a model, over how far that model usually is off, is a
*ratio*; the log of the ratio is that model's *surprise*. Four fast surprises make the evidence, three slow ones may
stand in for it; an alarm is raised where evidence and record exceed what the series' own tail exceeds once in the
budgeted time.
"""
import math
from typing import NamedTuple

import numba
import numpy as np

HOUR, DAY, WEEK = 3600., 86400., 604800.
DAY_SLOTS, WEEK_SLOTS, MONTH_SLOTS, LAGS = 48, 56, 31, 6
LEVEL, SEASON, TREND, SHAPE, SLOW_LEVEL, SLOW_CHANGE, SLOW_SEASON = range(7)
MODELS = 7
DOUBT = .5          # visits after which half of what was seen at this time is believed


class Constants(NamedTuple):
    "What was chosen: unit and meaning beside each."
    memory: float = 3*DAY          # s, memory of the level and of each model's usual distance
    memory_rows: float = 250.      # rows that this memory spans at least
    now_gain: float = .33          # per row, of the level and the residual of this moment
    profile_gain: float = .08      # per visit, of the profile of the day and of the week
    trend_level: float = .3        # per row, Holt's level
    trend_slope: float = .05       # per row, Holt's slope
    slow_gain: float = .08         # per row, of the slow mean; a quarter of it, of the slower one
    slow_weight: float = .95       # of the slow surprises beside the fast ones
    absent_weight: float = .9       # of the season's surprise alone where what usually comes does not
    absent_size: float = 8.        # usual distances by which a half hour must usually leave the long mean
    absent_visits: float = 14.    # visits from which a half hour is well known
    floor: float = .002            # of the range: a distance below it is nothing
    winsor: float = 10.            # a usual distance learns at most so many times itself
    record_unit: float = .05       # of the range: the excess beyond all seen that adds log 2
    low_tail: float = .8           # the two quantiles through which the tail is drawn
    high_tail: float = .98
    tail_gain: float = .004        # per row, of these quantiles
    looks: float = (
        0.8  # looks in a row: five rows are one (alarms come in clusters), and a budget four times smaller is aimed at
    )
    prior: float = 1.5             # level before anything is known
    own: float = .7                # weight of the series' own level in the end
    own_rows: float = 2000.        # rows after which it has half of that weight
    youth: float = .6              # dearer by so much for each decade that a series is younger than both of:
    youth_rows: float = 750.       # rows
    youth_time: float = WEEK       # s
    lead: float = 30.              # rows of silence at the start
    clock: float = .3              # margin over what this time of the day, week and month usually brings at most
    price: float = .05             # alarms of late, squared, times this, are added to the level
    price_time: float = 5*DAY      # s, after which an alarm is forgotten
    quiet: float = HOUR            # s without an abnormal sample after which the next one is a new alarm
    shift_memory: float = 6*HOUR   # s, over which readings of the profile an hour earlier and later are compared
    settled: float = 600.          # s that the first move ever must last


DEFAULT = Constants()

_FIELDS = {  # name: (type, unit, meaning); units of `value` are the series' own over `scale`
    'scale': ('f8', 'own unit', 'size of the first sample that is not 0'),
    'born': ('f8', 's', 'time of the first sample'),
    'last': ('f8', 's', 'time of the latest sample'),
    'dt': ('f8', 's', 'usual time between samples'),
    'n': ('f8', 'rows', 'samples seen'),
    'low': ('f8', 'value', 'least ever seen'),
    'high': ('f8', 'value', 'most ever seen'),
    'mu': ('f8', 'value', 'long mean'),
    'dev': ('f8', 'value', 'long mean of |x - mu|'),
    'fast': ('f8', 'value', 'level of this moment'),
    'slow': ('f8', 'value', 'slow mean'),
    'slower': ('f8', 'value', 'slower mean'),
    'residual': ('f8', 'value', 'x - expected, of this moment'),
    'slow_residual': ('f8', 'value', 'the same, slow'),
    'previous': ('f8', 'value', 'sample before'),
    'previous_residual': ('f8', 'value', 'residual before'),
    'trend': ('f8', 'value', 'Holt: level and slope of x, then of the residual', 4),
    'differences': ('f4', 'value', 'last two differences of x, then of the residual', 4),
    'bursts': ('f4', 'value', 'last six smoothed differences of x', LAGS),
    'residual_bursts': ('f4', 'value', 'the same of the residual', LAGS),
    'usual': ('f8', 'value', 'usual distance from each model', MODELS),
    'tail': ('f8', 'log ratio', 'two quantiles of the evidence', 2),
    'rank': ('f8', 'log ratio', 'evidence and record, smoothed'),
    'price': ('f8', 'alarms', 'alarms of late'),
    'since': ('f8', 's', 'since the latest abnormal sample'),
    'away': ('f8', 's', 'how long a series that never moved has been away'),
    'moves': ('f8', 'rows', 'samples unlike the one before'),
    'abnormal': ('f8', '', 'whether the latest sample was'),
    'profile': ('f8', 'value', 'usual value of each half hour of the day', DAY_SLOTS),
    'seen': ('f4', 'visits', 'of each half hour', DAY_SLOTS),
    'shift': ('f8', 'half hours', 'by which the profile is read later (clock changes)'),
    'shift_error': ('f8', 'value', 'error of late of the profile an hour earlier, as is, an hour later', 3),
    'week': ('f4', 'value', 'what three hours of the week add', WEEK_SLOTS),
    'week_error': ('f8', 'value', 'error of late without and with the week', 2),
    'slot_usual': ('f4', 'value', 'usual distance from the profile in each half hour', DAY_SLOTS),
    'ceiling': (
        'u2',
        '1/4000 log ratio',
        'most evidence that each half hour of the day, three hours of the week, day of the month brings',
        135,
    ),
    'visits': ('u1', 'visits', 'of each of these', 135),
    'slot': ('f8', '', 'number of the present half hour, three hours, day', 3),
    'slot_most': ('f4', 'log ratio', 'most in it so far', 3),
}
STATE = np.dtype([(name, f[0], (f[3],)) if len(f) > 3 else (name, f[0]) for name, f in _FIELDS.items()])


def new_state(count: int) -> np.ndarray:
    "Records of `count` series never seen."
    state = np.zeros(count, STATE)
    state['tail'] = .6, 1.2
    state['since'] = 1e12
    state['slot'] = -1
    return state


jit = numba.njit(nogil=True, error_model='numpy', cache=True)


@jit
def clip(x, most):
    return min(max(x, -most), most)


@jit
def begin(s, t, x):
    "Note the time: seconds since the sample before, and between samples as a running estimate."
    gap = max(t - s.last, 0.) if s.n > 0 else 0.
    if s.n == 0:
        s.low = s.high = s.mu = s.fast = s.slow = s.slower = s.previous = s.trend[0] = x
        s.born = t
    elif gap > 0: s.dt = gap if s.dt == 0 else s.dt + .05*(min(max(gap, s.dt/4), 4*s.dt) - s.dt)
    s.last = t
    return gap, s.dt if s.dt > 0 else 300.


@jit
def profile_at(s, k):
    "The usual value of this half hour, as far as it is known."
    return s.mu + (s.profile[k] - s.mu)*s.seen[k]/(s.seen[k] + DOUBT)


@jit
def read_shift(s, x, k, dt, P):
    """Whether the profile is an hour off: the slot to read. What is twice as good of late as the present reading
    replaces it."""
    gain, now = min(dt/P.shift_memory, .5), int(s.shift)//2 + 1
    for q in range(3):
        j = (k + 2*(q - 1)) % DAY_SLOTS
        if s.seen[j] > .9: s.shift_error[q] += gain*(abs(x - profile_at(s, j)) - s.shift_error[q])
    best = now
    for q in range(3):
        if s.shift_error[q] < s.shift_error[best]: best = q
    if s.last - s.born > 3*DAY and s.shift_error[best] < .4*s.shift_error[now] - .01*(s.high - s.low):
        s.shift = 2.*(best - 1)
    return (k + int(s.shift)) % DAY_SLOTS


@jit
def week_part(s, t):
    "What the hour of the week adds to the profile of the day, as far as that has proved useful."
    if s.last - s.born < 2*WEEK or s.week_error[1] >= s.week_error[0]: return 0.
    return min(2*(1 - s.week_error[1]/s.week_error[0]), 1.)*s.week[int((t % WEEK)/(3*HOUR))]


@jit
def learn_week(s, t, off, dt, P):
    "`off` is the residual of the profile of the day alone."
    if s.last - s.born < DAY: return
    k, off = int((t % WEEK)/(3*HOUR)), clip(off, 6*s.dev)
    if s.last - s.born > 8*DAY:
        pace = min(dt/(WEEK/2), .02)
        s.week_error[0] += pace*(abs(off) - s.week_error[0])
        s.week_error[1] += pace*(abs(off - s.week[k]) - s.week_error[1])
    s.week[k] += min(dt/(3*HOUR)*.5, .5)*(off - s.week[k])


@jit
def learn_profile(s, x, off, k, dt, P):
    part = max(min(dt/1800, 1.), .02)
    s.slot_usual[k] += max(part / (s.seen[k] + 1), P.profile_gain * part) * (
        min(abs(off), 4 * s.usual[SEASON]) - s.slot_usual[k]
    )
    gain = max(part/(s.seen[k] + 1), P.profile_gain*part) if s.seen[k] >= 1 else 1/(s.seen[k]/part + 1)
    s.profile[k] += min(gain, 1.)*(x - s.profile[k])
    s.seen[k] += part


@jit
def against_trend(s, x, k, gain_level, gain_slope):
    "Error of Holt's one-step forecast; then learn."
    forecast = s.trend[k] + s.trend[k + 1]
    level = forecast + gain_level*(x - forecast)
    s.trend[k + 1] += gain_slope*(level - s.trend[k] - s.trend[k + 1])
    s.trend[k] = level
    return abs(x - forecast)


@jit
def energy(bursts, differences, k, d):
    "Norm of the last six three-row means of differences (what Netdata's k-means amounts to)."
    mean, total = (d + differences[k] + differences[k + 1])/3, 0.
    differences[k + 1], differences[k] = differences[k], d
    for j in range(LAGS - 1):
        bursts[j] = bursts[j + 1]
        total += np.float64(bursts[j])*np.float64(bursts[j])
    bursts[LAGS - 1] = mean
    return math.sqrt(total + mean*mean)


@jit
def surprise(s, k, distance, floor, gain, P):
    "log(1 + distance over this model's usual distance); then learn."
    usual = s.usual[k]
    s.usual[k] += gain*((distance if s.n < 20 else min(distance, P.winsor*usual + floor)) - usual)
    return math.log1p(distance/(usual + floor))


@jit
def absence(s, x, expected, k, floor, P):
    "Surprise that what this half hour, well known, usually brings does not come; 0 otherwise."
    usual, error = expected - s.mu, max(s.usual[SEASON], s.slot_usual[k]) + floor
    if s.seen[k] < P.absent_visits or abs(usual) < P.absent_size*error: return 0.
    if (x - s.mu)*math.copysign(1., usual) > .5*abs(usual): return 0.
    return P.absent_weight*math.log1p(abs(s.residual)/error)


@jit
def fast_evidence(s, x, residual, floor, gain, P):
    """Root mean square of the surprises of level, season, trend and shape; the last two of x or of the residual,
    whichever is less."""
    trend, of_residual = against_trend(s, x, 0, P.trend_level, P.trend_slope), against_trend(
        s, residual, 2, P.trend_level, P.trend_slope
    )
    shape = energy(s.bursts, s.differences, 0, x - s.previous)
    shape_of_residual = energy(s.residual_bursts, s.differences, 2, residual - s.previous_residual if s.n > 1 else 0.)
    if s.n > 1: trend, shape = min(trend, of_residual), min(shape, shape_of_residual)
    s.previous_residual = residual
    a = surprise(s, LEVEL, abs(s.fast - s.mu), floor, gain, P)
    b = surprise(s, SEASON, abs(s.residual), floor, gain, P)
    c = surprise(s, TREND, trend, floor, gain, P)
    d = surprise(s, SHAPE, shape, floor, gain, P)
    return math.sqrt((a*a + b*b + c*c + d*d)/4)


@jit
def slow_evidence(s, floor, gain, P):
    "The same of three slow models: far from the long mean, on the move, off the profile for long."
    a = surprise(s, SLOW_LEVEL, abs(s.slow - s.mu), floor, gain, P)
    b = surprise(s, SLOW_CHANGE, abs(s.slow - s.slower), floor, gain, P)
    c = surprise(s, SLOW_SEASON, abs(s.slow_residual), floor, gain, P)
    return math.sqrt((a*a + b*b + c*c)/3)


@jit
def smooth(s, x, residual, P):
    young = 1/(s.n + 1)
    s.fast += max(P.now_gain, young)*(x - s.fast)
    s.slow += max(P.slow_gain, young)*(x - s.slow)
    s.slower += max(P.slow_gain/4, young)*(x - s.slower)
    s.residual += P.now_gain*(residual - s.residual)
    s.slow_residual += P.slow_gain*(residual - s.slow_residual)


@jit
def tail_level(s, dt, budget, P):
    """What the evidence exceeds once in the budgeted time: an exponential tail (of a log: a power law) through two
    quantiles."""
    looks = P.looks*WEEK/budget/dt
    slope = max(s.tail[1] - s.tail[0], .02)/math.log((1 - P.low_tail)/(1 - P.high_tail))
    own, known = s.tail[1] + slope*math.log(max((1 - P.high_tail)*looks, 1.)), P.own*s.n/(s.n + P.own_rows)
    young = max(P.youth_rows/(s.n + 1), P.youth_time/max(s.last - s.born, dt))
    return known*own + (1 - known)*P.prior + P.youth*max(math.log10(young), 0.)


@jit
def learn_tail(s, evidence, P):
    "Two quantiles by stochastic approximation."
    g = max((s.n + 1)**-.7, P.tail_gain)
    s.tail[0] += g*((1. if evidence > s.tail[0] else 0.) - (1 - P.low_tail))
    s.tail[1] += 2*g*((1. if evidence > s.tail[1] else 0.) - (1 - P.high_tail))
    s.tail[1] = max(s.tail[0], s.tail[1])


@jit
def days_to_month_end(day):
    "Of a day since 1970 (Gregorian, Hinnant's civil_from_days)."
    z = day + 719468
    era = z//146097
    doe = z - era*146097
    yoe = (doe - doe//1460 + doe//36524 - doe//146096)//365
    doy = doe - (365*yoe + yoe//4 - yoe//100)                # from 1 March
    mp = (5*doy + 2)//153
    if mp < 11: return (153*(mp + 1) + 2)//5 - 1 - doy
    year = yoe + era*400 + 1                                # January and February belong to the year before, here
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 337 + (29 if leap else 28) - 1 - doy


@jit
def calendar_most(s, calendar, number, here, rank, P):
    "The most that this slot and its neighbours usually bring (0 = not known); then remember what it brings."
    first, size = (0, 48) if calendar == 0 else (48, 56) if calendar == 1 else (104, 31)
    if number != s.slot[calendar]:
        if s.slot[calendar] >= 0:
            j = int(s.slot[calendar] % 1000)
            s.visits[j] = min(s.visits[j] + 1, 250)
            before = s.ceiling[j]/4000
            news = min(s.slot_most[calendar], 16.) - before
            s.ceiling[j] = int(4000*(before + max(1/s.visits[j], .6 if news > 0 else .2)*news))
        s.slot[calendar], s.slot_most[calendar] = number, 0.
    s.slot_most[calendar] = max(s.slot_most[calendar], rank)
    most, near = 0., 1 if calendar == 0 else 0               # half hours have jitter, three hours and days have not
    for q in range(-near, near + 1):
        j = first + (here + q) % size
        if s.visits[j] >= 2: most = max(most, s.ceiling[j]/4000*s.visits[j]/(s.visits[j] + DOUBT))
    return most


@jit
def clock_level(s, t, k, rank, P):
    "What this time of the day, of the week and of the month usually brings at most, and a margin."
    day = int(t//DAY)
    week, month = int((t % WEEK)/(3*HOUR)), days_to_month_end(day)
    a = calendar_most(s, 0, 1000.*int(t//1800) + k, k, rank, P)
    b = calendar_most(s, 1, 1000.*int(t//(3*HOUR)) + 48 + week, week, rank, P)
    c = calendar_most(s, 2, 1000.*day + 104 + month, month, rank, P)
    return max(a, b, c) + P.clock


@jit
def learn_level(s, x, gain):
    "Long mean and deviation, guarded: a new level is accepted after a while, not at once."
    off, cap = x - s.mu, 6*s.dev if s.n > 20 else 1e300
    s.mu += gain*clip(off, cap)
    s.dev += gain*(min(abs(off), cap) - s.dev)


@jit
def has_moved(s, x, gap, P):
    "A series that never moved is news only when it stays at its new value for some minutes."
    if s.n > 0 and x != s.previous: s.moves += 1
    s.away = s.away + gap if x != s.mu and s.moves > 0 else 0.
    return s.moves >= 3 or s.away >= P.settled


@jit
def judge(s, excess, outside, gap, dt, ready, P):
    "(abnormal, new): whether this sample is, and whether it begins an alarm."
    s.price *= math.exp(-gap/P.price_time)
    s.since += gap
    abnormal = ready and (excess >= 0 or (s.abnormal > 0 and outside))
    new = abnormal and s.since > max(P.quiet, 4*dt)
    if new: s.price += 1
    if abnormal: s.since = 0.
    s.abnormal = 1. if abnormal else 0.
    return abnormal, new


@jit
def score_of(rank, excess, abnormal, new):
    "In [0, 1]: below .5 as expected, to .9 abnormal, above .9 the sample with which an alarm begins."
    if new: return .9 + .1*excess/(1 + excess) if excess > 0 else .9
    return (.5 if abnormal else 0.) + (.4 if abnormal else .4999)*rank/(rank + 2)


@jit
def step(s, t, x, budget, P, out):
    "Score one sample of one series, then learn from it."
    gap, dt = begin(s, t, x)
    gain = 1/min(s.n + 1, max(P.memory_rows, P.memory/dt))
    span = s.high - s.low if s.high > s.low else 1e-3*abs(x)
    floor = P.floor*max(span, 1e-9*max(abs(s.high), abs(s.low))) + 1e-12
    k = read_shift(s, x, int((t % DAY)/1800), dt, P)
    daily, weekly = profile_at(s, k), week_part(s, t)
    expected = daily + weekly
    residual = x - expected
    smooth(s, x, residual, P)
    usual = s.usual[SEASON] + floor
    absent = absence(s, x, expected, k, floor, P)
    evidence = max(
        fast_evidence(s, x, residual, floor, gain, P), P.slow_weight * slow_evidence(s, floor, gain, P), absent
    )
    record = math.log1p(max(x - s.high, s.low - x, 0.)/(max(span, 1e-12)*P.record_unit))
    rank = evidence + record if s.n >= P.lead else 0.
    level = tail_level(s, dt, budget, P)
    clock = clock_level(s, t, k, rank, P)
    usually = (
        max(level, clock) if absent < evidence else min(level, 1.4 * P.prior)
    )  # a clock explains what comes, not what fails to
    raised = usually + P.price*s.price**2
    half = usual*math.expm1(min(raised, 20.))
    moved = has_moved(s, x, gap, P)
    if s.n > 2: learn_tail(s, evidence, P)           # the clock answers for its own
    excess = rank - raised
    abnormal, new = judge(s, excess, abs(residual) > half, gap, dt, moved and s.n >= P.lead, P)
    s.rank += .5*(rank - s.rank)
    learn_level(s, x, gain)
    learn_profile(s, x - weekly, residual, k, dt, P)
    learn_week(s, t, x - daily, dt, P)
    s.low, s.high, s.previous = min(s.low, x), max(s.high, x), x
    s.n += 1
    out[0] = score_of((2*rank + s.rank)/3, excess, abnormal, new)
    out[1], out[2], out[3], out[4] = expected, expected - half, expected + half, 1. if abnormal else 0.
    out[5] = rank - .5*(level - P.prior)                       # what the host pools
    out[6], out[7] = rank, level


@jit
def row(s, t, v, budget, P, out):
    if not math.isfinite(v): return
    if s.scale == 0.: s.scale = abs(v)
    step(s, t, clip(v/s.scale, 1e15) if s.scale > 0 else 0., budget, P, out)
    for k in range(1, 4): out[k] = clip(out[k]*s.scale, 1.6e308)


@jit
def walk(state, times, values, budget, P, out):
    "Score `values[T, S]` into `out[8, T, S]`, each series by itself; what is not finite is no sample."
    for j in range(values.shape[1]):
        for r in range(values.shape[0]): row(state[j], times[r], values[r, j], budget, P, out[:, r, j])


OUTPUTS = ('score', 'expected', 'lower', 'upper', 'anomaly', 'evidence', 'rank', 'level')


def score(state, times, values, budget=1., P=DEFAULT):
    "[8, T, S]; `times` in seconds, `budget` false alarms a week and series."
    values = np.ascontiguousarray(values, float)
    out = np.full((len(OUTPUTS), *values.shape), np.nan)
    walk(state, np.asarray(times, float), values, float(budget), P, out)
    return out


def run(times, values, P=DEFAULT, budget=1.):
    values = np.asarray(values, float)
    if values.ndim == 1: values = values[:, None]
    return score(new_state(values.shape[1]), times, values, budget, P)


def accept(s: np.ndarray) -> None:
    "A person called the present normal: level, profile and usual distances move there, the tail knows it."
    moved = s['fast'] - s['mu'] - 0.
    s['mu'] += moved; s['profile'] += moved[..., None] if np.ndim(moved) else moved
    s['slow'] = s['slower'] = s['fast']
    s['residual'] = s['slow_residual'] = 0
    s['tail'][..., 1] = np.maximum(s['tail'][..., 1], s['rank'])
    s['abnormal'], s['rank'] = 0, 0


def rewind(state: np.ndarray, now: float) -> None:
    "The clock was put back to `now`: series heard later are as old and as well known as before, from now on."
    ahead = np.maximum(state['last'] - now, 0)
    state['last'] -= ahead
    state['born'] -= ahead
    state['slot'][ahead > 0] = -1
