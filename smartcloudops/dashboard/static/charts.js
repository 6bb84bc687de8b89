/* Charts of history: uPlot with band, anomalies, gaps and a keyboard. Data comes from /api/v1/points. */
(() => {
const N = '\u202f', $ = (q, e = document) => e.querySelector(q), $$ = (q, e = document) => [...e.querySelectorAll(q)];
const digits = x => { if (!x) return '0'; const a = Math.abs(x), p = a >= 10 ? 0 : a >= 2 ? 1 : 2, t = a >= .095 ? x.toFixed(p) : x.toPrecision(2); return (x === Math.trunc(x) ? t.split('.')[0] : t).replace('-', '−') };
const scaleOf = (a, unit) => {
  if (unit === 'percent') return [1, '%']; if (unit === 'ratio') return [.01, '%']; if (unit === 'timestamp') return [1, ''];
  if (unit === 'seconds') return [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's'], [1e-3, 'ms'], [1e-6, 'µs']].find(p => a >= p[0]) || [1, 's'];
  const per = unit.endsWith('per_second') ? '/s' : '', [s, p] = [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']].find(q => a >= q[0]) || [1, ''];
  return [s, p + (unit.startsWith('bytes') ? 'B' : '') + per];
};
const format = (x, unit) => { if (x == null) return 'no data'; const [s, u] = scaleOf(Math.abs(x), unit); return digits(x / s) + (u ? N + u : '') };
const range = (a, b, unit) => { const m = Math.max(Math.abs(a), Math.abs(b)), [s, u] = scaleOf(m, unit), p = m / s >= 10 ? 0 : m / s >= 1 ? 1 : 2, e = [a, b].map(x => { const t = (x / s).toFixed(p); return +t === 0 ? '0' : t.replace('-', '−') }); return (e[0] === e[1] ? e[0] : e.join('–')) + (u ? N + u : '') };
/* one unit and as many decimals as the ticks of one axis need: 2.5 is neither 2 nor 3 */
const ticks = (v, unit) => { const [s, u] = scaleOf(Math.max(...v.map(Math.abs)), unit), step = Math.abs(v.length > 1 ? v[1] - v[0] : v[0]) / s; let p = 0, t; do t = v.map(x => (x / s).toFixed(p)); while (t.some((l, i) => Math.abs(l - v[i] / s) > .02 * step) && ++p < 4); return t.map(x => (+x === 0 ? '0' : x.replace('-', '−')) + (u ? N + u : '')) };
const two = x => String(x).padStart(2, '0'), months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const clock = (t, span, seconds) => { const d = new Date(t * 1e3), hm = two(d.getHours()) + ':' + two(d.getMinutes()); return span > 5 * 86400 ? d.getDate() + ' ' + months[d.getMonth()] : span > 86400 * 1.5 ? d.getDate() + ' ' + months[d.getMonth()] + ' ' + hm : seconds ? hm + ':' + two(d.getSeconds()) : hm };
const probe = document.createElement('span'); probe.hidden = true; document.body.append(probe);
const css = name => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color };
const colours = () => Object.fromEntries(['ink-2', 'ink-3', 'line', 'bad', 'band', 'grid', 'rule-2', 'accent', 'paper', 'good'].map(n => [n, css(n)]));
let C = colours();
const charts = new Map();
const sync = () => window.uPlot.sync('all');

async function fetchPoints(el, more = {}) {
  const url = new URL(el.dataset.chart, location.href), span = { start: el.dataset.start, end: el.dataset.end, hours: el.dataset.hours, ...more };
  for (const [k, v] of Object.entries(span)) if (v != null && v !== '') url.searchParams.set(k, v);
  url.searchParams.set('width', Math.max(200, Math.round(el.clientWidth * Math.min(2, devicePixelRatio) / 2) * 2));
  const r = await fetch(url, { headers: { Accept: 'application/json' } });
  if (!r.ok) throw new Error(r.status); return r.json();
}
/* what is drawn, and of the band at most as much again on either side: one that opened wide after a change would press the line flat */
function extent(s, x) {
  let a = null, b = null, low = null, high = null;
  s.t.forEach((t, i) => { const v = s.v[i]; if (v == null || x.min != null && (t < x.min || t > x.max)) return;
    if (a == null || v < a) a = v; if (b == null || v > b) b = v; if (s.lower[i] != null && (low == null || s.lower[i] < low)) low = s.lower[i]; if (s.upper[i] != null && (high == null || s.upper[i] > high)) high = s.upper[i] });
  if (a == null) return [null, null];
  const room = b - a || Math.abs(b) || 1; return [Math.max(Math.min(a, low ?? a), a - room), Math.min(Math.max(b, high ?? b), b + room)];
}
const columns = s => [s.t, s.upper, s.lower, s.v, s.v.map((v, i) => v != null && (s.anomaly[i] || s.anomaly[i + 1] && s.anomaly[i - 1] || s.anomaly[i - 1]) ? (s.anomaly[i] ? v : s.anomaly[i - 1] ? v : null) : null)];
function failed(el, error) { el.replaceChildren(); const p = document.createElement('p'); const empty = error.message === '404'; p.className = empty ? 'note' : 'err'; p.textContent = empty ? 'No samples in this range.' : 'This chart could not be read. What stands beside it is still true.'; el.append(p) }

function under(s) { return u => { const c = u.ctx, b = u.bbox, px = devicePixelRatio; c.save(); c.beginPath(); c.rect(b.left, 0, b.width, u.height * px); c.clip();
  for (const [a, z] of s().gaps) { const x = u.valToPos(a, 'x', true), y = u.valToPos(z, 'x', true); c.save(); c.beginPath(); c.rect(x, b.top, Math.max(y - x, px), b.height); c.clip(); c.strokeStyle = C['rule-2']; c.lineWidth = px;
    for (let k = x - b.height; k < y; k += 5 * px) { c.beginPath(); c.moveTo(k, b.top + b.height); c.lineTo(k + b.height, b.top); c.stroke() } c.restore() } c.restore() } }
function over(el, s) { return u => { const c = u.ctx, b = u.bbox, px = devicePixelRatio, d = s(); c.save(); c.beginPath(); c.rect(b.left, 0, b.width, u.height * px); c.clip();
  const y = b.top + b.height + 2 * px, w = Math.max(px, b.width / Math.max(1, (u.scales.x.max - u.scales.x.min) / (d.interval || 1)) + .5); c.fillStyle = C.bad;
  d.t.forEach((t, i) => { const p = d.score[i]; if (p == null || p < .5) return; c.globalAlpha = Math.min(1, .2 + (p - .5) * 1.6); c.fillRect(u.valToPos(t, 'x', true) - w / 2, y, w, 4 * px) }); c.globalAlpha = 1;
  c.strokeStyle = C.accent; c.fillStyle = C.paper; c.lineWidth = 1.25 * px; const at = d.rewritten.length ? new Map(d.t.map((t, i) => [t, i])) : null; for (const t of d.rewritten) { const i = at.get(t); if (i == null || d.v[i] == null) continue; c.beginPath(); c.arc(u.valToPos(t, 'x', true), u.valToPos(d.v[i], 'y', true), 2.75 * px, 0, 7); c.fill(); c.stroke() }
  const judged = el.dataset.judged && JSON.parse(el.dataset.judged); if (judged) { const x = u.valToPos(judged[0], 'x', true), z = u.valToPos(judged[1], 'x', true); c.fillStyle = C.good; c.fillRect(x, b.top + b.height - 3 * px, z - x, 3 * px); c.font = `${11 * px}px system-ui, sans-serif`; const edge = (x + z) / 2 + 24 * px > b.left + b.width; c.textAlign = edge ? 'right' : 'center'; c.fillText('judged', edge ? b.left + b.width - 2 * px : (x + z) / 2, b.top + b.height - 10 * px) }
  c.restore(); const marks = el.dataset.marks && JSON.parse(el.dataset.marks); if (!marks) return;
  c.save(); c.font = `650 ${11 * px}px system-ui, sans-serif`; c.textAlign = 'center'; c.textBaseline = 'middle'; let prev = -99 * px;
  for (const [t, n] of marks) { const x = u.valToPos(t, 'x', true); if (x < b.left || x > b.left + b.width) continue; c.strokeStyle = C['ink-3']; c.lineWidth = px; c.setLineDash([2 * px, 3 * px]); c.beginPath(); c.moveTo(x, b.top); c.lineTo(x, b.top + b.height); c.stroke(); c.setLineDash([]);
    const cx = Math.max(x, prev + 17 * px); prev = cx; c.fillStyle = C['ink-2']; c.beginPath(); c.arc(cx, b.top - 9 * px, 7.5 * px, 0, 7); c.fill(); c.fillStyle = C.paper; c.fillText(n, cx, b.top - 8.5 * px) } c.restore() } }

const began = (s, i) => { for (let k = i; s.anomaly[i] && k >= 0; k--) if (s.v[k] != null) { if (!s.anomaly[k]) break; i = k } return i };      // as views.py does
function say(out, s, i, span) {
  const e = span ? i : began(s, i);
  const b = document.createElement('b'), q = document.createElement('span'); b.textContent = format(s.v[i], s.unit); if (s.anomaly[i]) b.className = 'bad'; q.className = 'quiet';
  q.textContent = (s.lower[e] != null && s.upper[e] != null ? ` expected ${range(s.lower[e], s.upper[e], s.unit)}` : '') + (span ? `, ${clock(s.t[i], span, true)}` : '') + (s.rewritten.includes(s.t[i]) ? ', rewritten' : '');
  out.replaceChildren(b, q);
}
const lastIndex = s => { for (let i = s.v.length - 1; i >= 0; i--) if (s.v[i] != null) return i; return -1 };
function newest(el, s) {
  const out = $('[data-reading]', el.closest('figure')), i = lastIndex(s); if (!out || i < 0) return;
  out.dataset.value = s.v[i]; out.dataset.at = s.t[i]; if (!el.matches(':hover')) say(out, s, i);
}
function build(el, s) {
  const big = !!el.closest('.big'), small = !!el.closest('.small'), stacked = !!el.closest('.stack'), last = !stacked || el === $$('.stack .plot').at(-1), fig = el.closest('figure'), out = $('[data-reading]', fig);
  const gut = 62, state = { s }, data = () => state.s;
  const axis = { stroke: C['ink-3'], font: '11px system-ui, sans-serif', ticks: { show: false }, grid: { stroke: C.grid, width: 1 } };
  const height = () => big ? (innerWidth < 700 ? 230 : 290) : small ? 104 : last ? 118 : 88;
  const u = new uPlot({ width: el.clientWidth, height: height(), legend: { show: false }, padding: [el.dataset.marks ? 20 : 10, 18, last ? 0 : 8, 0], pxAlign: 1,
    cursor: { sync: { key: sync().key }, drag: { x: true, y: false, setScale: true }, points: { size: 6 } },
    scales: { x: { time: true }, y: { range: u => { const [a, b] = extent(state.s, u.scales.x); if (a == null) return [0, 1]; if (state.s.unit === 'percent' && (b > 70 || big) && a >= 0 && b <= 100) return [0, 100]; const pad = (b - a || Math.abs(b) || 1); return [a >= 0 ? Math.max(0, a - pad * .15) : a - pad * .15, b + pad * .12] } } },
    axes: [{ ...axis, size: last ? 30 : 0, gap: 10, space: 52, values: (u, v) => { const span = u.scales.x.max - u.scales.x.min, steps = v.length > 1 ? v[1] - v[0] : 60; return last ? v.map(t => clock(t, span, steps < 60)) : v.map(() => '') } },
           { ...axis, size: gut, gap: 6, space: big ? 44 : 26, values: (u, v) => ticks(v, state.s.unit) }],
    series: [{}, { stroke: 'transparent', points: { show: false } }, { stroke: 'transparent', points: { show: false } }, { stroke: C.line, width: 1.25, points: { show: false } }, { stroke: C.bad, width: 1.75, points: { show: false } }],
    bands: [{ series: [1, 2], fill: C.band }],
    hooks: { drawAxes: [under(data)], draw: [over(el, data)], setCursor: [u => { if (!out) return; const i = u.cursor.idx, d = state.s; if (i == null) { const j = lastIndex(d); if (j >= 0) say(out, d, j) } else say(out, d, i, u.scales.x.max - u.scales.x.min) }],
      setSelect: [u => { if (u.select.width > 2) { const a = u.posToVal(u.select.left, 'x'), z = u.posToVal(u.select.left + u.select.width, 'x'); closer(el, u, state, a, z) } }] } }, columns(s), el);
  state.u = u; state.whole = [s.t[0], s.t.at(-1)]; state.full = s;
  el.ondblclick = () => whole(el, u, state);
  el.onkeydown = e => { const t = state.s.t, { min, max } = u.scales.x, m = u.cursor.idx != null ? t[u.cursor.idx] : (min + max) / 2, w = max - min;
    if (e.key === 'ArrowLeft' || e.key === 'ArrowRight') { const i = Math.max(0, Math.min(t.length - 1, (u.cursor.idx ?? t.length) + (e.key === 'ArrowLeft' ? -1 : 1))); u.setCursor({ left: u.valToPos(t[i], 'x'), top: 10 }) }
    else if (e.key === '+' || e.key === '=') closer(el, u, state, m - w / 4, m + w / 4); else if (e.key === '-') closer(el, u, state, m - w, m + w); else if (e.key === '0') whole(el, u, state); else return; e.preventDefault() };
  fingers(u); newest(el, s); return state;
}
/* uPlot knows the mouse only: a finger that goes sideways draws the same selection, one that goes up or down scrolls the page */
function fingers(u) {
  const as = (type, x, y, to) => to.dispatchEvent(new MouseEvent(type, { clientX: x, clientY: y, movementX: 1, bubbles: true, view: window }));
  let start = null;
  u.over.addEventListener('pointerdown', e => { if (e.pointerType === 'mouse') return; start = e; as('mousemove', e.clientX, e.clientY, u.over); as('mousedown', e.clientX, e.clientY, u.over) });
  u.over.addEventListener('pointermove', e => { if (start) as('mousemove', e.clientX, e.clientY, u.over) });
  for (const end of ['pointerup', 'pointercancel']) u.over.addEventListener(end, e => { if (!start) return;
    const x = end === 'pointerup' ? e.clientX : start.clientX; as('mousemove', x, e.clientY, u.over); as('mouseup', x, e.clientY, document); start = null });
}
/* the way back, to be seen: nobody guesses a double click */
function back(el, u, state) {
  let b = $('.unzoom', el); if (!state.zoomed) { b?.remove(); return } if (b) return;
  b = document.createElement('button'); b.type = 'button'; b.className = 'plain unzoom'; b.textContent = 'show all'; b.onclick = () => { whole(el, u, state); el.focus() }; el.append(b);
}
/* zoom asks the server for finer points of just that stretch: what was decimated away comes back */
async function closer(el, u, state, a, z) {
  a = Math.max(a, state.whole[0]); z = Math.min(z, state.whole[1]); if (z - a < 2) return;
  state.zoomed = true; back(el, u, state); u.setScale('x', { min: a, max: z });
  try { const s = await fetchPoints(el, { start: a - (z - a) * .02, end: z + (z - a) * .02 }); if (state.zoomed && s.t.length) { state.s = s; u.setData(columns(s), false); u.setScale('x', { min: a, max: z }) } } catch { /* the coarse ones stay */ }
}
function whole(el, u, state) { state.zoomed = false; back(el, u, state); if (state.stale) { draw(el); return } state.s = state.full; u.setData(columns(state.full)); u.setScale('x', { min: state.whole[0], max: state.whole[1] }) }

async function draw(el) {
  try { const s = await fetchPoints(el); charts.get(el)?.u?.destroy(); el.replaceChildren(); if (!s.t.length) throw new Error('404'); charts.set(el, build(el, s)) } catch (e) { charts.delete(el); failed(el, e) }
}
/* a live chart asks only for what is new, and lets the oldest go; when samples came late or changed, it is drawn anew */
async function extend(el, corrected) {
  const state = charts.get(el); if (el.dataset.end || !el.isConnected) return;
  if (!state) { await draw(el); return }
  state.stale ||= corrected; if (state.zoomed || state.busy) return;
  if (state.stale) { await draw(el); return }
  state.busy = true;
  try {
    const f = state.full, since = f.t.at(-1), s = await fetchPoints(el, { start: since - 2.5 * (f.interval || 5) });
    const from = s.t.findIndex(t => t > since + 1e-6);
    if (from >= 0) {
      const length = state.whole[1] - state.whole[0], cut = Math.max(0, f.t.findIndex(t => t >= s.t.at(-1) - Math.max(length, 60)));
      for (const k of ['t', 'v', 'lower', 'upper', 'score', 'anomaly']) f[k] = f[k].slice(cut).concat(s[k].slice(from));
      f.gaps = f.gaps.concat(s.gaps.filter(g => g[1] > since)); f.rewritten = f.rewritten.filter(t => t >= f.t[0]).concat(s.rewritten.filter(t => t > since)); state.whole = [f.t[0], f.t.at(-1)]; state.s = f; state.u.setData(columns(f)); newest(el, f);
      if (f.t.length > 4 * el.clientWidth) await draw(el);
    }
  } catch { /* a lost connection is said by the page as a whole */ } finally { state.busy = false }
}
async function all() {
  if (window.uPlot) { C = colours(); await Promise.all($$('.plot[data-chart]').map(draw)); document.documentElement.dataset.drawn = '1' }
  requestAnimationFrame(() => setTimeout(() => $$('noscript[data-late]').forEach(e => { const grid = e.parentNode; grid.innerHTML = e.textContent; document.dispatchEvent(new Event('grid')) })));   // a thousand hosts wait for the charts; without JavaScript they stand there at once
}
const again = () => { C = colours(); for (const [el, state] of charts) { state.u.destroy(); el.replaceChildren(); charts.set(el, Object.assign(build(el, state.full), { stale: state.stale })) } };
all();
let known = Number(document.body.dataset.corrected);      // samples that ever came late or changed, as of these charts
document.addEventListener('told', e => { const now = e.detail.corrected ?? known, more = now !== known; known = now; $$('.plot[data-chart]').forEach(el => extend(el, more)) });
addEventListener('theme', again); matchMedia('(prefers-color-scheme: dark)').addEventListener('change', again);
let wait; addEventListener('resize', () => { clearTimeout(wait); wait = setTimeout(() => charts.forEach((s, el) => s.u.setSize({ width: el.clientWidth, height: s.u.height })), 120) });
})();
