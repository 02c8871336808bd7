// What is shown where, and where it comes from.

const SILENCE_MS = 5_000;
const AGAIN_MS = 2_000;
const MESSAGES = 100;

const at = id => document.getElementById(id);
const state = { samples: [], messages: [], report: null, heard: 0 };
const charts = {
  throughput: new Chart(at("throughput"), linear, perSecond),
  latency: new Chart(at("latency"), logarithmic, latency),
  waiting: new Chart(at("waiting"), linear, files),
};

function showReport(report) {
  state.report = report;
  const daemon = report.daemon;
  at("daemon").textContent = `${daemon.software} on ${location.hostname}, up ${duration(daemon.uptime_s)}, engine ${daemon.engine}`;
  const errors = report.problems.filter(problem => problem.severity === "error").length;
  const warnings = report.problems.filter(problem => problem.severity === "warning").length;
  document.title = (errors ? `(${errors}) ` : warnings ? "(!) " : "") + "ppu-uringd";
  showAttention(report.problems);
  at("cards").replaceChildren(...report.detectors.map(detectorCard), ...report.storages.map(storageCard));
  at("fills").replaceChildren(...report.fills.filter(fill => fill.total_bytes > 0).map(fillLine));
  showShifts(report.shifts);
}

function showAttention(problems) {
  const key = JSON.stringify(problems);
  // Said again only when it changes, for those who have it read to them.
  if (key === state.attention) return;
  state.attention = key;
  const line = problem => make("p", problem.severity, make("b", "", problem.severity.toUpperCase()), problem.text);
  const well = problems.every(problem => problem.severity === "advice") ? [make("p", "good", "All well.")] : [];
  at("attention").replaceChildren(...well, ...problems.map(line));
}

function card(kind, level, name, word, where, rows) {
  const list = make("dl", "");
  for (const [term, value] of rows) list.append(make("dt", "", term), make("dd", "", value));
  const card = make("article", `card ${level}`, make("h3", "", name, make("span", "state", word)), make("p", "where", where), list);
  card.dataset.kind = kind;
  card.dataset.name = name;
  return card;
}

function detectorCard(detector) {
  const level = { connected: "good", connecting: "warning", refused: "error" }[detector.link.state];
  const rate = `${detector.rate.files_per_s.toFixed(0)} files/s, ${perSecond(detector.rate.bytes_per_s)}`;
  const rows = [["rate", rate], ["backlog", amount(detector.backlog)], ["landed", amount(detector.landed)]];
  if (detector.released.files) rows.push(["released", amount(detector.released)]);
  if (detector.held) rows.push(["held", detector.held]);
  if (detector.integrity_errors) rows.push(["damaged on the way", detector.integrity_errors]);
  rows.push(["clock", offset(detector.clock_offset_ms)]);
  return card("detector", level ?? "warning", detector.id, detector.link.state, `detector, ${detector.address}`, rows);
}

function storageCard(storage) {
  const health = storage.health.state;
  const level = { ok: "good", slow: "warning" }[health] ?? "error";
  const rate = `${storage.rate.files_per_s.toFixed(0)} files/s, ${perSecond(storage.rate.bytes_per_s)}`;
  const rows = [["rate", rate], ["pending", storage.pending], ["in flight", storage.in_flight], ["stored", amount(storage.stored)]];
  return card("storage", level, storage.id, health, `${storage.kind} storage, ${storage.target}`, rows);
}

function amount({ files, bytes: size }) {
  return files ? `${files} (${bytes(size)})` : "0";
}

function fillLine(fill) {
  const ratio = 1 - fill.free_bytes / fill.total_bytes;
  const level = ratio >= 0.95 ? "error" : ratio >= 0.8 ? "warning" : "";
  const name = fill.of === "ramdisk" ? "PPU's ramdisk" : fill.of === "detector" ? `${fill.name}'s ramdisk` : fill.name;
  const soon = fill.full_in_s === null ? "" : `full in ${duration(fill.full_in_s)} at this rate`;
  const text = make("span", "text", `${(100 * ratio).toFixed(0)} %, ${bytes(fill.free_bytes)} of ${bytes(fill.total_bytes)} free`);
  if (soon) text.append(", ", make("span", fill.full_in_s < 300 ? "soon" : "", soon));
  const bar = svg("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img", "aria-label": `${(100 * ratio).toFixed(0)} % full` },
    svg("rect", { class: "track", width: 100, height: 8 }), svg("rect", { class: `bar ${level}`, width: 100 * ratio, height: 8 }));
  const line = make("div", "fill", make("span", "of", name), bar, text);
  line.dataset.of = fill.of;
  line.dataset.name = fill.name;
  return line;
}

function showShifts(shifts) {
  const head = ["began", "user", "storage", "pending", "copied", "failed", "superseded", "lost", "produced"];
  const rows = [...shifts].reverse().slice(0, 20).flatMap((shift, n) => shift.storages.map(copies => {
    const cell = key => make("td", copies[key] && (key === "failed" || key === "lost") ? "error" : "", copies[key]);
    const row = make("tr", n ? "" : "current", make("td", "", time(shift.start_ms)), make("td", "", `${shift.uid}:${shift.gid}`),
      make("td", "", copies.storage), ...head.slice(3).map(cell));
    row.dataset.storage = copies.storage;
    return row;
  }));
  at("shifts").replaceChildren(make("tr", "", ...head.map(title => make("th", "", title))), ...rows);
}

function showMessages() {
  const line = told => make("li", "", make("time", "", time(told.at_ms)), make("b", "", told.code), told.short, make("p", "", told.long));
  const lines = state.messages.slice(-MESSAGES).reverse().map(line);
  at("messages").replaceChildren(...(lines.length ? lines : [make("li", "", "None so far.")]));
}

function showCharts() {
  const { report, samples } = state;
  if (!report) return;
  const sum = (list, value) => list.reduce((all, one) => all + value(one), 0);
  const storages = (name, value) => report.storages.map((storage, n) =>
    ({ name: `${name} ${storage.id}`, value: sample => sample.storages[n] ? value(sample.storages[n]) : null }));
  const taken = times => times.files ? times.p99_us : null;
  charts.throughput.draw(samples, [
    { name: "landed", value: sample => sum(sample.detectors, detector => detector.landed.bytes_per_s) },
    ...storages("stored", storage => storage.stored.bytes_per_s),
  ]);
  charts.latency.draw(samples, [
    { name: "visible", value: sample => taken(sample.visible) },
    ...storages("stored", storage => taken(storage.times)),
  ]);
  charts.waiting.draw(samples, [
    { name: "on detectors", value: sample => sum(sample.detectors, detector => detector.backlog) },
    ...storages("pending", storage => storage.pending),
  ]);
}

function addSamples(samples) {
  const known = new Set(state.samples.map(sample => sample.at_ms));
  state.samples.push(...samples.filter(sample => !known.has(sample.at_ms)));
  state.samples.sort((a, b) => a.at_ms - b.at_ms);
  state.samples.splice(0, state.samples.length - 600);
}

function live(on) {
  const silent = Math.round((Date.now() - state.heard) / 1000);
  at("live").className = on ? "on" : "off";
  at("live").textContent = on ? "live" : state.heard ? `no news for ${duration(silent)}: is the daemon running?` : "the daemon does not answer";
  document.body.classList.toggle("stale", !on && state.heard > 0);
}

function heard() {
  state.heard = Date.now();
  live(true);
}

async function start() {
  try {
    const history = await (await fetch("/api/v1/history")).json();
    state.samples = [];
    addSamples(history.samples);
  } catch {
    live(false);
    setTimeout(start, AGAIN_MS);
    return;
  }
  const events = new EventSource("/api/v1/events");
  events.addEventListener("status", event => {
    heard();
    showReport(JSON.parse(event.data));
    showCharts();
  });
  events.addEventListener("sample", event => addSamples([JSON.parse(event.data)]));
  events.addEventListener("message", event => {
    if (!event.data) return;
    const told = JSON.parse(event.data);
    if (state.messages.some(known => known.number === told.number)) return;
    state.messages.push(told);
    state.messages.splice(0, state.messages.length - MESSAGES);
    showMessages();
  });
  // The browser tries again by itself, unless it was refused.
  events.addEventListener("error", () => {
    live(false);
    if (events.readyState !== EventSource.CLOSED) return;
    setTimeout(start, AGAIN_MS);
  });
}

setInterval(() => {
  if (Date.now() - state.heard > SILENCE_MS) live(false);
}, 1000);
showMessages();
start();
