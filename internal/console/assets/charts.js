// The three charts of the last fifteen minutes.
"use strict";

const charts = (() => {
  const span = 15 * 60; // seconds
  const columns = { at: [], lag_seconds: [], lag_bytes: [], transactions: [], keys: [], median: [], slowest: [] };
  const specs = {
    lag: {
      series: [["lag_seconds", "ink", true]],
      tick: (v) => format.seconds(v),
      floor: 1,
      say: (i) => [columns.lag_seconds[i] == null ? null : format.seconds(columns.lag_seconds[i]), columns.lag_bytes[i] == null ? null : format.bytes(columns.lag_bytes[i])].filter(Boolean).join(", ") || "–",
    },
    rate: {
      series: [["transactions", "ink", true], ["keys", "second", false]],
      tick: (v) => format.rate(v),
      floor: 5,
      say: (i) => [dot("ink"), format.rate(columns.transactions[i]) + (columns.transactions[i] === 1 ? " transaction" : " transactions"), dot("second"), format.rate(columns.keys[i]) + " keys"],
    },
    latency: {
      // What lies above is drawn first. A second without a transaction has no point, so there is no line.
      series: [["slowest", "second", false, true], ["median", "ink", false, true]],
      tick: (v) => v == null ? "" : v < 1 ? v.toFixed(1) + " ms" : format.milliseconds(v).replace(".0", ""),
      least: 0.1, // ms: few are quicker, and the slowest are a thousand times as slow
      say: (i) => columns.median[i] == null ? "–" : [dot("ink"), format.milliseconds(columns.median[i]), dot("second"), "max " + format.milliseconds(columns.slowest[i])],
    },
  };
  const plots = {};

  // dot stands before a figure in the colour of its line.
  function dot(ink) { return element("i", { class: ink, "aria-hidden": "true" }); }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  // reading says what a chart shows: under the cursor, or last.
  function reading(id) {
    const spec = specs[id], plot = plots[id];
    const at = plot && plot.cursor.idx != null && plot.cursor.left >= 0 ? plot.cursor.idx : lastKnown(id);
    document.querySelector(`#${id} output`).replaceChildren(...[].concat(at < 0 ? "–" : spec.say(at)));
  }

  // lastKnown is the last sample; of latencies the last with some, which may be a while ago.
  function lastKnown(id) {
    if (id !== "latency") return columns.at.length - 1;
    return columns.median.findLastIndex((v) => v != null);
  }

  function data(id) {
    const { series, least } = specs[id];
    return [columns.at, ...series.map(([name]) => least ? columns[name].map((v) => v == null ? null : Math.max(v, least)) : columns[name])];
  }

  function draw(id) {
    const host = document.querySelector(`#${id} .plot`), spec = specs[id];
    if (plots[id]) plots[id].destroy();
    const axis = { stroke: colour("faint"), font: "11px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: colour("line"), width: 1 } };
    plots[id] = new uPlot({
      width: host.clientWidth, height: host.clientHeight,
      legend: { show: false },
      padding: [6, 14, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: "walkey" }, points: { size: 6 } },
      hooks: { setCursor: [() => reading(id)] },
      scales: {
        x: { time: true, range: () => { const end = columns.at.at(-1) ?? Date.now() / 1000; return [end - span, end]; } },
        y: spec.least
          ? { distr: 3, log: 10, range: (_, __, max) => [spec.least, Math.max(spec.least * 100, 10 ** Math.ceil(Math.log10(max || 1)))] }
          : { range: (_, __, max) => [0, Math.max(spec.floor, (max || 0) * 1.15)] },
      },
      axes: [
        { ...axis, size: 22, space: 70, grid: { show: false }, values: (_, ticks) => ticks.map((t) => { const at = new Date(t * 1000); return String(at.getHours()).padStart(2, "0") + ":" + String(at.getMinutes()).padStart(2, "0"); }) },
        { ...axis, size: 52, space: 34, values: (_, ticks) => ticks.map(spec.tick), splits: spec.least ? decades : undefined },
      ],
      series: [{}, ...spec.series.map(([, ink, filled, points]) => ({
        stroke: colour(ink), width: points ? 0 : 1.25, fill: filled ? colour("ink-fill") : undefined, spanGaps: false,
        paths: points ? () => null : undefined,
        points: { show: Boolean(points), size: 3.5, width: 0, fill: colour(ink), stroke: colour(ink) },
      }))],
    }, data(id), host);
    reading(id);
  }

  // decades are the ticks of a logarithmic scale.
  function decades(_, __, min, max) {
    const ticks = [];
    for (let tick = min; tick <= max * 1.01; tick *= 10) ticks.push(tick);
    return ticks;
  }

  function drawAll() { Object.keys(specs).forEach(draw); }

  function push(sample) {
    for (const name of Object.keys(columns)) columns[name].push(name === "at" ? sample.at / 1000 : sample[name]);
  }

  function trim() {
    const oldest = columns.at.at(-1) - span;
    const gone = columns.at.findIndex((at) => at >= oldest);
    if (gone > 0) Object.values(columns).forEach((column) => column.splice(0, gone));
  }

  let width = 0;
  new ResizeObserver(() => {
    const now = document.querySelector("#lag .plot").clientWidth;
    if (now !== width && now > 0) {
      width = now;
      drawAll();
    }
  }).observe(document.querySelector("#lag .plot"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

  return {
    // fill begins anew with these samples.
    fill(samples) {
      Object.values(columns).forEach((column) => { column.length = 0; });
      samples.forEach(push);
      drawAll();
    },
    // add goes on with one more.
    add(sample) {
      if (columns.at.length && sample.at / 1000 <= columns.at.at(-1)) return;
      push(sample);
      trim();
      for (const id of Object.keys(specs)) {
        if (plots[id]) plots[id].setData(data(id));
        reading(id);
      }
    },
  };
})();
