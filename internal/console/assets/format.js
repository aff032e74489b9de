// Numbers and times for people.
"use strict";

const format = {
  bytes(n) {
    if (n == null) return "–";
    if (n < 1000) return n + " bytes";
    let unit = "";
    for (unit of ["KiB", "MiB", "GiB", "TiB"]) {
      n /= 1024;
      if (n < 1000) break;
    }
    return n.toFixed(n < 10 ? 1 : 0) + " " + unit;
  },
  seconds(s) {
    if (s == null) return "–";
    if (s < 10) return s.toFixed(1) + " s";
    if (s < 120) return s.toFixed(0) + " s";
    if (s < 7200) return (s / 60).toFixed(0) + " min";
    if (s < 172800) return (s / 3600).toFixed(0) + " h";
    return (s / 86400).toFixed(0) + " days";
  },
  milliseconds(ms) {
    if (ms == null) return "–";
    if (ms < 10) return ms.toFixed(1) + " ms";
    if (ms < 1000) return ms.toFixed(0) + " ms";
    return format.seconds(ms / 1000);
  },
  count(n) { return n == null ? "–" : n.toLocaleString("en"); },
  rate(n) { return n == null ? "–" : n < 10 ? String(Math.round(n * 10) / 10) : Math.round(n).toLocaleString("en"); },
  percent(part) { return part == null ? "–" : (part * 100).toFixed(part > 0.999 || part < 0.1 ? 1 : 0) + " %"; },
  plural(n, what) { return format.count(n) + " " + what + (n === 1 ? "" : "s"); },
  clock(text) {
    const at = new Date(text), two = (n) => String(n).padStart(2, "0");
    return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
  },
};

// element makes an element. Text is always text: whatever stands in a row or a key is never markup.
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

// bar shows a part of a whole.
function bar(part, full) {
  const filled = element("i");
  filled.style.width = Math.min(100, Math.max(0, part * 100)) + "%";
  return element("span", { class: full ? "bar full" : "bar", "aria-hidden": "true" }, filled);
}
