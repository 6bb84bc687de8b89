"""Habits of the world as seeded checks at 1 and 5 minutes; python habits.py"""
import sys

import kernel as K
import numpy as np

T0 = 1767571200.   # 2026-01-05, a Monday
H, D = 3600., 86400.


def make(days, dt, seed, f, noise=2.):
    t = T0 + np.arange(int(days*D/dt))*dt
    rng = np.random.default_rng(seed)
    return t, f(t - T0) + rng.normal(0, noise, len(t)), rng


def alarms(t, x, P=K.DEFAULT, budget=1.):
    o = K.run(t, x, P, budget)[:, :, 0]
    return o[0] >= .9, o[4] > 0, o


def daily(s): return 50 + 20*np.sin(2*np.pi*s/D)
def office(s):
    h = s % D/H
    return np.where((h >= 8) & (h < 18), 60., 20.) + 8*np.exp(-((h - 11)/2)**2)
def job(s): return np.where((s % D >= 2*H) & (s % D < 2*H + 2400), 35., 0.)
def weekend(s): return (s//D) % 7 >= 5


def nightly(dt, seed, P):
    t, x, _ = make(21, dt, seed, lambda s: 30 + job(s)); p, a, o = alarms(t, x, P)
    d = ((t - T0)//D).astype(int); near = (t - T0) % D < 4*H
    return dict(told=sorted(set(d[p & near])), ok=not (set(d[p & near]) - {0, 1, 2}))
def missing(dt, seed, P):
    t, x, _ = make(23, dt, seed, lambda s: 30 + job(s)*((s//D) != 21)); p, a, o = alarms(t, x, P)
    w = ((t - T0)//D == 21) & ((t - T0) % D >= 2*H) & ((t - T0) % D < 3*H + 1800)
    return dict(told=bool(p[w].any()), ok=bool(p[w].any()))
def clock_change(dt, seed, P):
    t, x, _ = make(42, dt, seed, lambda s: office(s + H*(s >= 28*D))); p, a, o = alarms(t, x, P)
    w = (t - T0 >= 28*D) & (t - T0 < 35*D); before = p[(t - T0 >= 21*D) & (t - T0 < 28*D)].sum()
    return dict(alarms=int(p[w].sum()), before=int(before), ok=p[w].sum() <= 2)
def saturdays(dt, seed, P):
    t, x, _ = make(49, dt, seed, lambda s: np.where(weekend(s), 22., office(s))); p, a, o = alarms(t, x, P)
    w = t - T0 >= 28*D; r = weekend(t - T0) | ((t-T0)//D % 7 == 0)
    return dict(late=int(p[w & r].sum()), first4=int(p[~w & r].sum()), ok=p[w & r].sum() <= 1)
def month_end(dt, seed, P):
    me = lambda s: np.isin(
        ((T0 + s) // D).astype(int), [20484, 20512, 20543, 20573, 20604]
    )  # Jan 31, Feb 28, Mar 31, Apr 30, May 31
    t, x, _ = make(150, dt, seed, lambda s: daily(s) + 40*(me(s) & (s % D < 8*H))); p, a, o = alarms(t, x, P)
    n = [int(p[((t//D) >= d - 0) & ((t//D) <= d)].sum()) for d in (20484, 20512, 20543, 20573, 20604)]
    return dict(alarms=n, ok=n[3] + n[4] == 0)
def errors(dt, seed, P):
    t, x, rng = make(11, dt, seed, lambda s: 0*s, 0.); i = int(10*D/dt); x[i:] = rng.poisson(3, len(x) - i)/10.
    p, a, o = alarms(t, x, P); r = np.flatnonzero(p[i:])
    return dict(minutes=None if not len(r) else round(r[0]*dt/60, 1), ok=len(r) > 0 and r[0]*dt <= 900)
def leak(dt, seed, P):
    t, x, _ = make(18, dt, seed, lambda s: 50 + np.maximum(s - 10*D, 0)/H*.25, .6); p, a, o = alarms(t, x, P)
    w = np.flatnonzero(p & (t - T0 >= 10*D) & (x < 95))
    return dict(hours=None if not len(w) else round((t[w[0]] - T0 - 10*D)/H, 1), ok=len(w) > 0)
def leak_daily(dt, seed, P):
    t, x, _ = make(18, dt, seed, lambda s: 50 + 4*np.sin(2*np.pi*s/D) + np.maximum(s - 10*D, 0)/H*.25, .6)
    p, a, o = alarms(t, x, P)
    w = np.flatnonzero(p & (t - T0 >= 10*D) & (x < 95))
    return dict(hours=None if not len(w) else round((t[w[0]] - T0 - 10*D)/H, 1), ok=len(w) > 0)
def gauge(dt, seed, P):
    t, x, _ = make(11, dt, seed, lambda s: .6 + .3*(s >= 10*D), .02); p, a, o = alarms(t, x, P)
    r = np.flatnonzero(p & (t - T0 >= 10*D))
    return dict(minutes=None if not len(r) else (t[r[0]] - T0 - 10*D)/60, ok=len(r) > 0 and t[r[0]] - T0 - 10*D <= 900)
def fails(dt, seed, P):
    rng = np.random.default_rng(seed)
    t = T0 + np.arange(int(11*D/dt))*dt
    x = rng.poisson(3*dt, len(t))/dt
    x[t - T0 >= 10*D] = 0
    p, a, o = alarms(t, x, P)
    r = np.flatnonzero(p & (t - T0 >= 10*D))
    return dict(minutes=None if not len(r) else (t[r[0]] - T0 - 10*D)/60, ok=len(r) > 0 and t[r[0]] - T0 - 10*D <= 900)
def zeros(dt, seed, P):
    t, x, _ = make(12, dt, seed, daily)
    w = (t - T0 >= 10*D + 6*H) & (t - T0 < 10*D + 6*H + 600)
    x[w] = 0
    p, a, o = alarms(t, x, P)
    later = (t - T0 >= 10*D + 6*H + 600); h = (t - T0 - 10*D - 6*H - 600)/H
    return dict(
        told=bool(p[w].any()),
        later=int(p[later & (h < 12)].sum()),
        abnormal_min=round(float(a[later & (h < 12)].sum() * dt / 60)),
        ok=bool(p[w].any()) and p[later & (h < 12)].sum() == 0 and a[later & (h > 0.5) & (h < 12)].sum() == 0,
    )
def shift_ends(dt, seed, P):
    "A level shift that stays: how long it is abnormal, and whether the way back is then told."
    t, x, _ = make(20, dt, seed, lambda s: daily(s) + 40*((s >= 10*D) & (s < 10*D + 6*H)))
    p, a, o = alarms(t, x, P)
    s = t - T0
    w = (s >= 10*D) & (s < 10*D + 6*H); after = (s >= 10*D + 6*H + 1800) & (s < 11*D + 6*H)
    return dict(
        share_abnormal=round(float(a[w].mean()), 2),
        after_min=round(float(a[after].sum() * dt / 60)),
        ok=bool(p[w].any()) and a[after].sum() * dt <= 1800,
    )

CHECKS = (
    nightly,
    missing,
    clock_change,
    saturdays,
    month_end,
    errors,
    leak,
    leak_daily,
    gauge,
    fails,
    zeros,
    shift_ends,
)


def noise(kind, n, dt, rng):
    if kind == 'gaussian': return rng.normal(50, 5, n)
    if kind == 'lognormal': return np.exp(rng.normal(0, .7, n))
    if kind == 'counts': return rng.poisson(3, n).astype(float)
    if kind == 'season': return 50 + 20*np.sin(2*np.pi*np.arange(n)*dt/D) + rng.normal(0, 2, n)
    from scipy.signal import lfilter
    phi = np.exp(-dt/1800); return 50 + 5*lfilter([np.sqrt(1 - phi*phi)], [1, -phi], rng.normal(size=n))


def calm(P=K.DEFAULT, weeks=6, seeds=6, intervals=(10, 60, 300, 3600)):
    for dt in intervals:
        row = []
        for kind in ('gaussian', 'lognormal', 'ar', 'season', 'counts'):
            w = weeks if dt >= 60 else 3
            n = int(w*604800/dt); rng = np.random.default_rng(1)
            X = np.stack([noise(kind, n, dt, rng) for _ in range(seeds)], 1); t = T0 + np.arange(n)*dt
            p = K.run(t, X, P)[0] >= .9; k = int(604800/dt)
            row.append(f'{kind} first week {p[:k].sum()/seeds:.1f}, then {p[k:].sum()/seeds/(w - 1):.2f}/w')
        print(f'{dt:5d} s:', ' | '.join(row), flush=True)


if __name__ == '__main__':
    chosen = sys.argv[1:]                       # names of checks; all without
    for check in CHECKS:
        if chosen and check.__name__ not in chosen: continue
        for dt in (60, 300):
            found = [check(dt, seed, K.DEFAULT) for seed in range(3 if check is not month_end or dt > 60 else 1)]
            print(f'{check.__name__:13s} {dt:4d} s {sum(q["ok"] for q in found)}/{len(found)}', found[:2], flush=True)
    if not chosen: calm(K.DEFAULT, intervals=(60, 300, 3600), seeds=8)
