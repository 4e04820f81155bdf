// The dashboard: reads the gateway's events, and draws them. No library, and nothing from elsewhere.

const $ = (id) => document.getElementById(id);

/** Makes an element: `make("p", {class: "sub"}, "text", child…)`. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Makes an element of SVG. */
function draw(name, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function say(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

// --- numbers in words ---------------------------------------------------------------------------------------------------

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const number = (value) => (value === null || value === undefined ? "–" : Math.abs(value) < 10000 ? whole.format(value) : compact.format(value));
const rate = (value) => (value === null || value === undefined ? "–" : value >= 100 ? number(value) : value >= 10 ? value.toFixed(1) : value ? value.toFixed(value < 0.1 ? 2 : 1) : "0");
const percent = (share) => (share === null ? "–" : share === 1 || share === 0 ? `${share * 100}` : (Math.floor(share * 1000) / 10).toFixed(1));
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** Returns a duration as value and unit. */
function duration(seconds) {
  if (seconds === null || seconds === undefined) return ["–", "s"];
  if (seconds < 0.0095) return [String(Number((seconds * 1000).toPrecision(2))), "ms"];
  if (seconds < 0.9995) return [whole.format(seconds * 1000), "ms"];
  if (seconds < 9.995) return [seconds.toFixed(2), "s"];
  if (seconds < 99.95) return [seconds.toFixed(1), "s"];
  return [(seconds / 60).toFixed(seconds < 6000 ? 1 : 0), "min"];
}
const lasting = (seconds) => duration(seconds).join(" ");

function dollars(value) {
  if (!value) return "0";
  if (value >= 1000) return number(value);
  return value >= 1 ? value.toFixed(2) : value >= 0.001 ? value.toFixed(4) : value.toExponential(1);
}

function span(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

function bytes(value) {
  if (value === null || value === undefined) return "–";
  const unit = value < 1024 ? "B" : value < 1048576 ? "KiB" : "MiB";
  const size = value / { B: 1, KiB: 1024, MiB: 1048576 }[unit];
  return `${size < 10 && unit !== "B" ? size.toFixed(1) : whole.format(size)} ${unit}`;
}

const UNITS = { requests: "requests", tokens: "tokens", input_tokens: "input tokens", output_tokens: "output tokens", cost: "US$", concurrent_requests: "in flight", max_batch: "batch", max_waiting: "waiting" };

/** Returns the name of a limit as people say it: `requests_per_minute` is "requests / min". */
function limitName(name) {
  const [what, per] = name.split("_per_");
  const unit = UNITS[what] ?? what.replaceAll("_", " ");
  return per ? `${unit} / ${{ minute: "min", second: "s" }[per] ?? per}` : unit;
}

const clockTime = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

// --- theme --------------------------------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];

function showTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  say("theme-text", theme[0].toUpperCase() + theme.slice(1));
  $("theme").setAttribute("aria-label", `Colours: ${theme}`);
}

let theme = THEMES.includes(localStorage.getItem("manifold-theme")) ? localStorage.getItem("manifold-theme") : "auto";
showTheme(theme);
$("theme").addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  localStorage.setItem("manifold-theme", theme);
  showTheme(theme);
});

// --- the key, in this tab alone -----------------------------------------------------------------------------------------

const KEY = "manifold-key";
const withKey = () => (sessionStorage.getItem(KEY) ? { authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {});

function askForKey(why) {
  forget();
  leaveNothing();
  $("gate").hidden = false;
  $("main").hidden = $("skip").hidden = $("leave").hidden = true;
  say("about", "");
  say("gate-wrong", why);
  link("over", "Signed out");
  $("gate-key").focus();
}

$("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("gate-key").value.trim();
  $("gate-key").value = "";
  if (!/^[!-~]+$/.test(key)) return askForKey("This gateway does not take that key."); // a header cannot hold it
  sessionStorage.setItem(KEY, key);
  connect();
});
$("leave").addEventListener("click", () => {
  reading?.abort();
  reading = null;
  sessionStorage.removeItem(KEY);
  askForKey("");
});

// --- the stream ---------------------------------------------------------------------------------------------------------

const SILENCE = 6000; // milliseconds after which a stream that says nothing is taken for lost
const AWAY = 60000; // milliseconds after which a page that nobody sees lets go
const state = { hello: null, points: [], calls: [] };
let reading = null;
let attempts = 0;
let heard = 0;
let resting = false; // whether it let go because nobody saw the page
let retryTimer = 0;
let awayTimer = 0;

function forget() {
  state.hello = null;
  state.points = [];
  state.calls = [];
  for (const name of Object.keys(state)) if (!["hello", "points", "calls"].includes(name)) delete state[name];
  $("calls").replaceChildren();
  if (held.on) hold(false);
}

function link(kind, text) {
  const changed = $("link").dataset.state !== kind;
  $("link").dataset.state = kind;
  say("link-text", text);
  $("main").classList.toggle("stale", kind !== "live");
  if (changed && (kind === "lost" || (kind === "live" && attempts))) say("told", kind === "live" ? "The figures are live again." : "Connection lost; the figures are old.");
}

async function connect() {
  clearTimeout(retryTimer);
  resting = false;
  reading?.abort();
  const mine = (reading = new AbortController());
  const watchdog = setInterval(() => {
    if (performance.now() - heard > SILENCE) mine.abort();
  }, 1000);
  heard = performance.now();
  let again = true;
  try {
    const answer = await fetch("/dashboard/events", { headers: withKey(), signal: mine.signal, cache: "no-store" });
    if (answer.ok) again = await read(answer.body, mine.signal);
    else again = await refused(answer);
  } catch {
    // no connection, or none any more
  } finally {
    clearInterval(watchdog);
  }
  if (!again || mine !== reading) return;
  if (document.hidden) resting = true;
  else wait();
}

/** Reads events until they end; returns whether to come back. */
async function read(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done || signal.aborted) return true;
    heard = performance.now();
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = JSON.parse(event.slice(event.indexOf("data: ") + 6));
      if (event.startsWith("event: end")) return ended(data.why);
      take(data);
    }
  }
}

function ended(why) {
  if (why === "key") sessionStorage.removeItem(KEY), askForKey("The key is not valid any more.");
  if (why === "off") link("over", "The dashboard was switched off");
  return why === "restart";
}

async function refused(answer) {
  if (answer.status === 401 || answer.status === 403) {
    const failure = await answer.json().catch(() => null);
    const tried = sessionStorage.getItem(KEY) !== null;
    sessionStorage.removeItem(KEY);
    askForKey(tried ? "This gateway does not take that key." : answer.status === 403 ? failure?.error?.message ?? "" : "");
    return false;
  }
  if (answer.status === 404) {
    link("over", "The dashboard is switched off");
    return false;
  }
  return true;
}

function wait() {
  const seconds = Math.min(10, 2 ** attempts);
  attempts += 1;
  const due = performance.now() + seconds * 1000;
  const tell = () => {
    const left = Math.ceil((due - performance.now()) / 1000);
    const old = state.points.length ? ` · figures of ${clockTime(state.points.at(-1)[0])}` : "";
    link("lost", left > 0 ? `Connection lost, again in ${left} s${old}` : `Connection lost, trying again${old}`);
    if (left > 0) retryTimer = setTimeout(tell, 500);
    else connect();
  };
  tell();
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(awayTimer);
  if (document.hidden) awayTimer = setTimeout(() => reading?.abort(), AWAY);
  else if (resting) connect();
});
addEventListener("online", () => $("link").dataset.state === "lost" && connect());

const POINTS = 300;
const CALLS = 240;

function take(data) {
  const { points = [], calls = [], ...sections } = data;
  if (data.hello) {
    const other = state.hello && state.hello.worker !== data.hello.worker;
    forget();
    if (other) say("told", `Another worker answers now: ${data.hello.worker}.`);
  }
  Object.assign(state, sections);
  state.points = [...state.points, ...points].slice(-POINTS);
  if (data.hello) greet();
  link("live", "Live");
  attempts = 0;
  render(data);
  addCalls(calls);
}

function greet() {
  const { key, operator } = state.hello;
  $("gate").hidden = true;
  $("main").hidden = $("skip").hidden = false;
  $("leave").hidden = key === null;
  $("tile-cost").hidden = !operator;
  const alone = state.hello.alone ? "" : ` Several workers serve this gateway, each with figures of its own: these are those of worker ${state.hello.worker}.`;
  const whose = operator ? "" : ` Calls are those of the user ${state.hello.user}; an operator's key shows all.`;
  say("foot", `Rates and latencies look back ten seconds, charts five minutes; all else counts from the start.${alone}${whose} No prompt, answer or key is shown here.`);
  if (!$("try-model").options.length) listModels();
}

// --- what is drawn each second ------------------------------------------------------------------------------------------

function render(changed) {
  const now = state.points.at(-1)?.[0] ?? Date.now() / 1000;
  const { worker, version, started, key } = state.hello;
  say("about", `${state.hello.alone ? "" : `worker ${worker} · `}up ${span(now - started)}${version.includes("+") ? "" : ` · ${version}`}${key ? ` · ${key}` : ""}`);
  renderTiles();
  renderKeys(now);
  for (const chart of charts) chart.show(state.points);
  if (changed.errors) renderErrors();
  if (changed.models) renderModels();
  renderBreakers();
  if (changed.cache) renderCache();
  renderEngine();
}

function renderTiles() {
  const { rates, totals, cost, cache } = state;
  const ended = totals.answered + totals.failed + totals.cancelled;
  say("t-rate", rate(rates.calls));
  say("t-rate-sub", `${plural(ended, "call")} in all`);
  say("t-success", percent(rates.success ?? (totals.answered + totals.failed ? totals.answered / (totals.answered + totals.failed) : null)));
  say("t-success-sub", totals.failed ? `${number(totals.failed)} failed, ${plural(totals.retries, "retry", "retries")}` : `none failed, ${plural(totals.retries, "retry", "retries")}`);
  const [p50, unit] = duration(rates.p50);
  say("t-p50", p50);
  say("t-p50-unit", unit);
  say("t-p95", `p95 ${lasting(rates.p95)}`);
  say("t-tokens", rate(rates.output));
  say("t-tokens-sub", `${rate(rates.input)} in /s, ${number(totals.input + totals.output)} in all`);
  if (cost) {
    say("t-cost", dollars(cost.total));
    say("t-cost-sub", cost.saved ? `${dollars(cost.saved)} saved by cache` : "where prices are known");
  }
  const found = cache.hits + cache.followers + cache.semantic_hits;
  const asked = found + cache.misses;
  say("t-cache", cache.backend === "none" ? "–" : percent(asked ? found / asked : null));
  say("t-cache-sub", cache.backend === "none" ? "nothing is cached" : `${number(found)} of ${plural(asked, "call")}`);
  const [, waiting, running] = state.points.at(-1) ?? [0, 0, 0];
  say("t-queue", number(waiting));
  say("t-queue-sub", `${number(running)} in flight`);
}

// --- keys ---------------------------------------------------------------------------------------------------------------

const FEW = 10; // keys that are shown unasked
const NEAR = 0.9;
let allKeys = false;
let keysShape = "";
const keyParts = new Map();
const lastStates = new Map();

const STATES = { available: ["", "Available"], cooling: ["wait", "Resting"], out_of_credit: ["bad", "Out of credit"], rejected: ["bad", "Refused"] };

/** Groups a key's models that share their limits, so that each limit is one bar. */
function shared(limits) {
  const groups = new Map();
  for (const [model, of] of Object.entries(limits)) {
    const same = JSON.stringify(of);
    if (!groups.has(same)) groups.set(same, { models: [], limits: of });
    groups.get(same).models.push(model);
  }
  return [...groups.values()];
}

function fullest(key) {
  return Math.max(0, ...Object.values(key.limits).flatMap((of) => of.map(([, share]) => share)));
}

function renderKeys(now) {
  const providers = state.providers.map((name) => [name, state[`provider ${name}`]]);
  const count = providers.reduce((sum, [, told]) => sum + told.keys.length, 0);
  const ready = providers.reduce((sum, [, told]) => sum + told.keys.filter((key) => key.state === "available").length, 0);
  say("keys-hint", `${ready} of ${plural(count, "key")} available`);
  $("keys-more").hidden = count <= FEW;
  say("keys-more", allKeys ? "Show fewer" : `Show all ${count}`);
  let room = allKeys ? Infinity : FEW;
  const shown = providers.map(([name, told]) => {
    const keys = told.keys.slice(0, Math.max(0, room));
    room -= keys.length;
    return [name, told, keys];
  });
  const shape = JSON.stringify(shown.map(([name, , keys]) => [name, keys.map((key) => [key.key, shared(key.limits).map((group) => [group.models, group.limits.map(([limit]) => limit)])])]));
  if (shape !== keysShape) buildKeys(shown, shape);
  for (const [name, told, keys] of shown) {
    const fresh = keyParts.get(name);
    const flight = told.keys.reduce((sum, key) => sum + key.calls, 0);
    fresh.textContent = `${told.health} · ${number(flight)} in flight · ${number(told.waiting)} waiting`;
    for (const key of keys) updateKey(name, key, now);
  }
  tellStates(providers);
}

function buildKeys(shown, shape) {
  keysShape = shape;
  keyParts.clear();
  $("keys").replaceChildren(...shown.filter(([, , keys]) => keys.length).map(([name, , keys]) => {
    const standing = make("span");
    keyParts.set(name, standing);
    return make("div", { class: "provider" }, make("h3", {}, name, standing), ...keys.map((key) => buildKey(name, key)));
  }));
  for (const [name, , keys] of shown) if (!keys.length) keyParts.set(name, make("span"));
}

function buildKey(name, key) {
  const parts = { badge: make("span", { class: "badge" }), sub: make("span", { class: "sub" }), why: make("p", { class: "why", hidden: "" }), bars: [] };
  keyParts.set(`${name} ${key.key}`, parts);
  const groups = shared(key.limits);
  const limits = make("div", { class: "limits" });
  for (const group of groups) {
    if (groups.length > 1 && group.limits.length) limits.append(make("p", { class: "of" }, group.models.join(", ")));
    for (const [limit] of group.limits) {
      const figure = make("b");
      const fill = make("i");
      const bar = make("div", { class: "bar", role: "meter", "aria-label": `${limitName(limit)} of ${key.key}`, "aria-valuemin": "0", "aria-valuemax": "100" }, fill);
      limits.append(make("div", { class: "limit" }, make("div", { class: "what" }, make("span", {}, limitName(limit)), figure), bar));
      parts.bars.push({ figure, fill, bar, model: group.models[0], limit });
    }
  }
  if (!parts.bars.length) limits.append(make("p", { class: "hint" }, "No limit is stated or learned yet."));
  return make("div", { class: "slot" }, make("div", { class: "name" }, make("span", { class: "mono" }, key.key), parts.badge, parts.sub), limits, parts.why);
}

function updateKey(name, key, now) {
  const parts = keyParts.get(`${name} ${key.key}`);
  const left = key.until === null ? 0 : Math.max(0, key.until - now);
  const [kind, word] = STATES[key.state] ?? ["dim", key.state];
  parts.badge.className = `badge ${kind}`;
  parts.badge.textContent = key.state === "cooling" && left ? `${word} ${span(left)}` : word;
  const models = Object.keys(key.limits);
  parts.sub.textContent = `${models.length > 2 ? plural(models.length, "model") : models.join(", ")} · ${number(key.calls)} in flight`;
  const why = state.reasons?.[`${name} ${key.key}`];
  const out = key.forbidden.length ? `Not for ${key.forbidden.join(", ")}.` : "";
  parts.why.hidden = !(why || out);
  parts.why.textContent = [out, why].filter(Boolean).join(" ");
  for (const { figure, fill, bar, model, limit } of parts.bars) {
    const [, share, most] = (key.limits[model] ?? []).find(([known]) => known === limit) ?? [limit, 0, null];
    const used = most === null ? `${Math.round(share * 100)} %` : `${number(Math.round(share * most))} of ${number(most)}`;
    figure.textContent = share >= 0.995 ? `full, ${used}` : used;
    fill.style.width = `${share * 100}%`;
    bar.classList.toggle("near", share >= NEAR);
    bar.setAttribute("aria-valuenow", Math.round(share * 100));
    bar.setAttribute("aria-valuetext", used);
  }
}

/** Tells of keys that leave or come back, once each. */
function tellStates(providers) {
  for (const [name, told] of providers) {
    for (const key of told.keys) {
      const id = `${name} ${key.key}`;
      const before = lastStates.get(id);
      const out = key.state !== "available" && key.state !== "cooling";
      if (before !== undefined && before !== out) say("told", `${key.key} of ${name}: ${STATES[key.state]?.[1] ?? key.state}.`);
      lastStates.set(id, out);
    }
  }
}

$("keys-more").addEventListener("click", () => {
  allKeys = !allKeys;
  $("keys-more").setAttribute("aria-expanded", `${allKeys}`);
  renderKeys(state.points.at(-1)?.[0] ?? 0);
});

// --- charts -------------------------------------------------------------------------------------------------------------

const SECONDS = 300;
const GAP = 10; // seconds without a point that a curve does not cross
const [WIDTH, HEIGHT] = [600, 100];

/** Returns a round number at or above a value, whose half is round as well. */
function ceiling(value) {
  const step = 10 ** Math.floor(Math.log10(value));
  return (step === 1 ? [1, 2, 4, 6, 8, 10] : [1, 2, 3, 4, 5, 6, 8, 10]).find((factor) => factor * step >= value * 0.999) * step;
}

class Chart {
  /** `curves`: name, class of its hue, column of a point, whether the space under it is filled. */
  constructor(id, curves, words, least) {
    this.words = words;
    this.least = least;
    this.at = null;
    this.points = [];
    this.title = $(id).querySelector("h2").textContent;
    this.svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    for (const y of [0, HEIGHT / 2, HEIGHT]) this.svg.append(draw("line", { class: "rule", x1: 0, x2: WIDTH, y1: y, y2: y }));
    this.hair = draw("line", { class: "hair", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.curves = curves.map(([name, hue, column, filled]) => {
      const under = filled ? draw("path", { class: `under ${hue}` }) : null;
      const curve = draw("path", { class: `curve ${hue}` });
      const value = make("dd");
      $(id).querySelector(".legend").append(make("div", { class: hue }, make("dt", {}, name), value));
      this.svg.append(...(under ? [under, curve] : [curve]));
      return { name, column, under, curve, value };
    });
    this.svg.append(this.hair);
    this.ticks = [0, 50, 100].map((share) => {
      const tick = make("span", { class: "tick", "aria-hidden": "true" });
      tick.style.top = `calc((100% - 18px) * ${share / 100})`;
      return tick;
    });
    this.from = make("span", { class: "time from", "aria-hidden": "true" });
    this.to = make("span", { class: "time to", "aria-hidden": "true" });
    const plot = make("div", { class: "plot" }, ...this.ticks, this.from, this.to);
    plot.append(this.svg);
    $(id).append(plot);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    this.at = event === null ? null : (event.clientX - box.left) / box.width;
    this.read();
  }

  show(points) {
    this.points = points;
    const end = points.at(-1)?.[0] ?? 0;
    const highest = Math.max(0, ...points.flatMap((point) => this.curves.map(({ column }) => point[column] ?? 0)));
    const top = ceiling(Math.max(highest, this.least));
    const x = (point) => WIDTH * (1 - (end - point[0]) / SECONDS);
    const y = (value) => HEIGHT * (1 - value / top);
    for (const { column, under, curve } of this.curves) {
      const runs = [];
      let before = -Infinity;
      for (const point of points) {
        if (point[column] === null || x(point) < 0) continue;
        if (point[0] - before > GAP) runs.push([]);
        runs.at(-1).push([x(point).toFixed(1), y(point[column]).toFixed(1)]);
        before = point[0];
      }
      const lines = runs.map((run) => run.map((pair) => pair.join(" ")).join("L"));
      curve.setAttribute("d", lines.map((line) => `M${line}`).join(""));
      under?.setAttribute("d", runs.map((run, index) => `M${run[0][0]} ${HEIGHT}L${lines[index]}L${run.at(-1)[0]} ${HEIGHT}Z`).join(""));
    }
    this.ticks.forEach((tick, index) => (tick.textContent = this.words(top * (1 - index / 2), true)));
    this.read();
    this.svg.setAttribute("aria-label", `${this.title}, the last five minutes: ${this.curves.map(({ name, value }) => `${name} ${value.textContent}`).join(", ")} now; the most was ${this.words(highest)}`);
  }

  /** Shows the values of now, or where the pointer is. */
  read() {
    const last = this.points.at(-1);
    if (!last) return;
    const wanted = this.at === null ? last[0] : last[0] - SECONDS * (1 - this.at);
    const near = this.points.reduce((best, point) => (Math.abs(point[0] - wanted) < Math.abs(best[0] - wanted) ? point : best), last);
    for (const { column, value } of this.curves) value.textContent = near[column] === null ? "–" : this.words(near[column]);
    const x = WIDTH * (1 - (last[0] - near[0]) / SECONDS);
    this.hair.setAttribute("x1", x);
    this.hair.setAttribute("x2", x);
    this.hair.setAttribute("visibility", this.at === null ? "hidden" : "visible");
    this.from.textContent = "5 min ago";
    this.to.textContent = this.at === null ? "now" : clockTime(near[0]);
  }
}

/** Returns a duration in words; on an axis without the zeros that nobody needs. */
const axisTime = (value, axis) => (axis ? (value === 0 ? "0" : value < 1 ? `${+(value * 1000).toPrecision(3)} ms` : `${+value.toPrecision(3)} s`) : lasting(value));
const charts = [
  new Chart("c-queue", [["Waiting", "hue-amber", 1, true], ["In flight", "hue-accent", 2, false]], (value) => number(value), 4),
  new Chart("c-latency", [["p50", "hue-accent", 5, true], ["p95", "hue-violet", 6, false]], axisTime, 0.1),
  new Chart("c-tokens", [["Out", "hue-teal", 7, true]], (value) => rate(value), 10),
];

// --- the side -----------------------------------------------------------------------------------------------------------

/** Fills a list of bars from `[label, count, text]`. */
function bars(list, rows, empty) {
  const most = Math.max(1, ...rows.map(([, count]) => count));
  list.replaceChildren(...rows.map(([label, count, text]) => {
    const fill = make("i");
    fill.style.width = `${(100 * count) / most}%`;
    return make("li", {}, make("span", { class: "label", title: label }, label), make("span", { class: "count" }, make("b", {}, number(count)), text), make("div", { class: "bar", "aria-hidden": "true" }, fill));
  }));
  if (!rows.length) list.append(make("li", { class: "empty" }, empty));
}

function renderErrors() {
  const rows = Object.entries(state.errors).sort(([, a], [, b]) => b - a);
  $("errors").classList.add("red");
  say("errors-hint", rows.length ? plural(rows.reduce((sum, [, count]) => sum + count, 0), "call") : "");
  bars($("errors"), rows.map(([name, count]) => [name.replace(/^LLM|Error$/g, "").replace(/(?<=[a-z])(?=[A-Z])/g, " "), count, ""]), "None since the start.");
}

function renderModels() {
  bars($("models"), state.models.map(({ model, calls, output, pace }) => [model, calls, ` calls · ${number(output)} tokens${pace ? ` · ${rate(pace)}/s` : ""}`]), "No model was asked yet.");
}

const CIRCUITS = { closed: ["", "Closed"], open: ["bad", "Open"], half_open: ["wait", "Half open"] };

function renderBreakers() {
  const rows = state.providers.flatMap((name) => Object.entries(state[`provider ${name}`].breakers).map(([model, told]) => [name, model, told]));
  const open = rows.filter(([, , told]) => told.state !== "closed");
  const shown = open.length ? open : rows.slice(0, 4);
  say("breakers-hint", rows.length ? `${rows.length - open.length} of ${rows.length} closed` : "");
  $("breakers").replaceChildren(...shown.map(([name, model, told]) => {
    const [kind, word] = CIRCUITS[told.state] ?? ["dim", told.state];
    const left = told.retry_after ? ` ${span(told.retry_after)}` : "";
    const failing = told.attempts ? ` ${Math.round(100 * told.failure_rate)} % of ${told.attempts} failed` : "";
    return make("li", {}, make("span", { class: "label", title: `${name}/${model}` }, model, make("small", {}, failing)), make("span", { class: `badge ${kind}` }, word + left));
  }));
  if (!rows.length) $("breakers").append(make("li", { class: "empty" }, "None: circuit_breaker is not configured."));
}

function facts(list, rows) {
  list.replaceChildren(...rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function renderCache() {
  const { cache, cost } = state;
  say("cache-hint", cache.backend === "none" ? "" : cache.backend);
  if (cache.backend === "none") {
    $("cache").replaceChildren(make("p", { class: "empty" }, "Nothing is cached: the configuration has no cache."));
    return;
  }
  const rows = [["Hits", number(cache.hits)], ["Shared", number(cache.followers)], ["Misses", number(cache.misses)], ["Entries", number(cache.entries)], ["Size", bytes(cache.bytes)], ["Tokens saved", number(cache.tokens_saved)]];
  if (cache.semantic_hits) rows.splice(1, 0, ["Alike", number(cache.semantic_hits)]);
  if (cache.stale) rows.push(["Given stale", number(cache.stale)]);
  if (cache.errors) rows.push(["Failures", number(cache.errors)]);
  if (cost?.saved) rows.push(["US$ saved", dollars(cost.saved)]);
  facts($("cache"), rows);
}

function renderEngine() {
  const engines = state.providers.map((name) => [name, state[`provider ${name}`].engine]).filter(([, engine]) => engine);
  $("card-engine").hidden = !engines.length;
  if (!engines.length) return;
  const [name, engine] = engines[0];
  say("engine-hint", name);
  facts($("engine"), [
    ["Batch", `${number(engine.running)} of ${number(engine.max_batch)}`], ["Waiting", number(engine.waiting)], ["Tokens per s", rate(engine.tokens_per_second)],
    ["Made", number(engine.generated_tokens)], ["From memory", number(engine.cached_tokens)],
    ["Memory", engine.blocks_total ? `${Math.round((100 * engine.blocks_used) / engine.blocks_total)} %` : "–"],
  ]);
}

// --- recent calls -------------------------------------------------------------------------------------------------------

const [FEW_ROWS, MANY_ROWS] = [14, 60];
let rowsShown = FEW_ROWS;
const HUES = { queued: "amber", parked: "amber", paid: "accent", sent: "accent", answering: "accent", refused: "red", failed: "red", circuit_open: "red", ended: "green", settled: "teal", fell_back: "violet" };
const held = { on: false, missed: 0 };
let showing = "all";

const SHOWS = { all: () => true, waited: (call) => call.waited > 0, failed: (call) => call.outcome !== "answered" };

function addCalls(calls) {
  if (!calls.length && state.calls.length) return;
  state.calls = [...state.calls, ...calls].slice(-CALLS);
  if (held.on) {
    held.missed += calls.length;
    say("calls-hold", held.missed ? `Go on, ${held.missed} newer` : "Go on");
    return;
  }
  const rows = $("calls");
  for (const call of calls) if (SHOWS[showing](call)) rows.prepend(...callRows(call));
  trim();
}

function trim() {
  const rows = $("calls");
  while (rows.children.length > rowsShown) rows.lastElementChild.remove();
  $("calls-empty").hidden = rows.children.length > 0;
  $("calls-more").hidden = rowsShown === FEW_ROWS && rows.children.length < FEW_ROWS;
  const ways = [...rows.querySelectorAll(".span")];
  const longest = Math.max(0.001, ...ways.map((way) => Number(way.dataset.seconds)));
  for (const way of ways) way.style.width = `${Math.max(1.5, (100 * way.dataset.seconds) / longest)}%`;
  say("calls-empty", showing === "all" ? "No call has ended since this page was opened." : `None of late ${showing}.`);
}

function outcome(call) {
  if (call.outcome === "cancelled") return ["dim", "Cancelled"];
  if (call.outcome === "failed") return ["bad", call.error.replace(/^LLM|Error$/g, "").replace(/(?<=[a-z])(?=[A-Z])/g, " ")];
  if (call.cached) return ["hit", "From cache"];
  return call.sends > 1 ? ["wait", `Answered, try ${call.sends}`] : ["", "Answered"];
}

function callRows(call) {
  const [kind, word] = outcome(call);
  const at = clockTime(call.started + call.seconds);
  const fold = make("button", { class: "fold", type: "button", "aria-expanded": "false", "aria-label": `${at}, decision log of call ${call.number}` }, at);
  const queue = make("i", { class: "queue" });
  const share = call.seconds ? Math.min(1, call.waited / call.seconds) : 0;
  queue.style.width = `${share * 100}%`;
  const sent = make("i");
  sent.style.width = `${(1 - share) * 100}%`;
  const way = make("div", { class: "span", "data-seconds": call.seconds, role: "img", "aria-label": call.waited ? `waited ${lasting(call.waited)} of ${lasting(call.seconds)}` : "did not wait" }, ...(share ? [queue] : []), sent);
  const cell = (kind, ...content) => make("td", { class: kind, role: "cell" }, ...content);
  const row = make("tr", { class: "call", role: "row" },
    cell("", fold), cell("model", call.model ?? "–"), cell("who", call.user ?? "–"), cell("key", call.key ? call.key.replace(/^key-/, "") : "–"), cell("way", way),
    cell("num", lasting(call.seconds)), cell("num tok", call.tokens ? number(call.tokens[0] + call.tokens[1]) : "–"), cell("end", make("span", { class: `badge ${kind}` }, word)));
  row.querySelector(".model").title = `${call.provider}/${call.model}`;
  row.addEventListener("click", () => toggle(call, row, fold));
  return [row];
}

function toggle(call, row, fold) {
  const open = fold.getAttribute("aria-expanded") === "true";
  fold.setAttribute("aria-expanded", `${!open}`);
  if (open) {
    row.nextElementSibling?.remove();
    return;
  }
  hold(true);
  const log = make("ol", {}, ...call.log.map(([at, event, detail]) => {
    const item = make("li", { class: HUES[event] ? `hue-${HUES[event]}` : null }, make("time", {}, at < 0.0005 ? "0" : `+${lasting(at)}`), make("b", {}, event.replaceAll("_", " ")), make("span", {}, detail));
    return item;
  }));
  const meta = [`Call ${call.number}`, call.provider, call.user && `user ${call.user}`, call.key, call.tokens && `${number(call.tokens[0])} tokens in, ${number(call.tokens[1])} out`].filter(Boolean).join(" · ");
  row.after(make("tr", { class: "log", role: "row" }, make("td", { colspan: "8", role: "cell" }, make("p", { class: "meta" }, meta), log)));
}

function hold(on) {
  held.on = on;
  held.missed = 0;
  $("calls-hold").setAttribute("aria-pressed", `${on}`);
  say("calls-hold", on ? "Go on" : "Pause");
  if (!on) showCalls();
}

function showCalls() {
  const rows = state.calls.filter(SHOWS[showing]).slice(-rowsShown).reverse();
  $("calls").replaceChildren(...rows.flatMap(callRows));
  trim();
}

$("calls-hold").addEventListener("click", () => hold(!held.on));
$("calls-more").addEventListener("click", () => {
  rowsShown = rowsShown === FEW_ROWS ? MANY_ROWS : FEW_ROWS;
  $("calls-more").setAttribute("aria-expanded", `${rowsShown === MANY_ROWS}`);
  say("calls-more", rowsShown === FEW_ROWS ? "Show more" : "Show fewer");
  showCalls();
});
for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", () => {
    showing = button.dataset.show;
    for (const other of document.querySelectorAll("[data-show]")) other.setAttribute("aria-pressed", `${other === button}`);
    showCalls();
  });
}

// --- try a model --------------------------------------------------------------------------------------------------------

let trying = null;

async function listModels() {
  const { hello } = state;
  try {
    const answer = await fetch("/v1/models", { headers: withKey() });
    const { data } = await answer.json();
    if (state.hello === hello) $("try-model").replaceChildren(...data.map(({ id, owned_by: owner }) => make("option", { value: id }, id.includes("/") || id === owner ? id : `${id}  ·  ${owner}`)));
  } catch {
    say("try-note", "The list of models did not come; reload the page.");
  }
}

function stopTrying() {
  trying?.abort();
}

/** Drops what was tried and seen with a key: another one may be next in this tab. */
function leaveNothing() {
  stopTrying();
  $("try-prompt").value = "";
  for (const id of ["try-model", "try-answer", "try-facts", "try-note", "keys", "t-cost", "t-cost-sub"]) $(id).replaceChildren();
  $("try-answer").className = "answer";
  keysShape = "";
}

async function tryIt() {
  const prompt = $("try-prompt").value.trim();
  if (!prompt || trying) return;
  const mine = (trying = new AbortController());
  const answer = $("try-answer");
  answer.textContent = "";
  answer.className = "answer going";
  $("try-facts").replaceChildren();
  $("try-send").disabled = true;
  $("try-stop").disabled = false;
  say("try-note", "Waiting for a key …");
  const seen = { began: performance.now(), first: null, last: null, pieces: 0, usage: null, reason: null, provider: null, cache: null };
  try {
    await stream(prompt, mine.signal, seen, answer);
    say("try-note", "Done.");
  } catch (error) {
    if (!mine.signal.aborted) answer.classList.add("wrong");
    if (!mine.signal.aborted) answer.append(error.message);
    seen.reason ??= mine.signal.aborted ? "stopped" : "failed";
    if (state.hello) say("try-note", mine.signal.aborted ? "Stopped." : "It failed.");
  }
  answer.classList.remove("going");
  trying = null;
  $("try-send").disabled = false;
  $("try-stop").disabled = true;
  if (state.hello) tellTried(seen);
}

async function stream(prompt, signal, seen, shown) {
  const most = Number.parseInt($("try-most").value, 10);
  const body = { model: $("try-model").value, messages: [{ role: "user", content: prompt }], stream: true, stream_options: { include_usage: true }, max_tokens: most > 0 ? most : 200 };
  const answer = await fetch("/v1/chat/completions", { method: "POST", headers: { "content-type": "application/json", ...withKey() }, body: JSON.stringify(body), signal });
  seen.provider = answer.headers.get("x-llm-provider");
  seen.cache = answer.headers.get("x-llm-cache");
  if (!answer.ok) {
    const failure = await answer.json().catch(() => null);
    throw new Error(failure?.error?.message ?? `status ${answer.status}`);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) hear(event, seen, shown);
  }
  if (seen.reason === null) throw new Error("The connection ended before the answer did.");
}

function hear(event, seen, shown) {
  const data = event.replace(/^data: /, "");
  if (!event.startsWith("data: ") || data === "[DONE]") return;
  const chunk = JSON.parse(data);
  if (chunk.error) throw new Error(chunk.error.message);
  if (chunk.usage) seen.usage = chunk.usage;
  const [choice] = chunk.choices ?? [];
  if (choice?.finish_reason) seen.reason = choice.finish_reason;
  if (!choice?.delta?.content) return;
  if (seen.first === null) say("try-note", "Streaming …");
  seen.first ??= performance.now();
  seen.last = performance.now();
  seen.pieces += 1;
  const low = shown.scrollHeight - shown.scrollTop - shown.clientHeight < 24;
  shown.append(choice.delta.content);
  if (low) shown.scrollTop = shown.scrollHeight;
}

function tellTried(seen) {
  const tokens = seen.usage?.completion_tokens ?? null;
  const seconds = seen.first === null ? 0 : (seen.last - seen.first) / 1000;
  facts($("try-facts"), [
    ["Ended by", seen.reason ?? "–"], ["First token", seen.first === null ? "–" : lasting((seen.first - seen.began) / 1000)],
    ["Tokens", tokens === null ? "–" : number(tokens)], ["Tokens per s", tokens > 1 && seconds > 0.05 ? rate((tokens - 1) / seconds) : "–"],
    ["Provider", seen.provider ?? "–"], ["Cache", seen.cache ?? "–"],
  ]);
}

$("try").addEventListener("submit", (event) => {
  event.preventDefault();
  tryIt();
});
$("try-stop").addEventListener("click", stopTrying);
$("try-prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    tryIt();
  }
});

connect();
