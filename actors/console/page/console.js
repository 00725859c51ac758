// The console: asks the doors' own routes every two seconds and draws what they say. No library, no
// build, nothing from another host. What comes from the server is set as text, never as HTML.
const PERIOD_MS = 2000;
const KEPT = 60;
const HOUR_S = 3600;
const MAP_EVERY = 3;
const LATELY = 5;
const MIB = 1024 * 1024;
const history = new Map();
let before = null;
let map = [];
const folded = new Map();
let known = [];
let turns = 0;

const byId = (id) => document.getElementById(id);
const base = new URL('.', document.baseURI);
const at = (path) => new URL(path, base);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

async function ask(path, options = {}) {
  const headers = { ...(options.headers ?? {}) };
  const key = sessionStorage.getItem('squadron-key');
  if (key) headers.authorization = `Bearer ${key}`;
  const answer = await fetch(at(path), { ...options, headers });
  if (answer.status === 401 || answer.status === 403) byId('key-form').hidden = false;
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error?.message ?? said.error ?? `${answer.status} ${answer.statusText}`);
  }
  return answer;
}

const askJson = async (path) => (await ask(path)).json();

async function refresh() {
  const parts = ['admin/v1/models', 'v2/models/stats', 'admin/v1/experiments', 'admin/v1/ensembles',
    'admin/v1/autoscaling', 'admin/v1/events'];
  const found = await Promise.allSettled(parts.map(askJson));
  const [models, stats, experiments, ensembles, decisions, events] =
    found.map((each) => (each.status === 'fulfilled' ? each.value : null));
  const failed = found.find((each) => each.status === 'rejected');
  if (models) known = models;
  if (stats) measure(stats.model_stats);
  const wrong = models ? wrongs(models, history, map, experiments ?? [], events ?? [], Date.now() / 1000) : [];
  showState(models, failed?.reason, wrong);
  if (models) { showModels(models); offer(models); }
  // Where processes are changes rarely, and Ray is asked for it.
  if (models && turns % MAP_EVERY === 0) await askJson('admin/v1/cluster').then((nodes) => { map = nodes; showMap(nodes, models); }, tellMap);
  turns += 1;
  if (experiments) showExperiments(experiments);
  if (ensembles) showEnsembles(ensembles);
  if (decisions) showScaling(decisions);
  if (events) showEvents(events);
}

function measure(stats) {
  const now = performance.now();
  const totals = new Map();
  for (const each of stats) {
    const found = totals.get(each.name) ?? { count: 0, ns: 0, failed: 0 };
    found.count += Number(each.inference_stats.success.count);
    found.ns += Number(each.inference_stats.success.ns);
    found.failed += Number(each.inference_stats.fail.count);
    totals.set(each.name, found);
  }
  if (before) {
    const seconds = (now - before.now) / 1000;
    for (const [name, found] of totals) {
      const last = before.totals.get(name) ?? { count: 0, ns: 0, failed: 0 };
      const count = found.count - last.count;
      const kept = history.get(name) ?? [];
      kept.push({
        rate: count / seconds,
        ms: count > 0 ? (found.ns - last.ns) / count / 1e6 : null,
        failed: (found.failed - last.failed) / seconds,
      });
      history.set(name, kept.slice(-KEPT));
    }
  }
  before = { now, totals };
}

// What a person who is called wants to know first, the worst first: models that do not answer, requests
// that fail, replicas that are not there, experiments whose verdict does not count, what was lost lately.
function wrongs(models, history, nodes, experiments, events, now) {
  const found = [];
  // UNAVAILABLE is what the configuration calls optional and this machine cannot run.
  for (const each of models.filter((one) => one.state !== 'READY' && one.state !== 'UNAVAILABLE')) {
    found.push(`${each.name}: ${each.state}${each.reason ? `, ${each.reason}` : ''}`);
  }
  for (const [name, kept] of history) {
    const last = kept.slice(-LATELY);
    const mean = (field) => last.reduce((sum, each) => sum + each[field], 0) / last.length;
    const failed = last.length ? mean('failed') : 0;
    if (failed > 0) found.push(`${name}: ${failed.toFixed(1)} of ${(failed + mean('rate')).toFixed(1)} requests/s fail`);
  }
  const replicas = nodes.flatMap((node) => node.processes.filter((each) => each.kind !== 'shard').map((each) => ({ ...each, node: node.address })));
  for (const each of replicas.filter((one) => one.state !== 'RUNNING')) {
    found.push(`${each.variant || 'door'}: ${each.kind} ${each.replica} on ${each.node} is ${each.state}`);
  }
  for (const each of models.filter((one) => nodes.length && one.kind === 'variant' && one.state === 'READY' && !one.is_colocated)) {
    const there = replicas.filter((one) => one.variant === each.name && one.state === 'RUNNING').length;
    if (there < each.replicas) found.push(`${each.name}: ${there} of ${each.replicas} replicas run`);
  }
  for (const each of experiments.filter((one) => !one.sample_ratio.ok)) {
    found.push(`${each.name}: the sample ratio is off, no verdict counts`);
  }
  const late = events.filter((each) => now - each.at_s < 600 && (each.kind === 'lost' || each.kind === 'recovered'));
  for (const name of new Set(late.map((each) => each.subject))) {
    const own = late.filter((each) => each.subject === name), lost = own.filter((each) => each.kind === 'lost');
    if (own.at(-1).kind === 'lost') found.push(`${name}: lost ${Math.round((now - own.at(-1).at_s) / 60)} min ago, ${own.at(-1).reason}`);
    else if (lost.length > 2) found.push(`${name}: lost ${lost.length} times in ten minutes and back, last: ${lost.at(-1).reason}`);
  }
  return found;
}

function showState(models, error, wrong = []) {
  byId('wrong').hidden = !wrong.length;
  byId('wrongs').replaceChildren(...wrong.map((each) => element('li', {}, each)));
  const place = byId('state');
  if (!models) {
    place.textContent = `no answer: ${error?.message ?? 'unknown'}`;
    place.className = 'bad';
    return;
  }
  const waiting = models.filter((each) => each.state !== 'READY');
  place.textContent = waiting.length
    ? `${models.length - waiting.length} of ${models.length} models ready`
    : `all ${models.length} models ready`;
  if (wrong.length) place.textContent += `, ${wrong.length} ${wrong.length === 1 ? 'thing' : 'things'} wrong`;
  place.className = wrong.length ? 'bad' : 'READY';
}

const shown = (value, unit, digits = 1) => (value === null || value === undefined ? '–' : `${value.toFixed(digits)}${unit}`);

function showModels(models) {
  const focused = document.activeElement;
  byId('models').replaceChildren(...models.map((model) => {
    const kept = history.get(model.name) ?? [];
    const last = kept.at(-1) ?? {};
    const state = element('td', { class: model.state }, model.state);
    if (model.reason) state.append(reason(model.name, model.reason));
    return element('tr', {},
      element('th', { scope: 'row' }, model.name),
      element('td', {}, model.kind),
      state,
      element('td', { class: 'number' }, shown(last.rate, '')),
      element('td', { class: 'number' }, shown(last.ms, ' ms', 2)),
      element('td', { class: `number ${last.failed > 0 ? 'bad' : ''}` }, shown(last.failed, '/s')),
      element('td', {}, sparkline(model.name, kept)));
  }));
  if (focused?.matches('summary') && focused.isConnected) focused.focus();
}

// A long one is folded, or one broken model would push the others off the page; it stays as it was
// opened when the table is drawn again.
function reason(name, text) {
  if (text.length <= 160) return element('div', { class: 'reason' }, text);
  const cut = text.lastIndexOf(' ', 120);
  const last = folded.get(name);
  if (last?.text === text) return last.made;
  const made = element('details', { class: 'reason' }, element('summary', {}, `${text.slice(0, cut > 0 ? cut : 120)} …`), text);
  folded.set(name, { text, made });
  return made;
}

function sparkline(name, kept) {
  const width = 220, height = 30;
  const picture = drawn('svg', { width, height, role: 'img' });
  const rates = kept.map((each) => each.rate), times = kept.map((each) => each.ms);
  const most = Math.max(...rates, 0), longest = Math.max(...times.map((each) => each ?? 0), 0);
  picture.append(drawn('title', {}, document.createTextNode(
    `${name}: at most ${most.toFixed(1)} requests/s and ${longest.toFixed(1)} ms in the last two minutes`)));
  for (const [values, top, kind] of [[rates, most, 'rate'], [times, longest, 'late']]) {
    const points = values.map((value, index) => (value === null || top === 0 ? null
      : `${(width * (index + KEPT - values.length)) / (KEPT - 1)},${height - 2 - (value / top) * (height - 4)}`));
    const seen = points.filter((each) => each !== null);
    if (seen.length > 1) picture.append(drawn('polyline', { class: kind, points: seen.join(' ') }));
  }
  return picture;
}

function tellMap(error) {
  byId('map').replaceChildren(element('li', { class: 'bad' }, `no map: ${error.message}`));
}

// A card a node, its kinds of devices below, what runs on each: squares are processes of their own.
function showMap(nodes, models) {
  const about = new Map(models.map((each) => [each.name, each]));
  const running = new Set(nodes.flatMap((node) => node.processes.flatMap((each) => [each.variant, ...(each.holds ?? [])])));
  const cards = nodes.map((node) => {
    const gpus = node.num_gpus ? `, ${node.num_gpus} ${node.accelerator || ''} GPUs`.replace('  ', ' ') : '';
    const card = element('li', {},
      element('h3', {}, node.address + (node.is_head ? ', head' : '')),
      element('div', { class: 'hint' }, `${node.num_cpus} cores${gpus}, ${node.processes.length} processes`));
    const devices = [...new Set(node.processes.map(deviceOf))].sort((one, other) => one.localeCompare(other, 'en', { numeric: true }));
    for (const device of devices) card.append(showDevice(device, node.processes.filter((each) => deviceOf(each) === device), about));
    const free = freeGpus(node);
    if (free.length) card.append(element('div', { class: 'hint' }, `GPU ${free.join(', ')}: nothing of Squadron's`));
    return card;
  });
  const idle = models.filter((each) => each.kind === 'variant' && !running.has(each.name));
  if (idle.length) {
    cards.push(element('li', { class: 'inside' }, element('h3', {}, 'Nowhere'),
      ...idle.map((each) => element('div', { class: 'hint' }, `${each.name}: ${each.state}`))));
  }
  byId('map').replaceChildren(...cards);
}

// By the numbers that Ray gave, which the metrics have as well; `device` is what the placement calls it.
const deviceOf = (each) => (each.gpus?.length ? `gpu ${each.gpus.join(', ')}` : each.device);

function freeGpus(node) {
  const used = new Set(node.processes.flatMap((each) => each.gpus ?? []));
  return [...Array(Math.floor(node.num_gpus)).keys()].filter((index) => !used.has(index));
}

function showDevice(device, processes, about) {
  const rows = new Map();
  for (const each of processes) {
    const name = each.kind === 'door' ? 'doors' : each.variant;
    rows.set(name, [...(rows.get(name) ?? []), each]);
  }
  const list = element('ul', { class: 'processes' });
  for (const [name, found] of rows) list.append(showProcesses(name, found, about.get(name)));
  return element('div', {}, element('h4', {}, device), list);
}

function showProcesses(name, found, model) {
  const row = element('li', {}, element('strong', {}, name));
  const held = found.find((each) => each.holds?.length)?.holds;
  if (held) row.append(element('span', { class: 'hint' }, ` and in them ${held.join(', ')}`));
  const whole = found.filter((each) => each.kind !== 'shard');
  if (whole.length) {
    const said = whole.map((each) => `${each.kind} ${each.replica}, ${each.state}, process ${each.pid ?? 'unknown'}`).join('; ');
    const squares = element('div', { class: 'replicas', role: 'img', 'aria-label': `${name}: ${said}`, title: said });
    for (const each of whole.slice(0, 64)) squares.append(element('span', { class: each.state }));
    row.append(squares);
  }
  const shards = found.filter((each) => each.kind === 'shard');
  if (shards.length) row.append(element('ul', { class: 'shards' }, ...shards.map((each) => element('li', {}, shardText(each)))));
  if (model?.placement) row.append(element('div', { class: 'reason' }, model.placement));
  return row;
}

function shardText(shard) {
  const parts = [`shard ${shard.rank}`];
  if (shard.last_layer !== undefined) parts.push(`layers ${shard.first_layer}–${shard.last_layer}`);
  if (shard.tensor_degree > 1) parts.push(`slice ${shard.tensor_rank + 1} of ${shard.tensor_degree}`);
  if (shard.weight_bytes) parts.push(`${(shard.weight_bytes / MIB).toFixed(shard.weight_bytes < 10 * MIB ? 1 : 0)} MiB`);
  return parts.join(', ');
}

function showExperiments(experiments) {
  const place = byId('experiments');
  if (!experiments.length) { place.replaceChildren(element('p', { class: 'hint' }, 'none runs')); return; }
  place.replaceChildren(...experiments.map((each) => {
    const card = element('div', { class: 'card' },
      element('h3', {}, `${each.name}: ${each.verdict}`),
      element('p', { class: 'reason' }, each.reason),
      element('p', { class: each.sample_ratio.ok ? 'hint' : 'bad' },
        `${each.kind}, ${each.status}, sample ratio ${each.sample_ratio.ok ? 'as it should be' : 'OFF: no verdict counts'} (p = ${each.sample_ratio.p_value.toPrecision(2)})`));
    const total = each.arms.reduce((sum, arm) => sum + arm.weight, 0) || 1;
    for (const arm of each.arms) card.append(showArm(arm, total));
    return card;
  }));
}

function showArm(arm, total) {
  const latency = arm.latency_ms;
  const said = [`${((100 * arm.weight) / total).toFixed(0)} % of the traffic`, `${arm.requests} requests`,
    `${arm.errors} errors`, `p50 ${shown(latency.p50, ' ms')}`, `p99 ${shown(latency.p99, ' ms')}`];
  if (arm.quality !== null) said.push(`quality ${arm.quality.toFixed(3)} (${arm.rated} rated)`);
  const told = element('div', {}, said.join(', '));
  if (arm.interval) told.append(interval(arm));
  if (arm.reason) told.append(element('div', { class: 'reason' }, arm.reason));
  return element('div', { class: 'arm' }, element('strong', {}, arm.name), told);
}

function interval(arm) {
  const [low, high] = arm.interval;
  const reach = Math.max(Math.abs(low), Math.abs(high), 1e-9) * 1.2;
  const x = (value) => 150 + (140 * Math.max(-reach, Math.min(reach, value))) / reach;
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  return drawn('svg', { width: 300, height: 34, viewBox: '0 0 300 34', role: 'img' },
    drawn('title', {}, document.createTextNode(
      `${arm.name}: improvement ${percent(arm.improvement ?? 0)}, between ${percent(low)} and ${percent(high)}`)),
    drawn('line', { class: 'wire', x1: 150, x2: 150, y1: 2, y2: 20 }),
    drawn('line', { class: 'rate', x1: x(low), x2: x(high), y1: 11, y2: 11 }),
    drawn('circle', { class: 'box', cx: x(arm.improvement ?? (low + high) / 2), cy: 11, r: 4 }),
    drawn('text', { class: 'soft', x: 4, y: 32 }, document.createTextNode(percent(low))),
    drawn('text', { class: 'soft', x: 250, y: 32 }, document.createTextNode(percent(high))));
}

function showEnsembles(ensembles) {
  const place = byId('ensembles');
  if (!ensembles.length) { place.replaceChildren(element('p', { class: 'hint' }, 'none is configured')); return; }
  place.replaceChildren(...ensembles.map((each) => element('div', { class: 'card' },
    element('h3', {}, each.name), element('div', { class: 'wide', tabindex: 0, role: 'region', 'aria-label': `Graph of ${each.name}` }, graph(each)))));
}

// Steps in columns by how far they are from the inputs; a wire for each value between them.
function graph(ensemble) {
  const nodes = [{ name: 'request', needs: [], gives: ensemble.inputs },
    ...ensemble.steps, { name: 'answer', needs: ensemble.outputs, gives: [] }];
  const giver = new Map();
  nodes.forEach((node, index) => node.gives.forEach((value) => giver.set(value, index)));
  const depth = [];
  const depthOf = (index) => {
    depth[index] ??= 1 + Math.max(-1, ...nodes[index].needs.map((value) => depthOf(giver.get(value) ?? 0)));
    return depth[index];
  };
  nodes.forEach((_, index) => depthOf(index));
  const rows = new Map();
  const places = nodes.map((_, index) => {
    const row = rows.get(depth[index]) ?? 0;
    rows.set(depth[index], row + 1);
    return { x: 10 + 220 * depth[index], y: 10 + 44 * row };
  });
  const width = 190 + 220 * Math.max(...depth), height = 20 + 44 * Math.max(...rows.values());
  const picture = drawn('svg', { width, height, role: 'img' });
  picture.append(drawn('title', {}, document.createTextNode(
    `${ensemble.name}: ${ensemble.steps.map((step) => `${step.name} takes ${step.needs.join(', ')} and gives ${step.gives.join(', ')}`).join('; ')}`)));
  nodes.forEach((node, index) => node.needs.forEach((value) => {
    const from = places[giver.get(value) ?? 0], to = places[index];
    picture.append(drawn('path', { class: 'wire', d: `M${from.x + 170},${from.y + 15} C${from.x + 195},${from.y + 15} ${to.x - 25},${to.y + 15} ${to.x},${to.y + 15}` }));
  }));
  nodes.forEach((node, index) => picture.append(
    drawn('rect', { class: 'box', x: places[index].x, y: places[index].y, width: 170, height: 30, rx: 5 }),
    drawn('text', { x: places[index].x + 8, y: places[index].y + 20 }, document.createTextNode(node.name.slice(0, 24)))));
  return picture;
}

function showScaling(decisions) {
  const place = byId('scaling');
  const lines = timelines(decisions);
  if (!lines.length) { place.replaceChildren(element('p', { class: 'hint' }, 'no variant is scaled by itself')); return; }
  place.replaceChildren(...lines.map((each) => element('div', { class: 'arm' },
    element('strong', {}, each.variant), element('div', {}, steps(each), element('div', { class: 'reason' }, each.reason)))));
}

// One for each variant that is scaled now: how many replicas were wanted over the last hour. The answer
// holds each variant's latest decision and the changes before it, told apart by `is_latest`.
function timelines(decisions) {
  return decisions.filter((each) => each.is_latest).map((latest) => {
    const began = latest.at_s - HOUR_S;
    const changes = decisions.filter((each) => !each.is_latest && each.variant === latest.variant && each.at_s >= began);
    changes.sort((one, other) => one.at_s - other.at_s);
    const points = [{ at_s: began, target: changes[0]?.num_before ?? latest.num_replicas }];
    for (const each of changes) points.push({ at_s: each.at_s, target: each.num_before }, { at_s: each.at_s, target: each.num_replicas });
    points.push({ at_s: latest.at_s, target: latest.num_replicas });
    return { variant: latest.variant, reason: latest.reason, began, points };
  });
}

function steps({ variant, began, points }) {
  const most = Math.max(...points.map((each) => each.target), 1);
  const picture = drawn('svg', { width: 320, height: 30, role: 'img' });
  picture.append(drawn('title', {}, document.createTextNode(`${variant}: ${points.at(-1).target} replicas wanted, at most ${most} in the last hour`)));
  const places = points.map((each) => `${(310 * (each.at_s - began)) / HOUR_S},${27 - (24 * each.target) / most}`);
  picture.append(drawn('polyline', { class: 'rate', points: places.join(' ') }));
  return picture;
}

// Events outlive restarts: those of another day say which.
function clock(at_s) {
  const at = new Date(at_s * 1000);
  return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString();
}

function showEvents(events) {
  byId('events').replaceChildren(...events.slice(-50).reverse().map((each) => element('tr', {},
    element('td', { class: 'number' }, clock(each.at_s)),
    element('td', {}, each.kind), element('td', {}, each.subject), element('td', {}, each.reason))));
}

function offer(models) {
  const select = byId('try-model');
  const names = models.map((each) => each.name);
  if (names.join() === [...select.options].map((each) => each.value).join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => element('option', { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
  choose().catch(tell);
}

let form = null;

async function choose() {
  const name = byId('try-model').value;
  const place = byId('try-input');
  const model = known.find((each) => each.name === name);
  const about = await askJson(`v2/models/${encodeURIComponent(name)}`);
  const [first] = about.inputs ?? [];
  const isText = about.inputs?.length === 1 && first.datatype === 'BYTES';
  if (isText && first.name === 'image') form = photoForm(place, name);
  else if (isText || about.platform?.includes('causal_lm')) form = textForm(place, name, about, model);
  else form = jsonForm(place, name, about);
}

function photoForm(place, name) {
  const input = element('input', { type: 'file', id: 'try-file', accept: 'image/*' });
  const drop = element('div', { id: 'drop' }, element('label', { for: 'try-file' }, 'Drop a photo here, or choose one: '), input);
  let file = null;
  input.addEventListener('change', () => { file = input.files[0] ?? null; });
  drop.addEventListener('dragover', (event) => { event.preventDefault(); drop.classList.add('over'); });
  drop.addEventListener('dragleave', () => drop.classList.remove('over'));
  drop.addEventListener('drop', (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    file = event.dataTransfer.files[0] ?? null;
    byId('try').requestSubmit();
  });
  place.replaceChildren(drop);
  return () => {
    if (!file) throw new Error('choose a photo first');
    return ask(`v2/models/${encodeURIComponent(name)}/infer`, { method: 'POST', body: file, headers: { 'content-type': 'application/octet-stream' } });
  };
}

function textForm(place, name, about) {
  const area = element('textarea', { id: 'try-text', rows: 3 });
  area.value = 'what a lovely film';
  place.replaceChildren(element('label', { for: 'try-text' }, 'Text'), area);
  const isLanguage = about.platform?.includes('causal_lm');
  return () => send(name, isLanguage ? 'generate' : 'infer', isLanguage
    ? { text_input: area.value, parameters: { max_tokens: 64 } }
    : { inputs: [{ name: about.inputs[0].name, datatype: 'BYTES', shape: [1], data: [area.value] }] });
}

function jsonForm(place, name, about) {
  const inputs = (about.inputs ?? []).map((each) => {
    const shape = each.shape.map((size) => (Number(size) < 0 ? 1 : Number(size)));
    const count = Math.min(shape.reduce((product, size) => product * size, 1), 4096);
    const empty = { BYTES: '', BOOL: false }[each.datatype] ?? 0;
    return { name: each.name, datatype: each.datatype, shape, data: Array(count).fill(empty) };
  });
  const area = element('textarea', { id: 'try-json', rows: 6, spellcheck: 'false' });
  area.value = JSON.stringify({ inputs });
  place.replaceChildren(element('label', { for: 'try-json' }, 'Request as JSON'), area);
  return () => send(name, 'infer', JSON.parse(area.value));
}

const send = (name, verb, body) => ask(`v2/models/${encodeURIComponent(name)}/${verb}`, {
  method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } });

function tell(error) { byId('try-answer').textContent = `error: ${error.message}`; }

byId('try-model').addEventListener('change', () => choose().catch(tell));
byId('try').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    const began = performance.now();
    const answer = await form();
    const said = await answer.json();
    const ms = performance.now() - began;
    byId('try-answer').textContent = `${ms.toFixed(0)} ms\n${JSON.stringify(said, null, 1).slice(0, 20000)}`;
  } catch (error) { tell(error); }
});
byId('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem('squadron-key', byId('key').value);
  byId('key-form').hidden = true;
  refresh();
});

async function forever() {
  await refresh().catch((error) => showState(null, error));
  setTimeout(forever, document.hidden ? 5 * PERIOD_MS : PERIOD_MS);
}
forever();
