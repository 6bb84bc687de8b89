/* The page's behaviour: clocks, keys, dialogs, and the live stream. Runs under default-src 'self'. */
(() => {
const root = document.documentElement, N = '\u202f', body = document.body;
const $ = (q, e = document) => e.querySelector(q), $$ = (q, e = document) => [...e.querySelectorAll(q)];

/* ---- durations and times, as views.py writes them ---- */
const duration = s => {
  s = Math.max(0, Math.round(s));
  for (const [size, name, below, part] of [[86400, 'd', 3600, 'h'], [3600, 'h', 60, 'min']]) if (s >= size) {
    const rest = Math.floor(s % size / below); return Math.floor(s / size) + N + name + (rest ? ' ' + rest + N + part : '') }
  return s >= 60 ? Math.floor(s / 60) + N + 'min' : s + N + 's';
};
const skew = () => skew.ms || 0;                                   // server's clock minus ours, from the last answer
const nowSeconds = () => (Date.now() + skew()) / 1000;
const days = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'], months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
const two = x => String(x).padStart(2, '0');
const local = (d, form) => {
  const hm = two(d.getHours()) + ':' + two(d.getMinutes());
  if (form === 'seconds') return hm + ':' + two(d.getSeconds());
  if (form === 'time') return hm;
  return (Math.abs(Date.now() - d) < 6 * 864e5 ? days[d.getDay()] : d.getDate() + ' ' + months[d.getMonth()]) + ' ' + hm;
};
const set = (e, text) => { if (e.textContent !== text) e.textContent = text };
function clocks(within = document) {
  const t = nowSeconds();
  $$('[data-since]', within).forEach(e => set(e, duration(t - e.dataset.since)));
  $$('[data-until]', within).forEach(e => set(e, duration(e.dataset.until - t)));
}
function zones(within = document) { $$('time[datetime]', within).forEach(e => set(e, local(new Date(e.dateTime), e.dataset.form || 'time'))) }

/* ---- theme ---- */
const themes = ['auto', 'light', 'dark'];
const theme = () => { try { return localStorage.getItem('theme') || 'auto' } catch { return 'auto' } };
const word = $('[data-theme-word]');
function turn() {
  const t = themes[(themes.indexOf(theme()) + 1) % 3];
  try { localStorage.setItem('theme', t) } catch { /* this page only */ }
  if (t === 'auto') delete root.dataset.theme; else root.dataset.theme = t;
  if (word) word.textContent = t;
  dispatchEvent(new Event('theme'));
}
if (word) word.textContent = theme();
{ const menu = $('.top nav'), here = $('[aria-current]', menu || document); if (menu && here) menu.scrollLeft = here.offsetLeft - (menu.clientWidth - here.offsetWidth) / 2 }     // a phone shows where one is
$('[data-theme-toggle]')?.addEventListener('click', turn);

/* ---- dialogs and toasts ---- */
const open = id => { const d = document.getElementById(id); if (d && d.showModal && !d.open) { d.showModal(); $('[data-first]', d)?.focus() } return !!d };
let hush;
const say = text => { const t = $('[data-toast]'); t.textContent = text; clearTimeout(hush); hush = setTimeout(() => { t.textContent = '' }, 8000) };
if ($('[data-toast]').textContent.trim()) say($('[data-toast]').textContent);
document.addEventListener('click', e => {
  const b = e.target.closest('[data-open],[data-close],[data-copy],[data-slow]'); if (!b) return;
  if (b.dataset.slow) say(b.dataset.slow);
  if (b.dataset.open) open(b.dataset.open);
  if ('close' in b.dataset) { e.preventDefault(); b.closest('dialog')?.close() }
  if ('copy' in b.dataset) { e.preventDefault(); navigator.clipboard?.writeText(b.href).then(() => say('Link copied.'), () => say(b.href)) }
});
document.addEventListener('change', e => { if (e.target.matches('[data-submit]')) e.target.form.submit() });
document.addEventListener('submit', e => { if (e.target.dataset.sent) e.preventDefault(); else if (e.target.method === 'post') e.target.dataset.sent = '1' });   // a double click sends once

/* ---- keys ---- */
let at = -1, g = false;
const rows = () => $$('[data-row]');
function pick(i) {
  const all = rows(); if (!all.length) return;
  all.forEach(r => r.classList.remove('sel'));
  at = Math.max(0, Math.min(all.length - 1, i));
  all[at].classList.add('sel'); all[at].scrollIntoView({ block: 'nearest' }); $('a', all[at])?.focus({ preventScroll: true });
}
const go = { n: 'now', h: 'hosts', a: 'actions', p: 'policies', s: 'silences', r: 'reports', t: 'aws_health' };
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.metaKey || e.altKey || e.repeat || e.target.matches('input,select,textarea') && e.target.offsetParent || $('dialog[open]')) return;
  const k = e.key;
  if (g) { g = false; const link = go[k] && $(`.top nav a[data-page="${go[k]}"]`); if (link) { e.preventDefault(); location.href = link.href } return }
  if (k === 'g') g = true; else if (k === 'j') pick(at + 1); else if (k === 'k') pick(at - 1); else if (k === 't') turn(); else if (k === '?') open('help');
  else if (k === 'a') { if (!open('approve')) { const waiting = $('.incident[data-s=waits] a'); if (waiting) location.href = waiting.href + '#approve'; else return } }
  else if (k === 'd') { if (!open('deny')) return } else if (k === 's') { if (!open('silence')) return } else return;
  e.preventDefault();
});
if (location.hash === '#approve') open('approve');

/* ---- a stretch of time is chosen in the reader's zone and sent in UTC ---- */
$$('form[data-local]').forEach(form => {
  const fields = $$('input[type=datetime-local]', form), wall = d => new Date(d - d.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
  fields.forEach(x => { x.value = wall(new Date(x.value + 'Z')) });
  const zone = $('[data-zone]', form); if (zone) zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone || '';
  form.addEventListener('formdata', e => fields.forEach(x => e.formData.set(x.name, new Date(x.value).toISOString().slice(0, 19) + 'Z')));
});

/* ---- live ---- */
const live = $('[data-live]'), icons = body.dataset.icons;
let heard = Date.now(), source, polling, tries = 0;
function mark(state, text) {
  const s = $('.state', live); if (!s) return;
  s.dataset.s = state; set(s.lastElementChild, text || state); $('use', s)?.setAttribute('href', icons + '#' + (state === 'lost' ? 'refused' : state));
}
function lost(on) {
  const banner = $('[data-lost]');
  if (!on) { banner?.remove(); return }
  mark('lost');
  if (banner) return;
  const p = document.createElement('p'); p.className = 'lost'; p.dataset.lost = ''; p.setAttribute('role', 'alert');
  p.append('Connection lost. This page shows ' + local(new Date(heard), 'seconds') + ' and does not change until it is back.'); $('.top').after(p);
}
function silent(reason) {                                           // the loop, not the connection: said as the server says it at the next load
  let p = $('[data-loop-lost]');
  if (!reason) { p?.remove(); return }
  if (!p) { p = document.createElement('p'); p.className = 'lost'; p.dataset.loopLost = ''; p.setAttribute('role', 'alert'); $('.top').after(p) }
  const text = reason[0].toUpperCase() + reason.slice(1) + (/[.?!]$/.test(reason) ? '' : '.') + ' What follows is what was known then.';
  if (p.textContent.trim().replace(/[\d.]+ s/, '') !== text.replace(/[\d.]+ s/, '')) p.textContent = text;      // the seconds alone are not worth an alert
}
function told(data) {
  heard = Date.now(); lost(false);
  if (!data) return;
  const age = $('[data-live] [data-since]'); if (age && data.at) age.dataset.since = data.at;
  if (data.reason) mark('late'); else mark('live', data.at ? 'live' : 'no loop');
  silent(data.reason);
  if (data.version && data.version === body.dataset.version) return;      // what this page already shows
  body.dataset.version = data.version || '';
  document.dispatchEvent(new CustomEvent('told', { detail: data }));
  window.htmx?.trigger(body, 'change-told');
}
const alive = () => { heard = Date.now(); lost(false); if ($('[data-live] .state')?.dataset.s === 'lost') mark('live') };
function listen() {
  source = new EventSource(body.dataset.events);
  source.addEventListener('hello', alive);
  source.addEventListener('ping', alive);
  source.addEventListener('reset', () => { alive(); window.htmx?.trigger(body, 'change-told'); document.dispatchEvent(new CustomEvent('told', { detail: {} })) });
  source.addEventListener('change', e => { tries = 0; told(JSON.parse(e.data)) });
  source.addEventListener('trouble', e => { alive(); mark('late'); silent('this page cannot read what is stored (' + JSON.parse(e.data).error + ')') });
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) { source.close(); poll() } };      // 503: no room for a stream
}
async function poll() {
  clearTimeout(polling);
  try {
    const r = await fetch($('link[rel=status]')?.href || body.dataset.root + 'api/v1/status', { headers: { Accept: 'application/json' } });
    if (r.status === 401) { location.reload(); return }
    const s = await r.json(); told({ at: s.loop.last_tick && Date.parse(s.loop.last_tick) / 1000, reason: s.loop.reason, corrected: s.corrected });
  } catch { /* said below, by the age of what was heard */ }
  tries += 1; polling = setTimeout(tries % 6 ? poll : listen, 5000);
}
if (live) {
  listen();
  setInterval(() => { clocks(); if (Date.now() - heard > 25000) lost(true) }, 1000);
  addEventListener('offline', () => lost(true));
  addEventListener('online', () => { if (source.readyState === EventSource.CLOSED) listen() });
  addEventListener('pagehide', () => source?.close());
}

/* ---- pieces that the server sends anew: swapped only where they say something else ---- */
const gist = e => { const c = e.cloneNode(true); $$('[data-since],[data-until],time', c).forEach(x => { x.textContent = '' }); $$('input[name=csrf_token]', c).forEach(x => x.removeAttribute('value')); $$('[data-row]', c).forEach(x => x.classList.remove('sel')); return c.innerHTML };
body.addEventListener('htmx:oobBeforeSwap', e => {
  const fresh = e.detail.fragment.firstElementChild || e.detail.fragment, old = e.detail.target;
  if (fresh?.dataset?.seen) seen(fresh.dataset.seen);
  if (fresh && old && (gist(fresh) === gist(old) || $('dialog[open]', old) || typed(old))) e.detail.shouldSwap = false;
  else { $$('[data-keep]', old).forEach(x => { kept[x.id] = x.checked }); opened = $$('[data-key]:has(details[open])', old).map(x => x.dataset.key); focused = old.contains(document.activeElement) ? document.activeElement.closest('[data-key]')?.dataset.key : null }
});
const kept = {}; let opened = [], focused = null;
const begun = x => x === document.activeElement || (x.options ? x.selectedIndex !== Math.max(0, [...x.options].findIndex(o => o.defaultSelected)) : x.value !== x.defaultValue);
const typed = e => $$('input[type=text],input[type=search],select', e).some(begun);      // what somebody is writing is not taken away
/* ---- the fleet: sent anew only when a host changes its state; otherwise just how old each one's data is ---- */
body.addEventListener('htmx:configRequest', e => { const fleet = $('#now-fleet'); if (fleet) e.detail.parameters.fleet = fleet.dataset.mark });
const showAges = on => $$('.grid a[data-s=ok]').forEach(a => { const s = $('small', a); if (on && !s) { const n = document.createElement('small'); n.dataset.since = a.dataset.t; a.append(n) } else if (!on) s?.remove() });
function seen(text) {
  const [newest, ...behind] = text.split(' ').map(Number), cells = $$('.grid a[data-host]'); if (cells.length !== behind.length) return;
  cells.forEach((a, i) => { const t = String(newest - behind[i]); if (a.dataset.t !== t) { a.dataset.t = t; const s = $('small', a); if (s) s.dataset.since = t } });
}
document.addEventListener('change', e => { if (e.target.id === 'ages') { showAges(e.target.checked); clocks() } });
document.addEventListener('mouseover', e => { const a = e.target.closest?.('.grid a[data-t]'); if (a) a.title = a.title.replace(/data .* old$/, `data ${duration(nowSeconds() - a.dataset.t)} old`) });
body.addEventListener('htmx:oobAfterSwap', e => {
  zones(); clocks();
  for (const id in kept) { const x = document.getElementById(id); if (x) x.checked = kept[id] }
  opened.forEach(key => { const d = $(`[data-key="${CSS.escape(key)}"] details`); if (d) d.open = true });
  if (focused != null) $(`[data-key="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
  if (e.detail.target.id === 'now-fleet' && $('#ages')?.checked) { showAges(true); clocks() }
  if (at >= 0) { const r = rows()[Math.min(at, rows().length - 1)]; r?.classList.add('sel') }
});
body.addEventListener('htmx:afterSettle', () => { zones(); clocks() });
zones(); clocks();
root.dataset.ready = '1';
})();
