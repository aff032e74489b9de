// The page lives by one stream of events from the process.
"use strict";

const most = 60; // events on the page
const at = (id) => document.getElementById(id);

function showReport(report) {
  document.body.dataset.colour = report.colour;
  document.body.dataset.state = report.state;
  document.title = report.state + " · Walkey";
  at("state").textContent = report.state;
  at("sentence").textContent = report.sentence;
  at("reason").textContent = report.reason || "";
  // The first remark is the reason where there is no other.
  at("remarks").replaceChildren(...(report.remarks || []).filter((r) => r !== report.reason).map((r) => element("li", {}, r)));
  const process = report.process;
  at("who").textContent = `invalidator on ${process.host}, ${process.role} for ${format.seconds((Date.parse(report.at) - Date.parse(process.role_since)) / 1000)}`;
  at("version").textContent = process.version;
  showStream(report);
  showSlot(report);
  showValkey(report.valkey);
  at("apis").querySelector(".empty").textContent = report.valkey.up ? "None has said that it is there." : "Not known while Valkey is away: they say so there.";
  showAPIs(report.apis, report.at);
}

// facts fills a list with names and values; what has no value is left out.
function facts(list, rows) {
  list.replaceChildren(...rows.filter(([, value]) => value != null && value !== "").flatMap(([name, value, kind]) => [
    element("dt", {}, name), element("dd", kind ? { class: kind } : {}, ...[].concat(value)),
  ]));
}

function showStream({ stream, process, postgres }) {
  const lsn = (text) => text && element("code", {}, text);
  facts(at("stream"), [
    ["Postgres", postgres.up ? postgres.version : "does not answer", postgres.up ? null : "bad"],
    ["Server's log ends at", lsn(stream.wal_end_lsn)],
    ["Received", lsn(stream.received_lsn)],
    ["Deleted", lsn(stream.deleted_lsn)],
    ["Confirmed", lsn(stream.confirmed_lsn)],
    ["Lag", stream.lag_bytes == null ? null : format.bytes(stream.lag_bytes) + (stream.lag_seconds == null ? "" : ", " + format.seconds(stream.lag_seconds))],
    ["Not visible yet", stream.held ? format.plural(stream.held, "transaction") : null],
    ["Transactions", format.count(process.transactions)],
    ["Keys deleted", format.count(process.keys)],
  ]);
}

function showSlot({ slot, process, postgres }) {
  let holder = "nobody";
  if (slot.active) holder = process.role === "active" || process.resync ? "this process" : "another process";
  facts(at("slot"), [
    ["Name", slot.name],
    ["Held by", postgres.up ? (slot.exists ? holder : "there is no slot") : "not known", postgres.up && !slot.active ? "bad" : null],
    ["Keeps of the log", slot.exists ? format.bytes(slot.retained_bytes) : null],
    ["Is given up after", slot.exists ? (slot.safe_bytes == null ? "no limit" : format.bytes(slot.safe_bytes) + " more") : null],
    ["State of the log", slot.wal_status],
    ["Waits for", process.waiting],
  ]);
}

function showValkey(valkey) {
  if (!valkey.up) {
    const list = element("dl");
    facts(list, [["State", "does not answer", "bad"], ["Error", valkey.error]]);
    at("valkey").replaceChildren(list);
    return;
  }
  at("valkey").replaceChildren(...(valkey.nodes || []).map((node) => {
    const list = element("dl");
    const part = node.max_memory ? node.used_memory / node.max_memory : null;
    facts(list, [
      ["Address", node.address],
      ["Version", `${node.product} ${node.version}`],
      ["Ping", format.milliseconds(node.ping_seconds * 1000)],
      ["Memory", part == null ? [format.bytes(node.used_memory), element("span", { class: "soft" }, ", no limit")] : [`${format.bytes(node.used_memory)} of ${format.bytes(node.max_memory)}`, bar(part, part >= 0.9)]],
      ["When full", part == null ? null : node.policy],
      ["Keys", format.count(node.keys)],
      ["Evicted", format.count(node.evicted)],
      ["Hits", format.percent(node.hit_rate)],
      ["Clients", format.count(node.clients)],
    ]);
    return list;
  }));
}

function showAPIs(apis, now) {
  at("apis").classList.toggle("filled", apis.length > 0);
  at("apis").querySelector("tbody").replaceChildren(...apis.map((api) => {
    const cell = (label, attributes, ...children) => element("td", { "data-label": label, ...attributes }, ...children);
    return element("tr", {},
      cell("Address", {}, api.address, element("small", {}, api.host + (api.version ? ", " + api.version : ""))),
      cell("Trusts the cache", { class: api.trusted ? "good" : "bad" }, api.trusted ? "yes" : "no: " + api.reason),
      cell("Hits, last half minute", { class: "rate" }, api.recent_rate == null ? "–" : element("span", {}, format.percent(api.recent_rate), bar(api.recent_rate))),
      cell("Hits in all", { class: "number" }, format.percent(api.hit_rate)),
      cell("Answers a second", { class: "number" }, format.rate(api.per_second)),
      cell("Up for", { class: "number" }, format.seconds((Date.parse(now) - Date.parse(api.since)) / 1000)));
  }));
}

// change says in words what was done to a table.
function change(table) {
  const kinds = [["INSERT", table.inserts], ["UPDATE", table.updates], ["DELETE", table.deletes], ["TRUNCATE", table.truncates]]
    .filter(([, n]) => n > 0).map(([kind, n]) => n > 1 ? `${kind} × ${format.count(n)}` : kind).join(", ");
  const rows = table.inserts + table.updates + table.deletes;
  const named = table.rows.slice(0, 3).join(", ") + (table.rows.length && rows > Math.min(3, table.rows.length) ? " …" : "");
  return element("div", {}, element("b", {}, table.table), " ", element("span", {}, kinds + (named ? " " : "")), named);
}

function transaction(event) {
  const keys = event.keys.slice(0, 4).map((key) => element("code", { title: key }, key));
  keys.push(...event.patterns.slice(0, 2).map((pattern) => element("code", { title: pattern }, pattern)));
  const more = event.key_count + event.pattern_count - keys.length;
  const tail = [more > 0 ? `and ${format.count(more)} more, ` : "", format.count(event.existed) + (event.existed === 1 ? " was there" : " were there")].join("");
  return [
    element("div", { class: "change" }, ...event.tables.map(change)),
    element("div", { class: "keys" }, ...(keys.length ? [...keys, element("span", {}, tail)] : ["no key depends on it"])),
    element("div", { class: "took" }, format.milliseconds(event.milliseconds)),
  ];
}

function note(event) {
  const line = (name, ...rest) => [element("div", { class: "note" }, element("b", {}, name), ...rest.filter(Boolean).map((text) => " " + text))];
  switch (event.type) {
    case "role": return line({ active: "This process follows the stream.", standby: "This process stands by.", starting: "This process does not hold the slot." }[event.role] || event.role);
    case "waiting": return line("Waiting:", event.reason + ",", event.detail);
    case "session-end": return line("The session ended:", event.reason);
    case "resync": return line(`Resynchronisation ${event.state}:`, event.reason + (event.state === "begun" ? "" : ";"), event.state === "begun" ? "" : format.plural(event.deleted || 0, "key") + " deleted in " + format.milliseconds(event.seconds * 1000));
    case "catalog": return line(event.subjects.join(", ") + " changed:", event.reason + ";", format.plural(event.deleted || 0, "key") + " deleted");
    case "uncovered": return line(event.subjects.length ? "Not every change reaches the stream of:" : "Every table is covered again.", event.subjects.join(", "));
  }
  return line(event.type);
}

// repeats says whether an event is the one on top again, which then shows it anew: a step of one resynchronisation, or
// one more session that failed for the same reason.
function repeats(event, top) {
  const again = event.type === "session-end" ? event.reason : event.type === "resync" && event.state !== "begun" ? event.reason : null;
  if (again == null || !top || top.dataset.type !== event.type || top.dataset.reason !== again) return false;
  const times = Number(top.dataset.times) + 1;
  top.dataset.times = times;
  top.querySelector("time").textContent = format.clock(event.at);
  top.querySelector(".note").replaceWith(...note(event));
  if (event.type === "session-end") top.querySelector(".note").append(` (${format.count(times)} times)`);
  return true;
}

function showEvents(events, leftOut, fresh) {
  const list = at("happened").querySelector("ol");
  if (leftOut) {
    list.prepend(element("li", {}, element("time", {}, "…"), element("div", { class: "note" }, format.plural(leftOut, "event") + " more than can be shown")));
  }
  for (const event of events) {
    if (repeats(event, list.firstElementChild)) continue;
    const item = element("li", { "data-type": event.type, "data-reason": event.reason, "data-times": 1, class: fresh ? "new" : null },
      element("time", { datetime: event.at, title: event.lsn ? `${event.at}, xid ${event.xid}, LSN ${event.lsn}` : event.at }, format.clock(event.at)),
      ...(event.type === "transaction" ? transaction(event) : note(event)));
    list.prepend(item);
  }
  while (list.children.length > most) list.lastChild.remove();
  at("happened").classList.toggle("filled", list.children.length > 0);
}

function lost(since) {
  document.body.dataset.colour = "grey";
  document.body.dataset.state = "no contact";
  document.title = "no contact · Walkey";
  at("state").textContent = "no contact";
  at("sentence").textContent = "This page has lost the invalidator, and tries to reach it.";
  at("reason").textContent = "What stands below is from " + format.clock(since) + ".";
  at("remarks").replaceChildren();
}

(() => {
  let heard = Date.now();
  const source = new EventSource("live");
  const on = (name, show) => source.addEventListener(name, (message) => {
    heard = Date.now();
    show(JSON.parse(message.data));
  });
  on("hello", (hello) => {
    charts.fill(hello.samples);
    at("happened").querySelector("ol").replaceChildren();
    showEvents(hello.events || [], 0, false);
    showReport(hello.report);
  });
  on("now", (now) => {
    if (now.sample) charts.add(now.sample);
    showReport(now.report);
  });
  on("events", (latest) => showEvents(latest.events, latest.left_out, true));
  source.addEventListener("error", () => lost(heard));
  // A process that hangs says nothing and closes nothing. A page in the background is not woken each second.
  setInterval(() => { if (!document.hidden && Date.now() - heard > 6000) lost(heard); }, 1000);
})();
