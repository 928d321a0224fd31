"use strict";
// SVG charts, and sliders whose positions are stored in the address, so that a state of the page can be linked.
const DATA = JSON.parse(document.getElementById("data").textContent);

function element(parent, name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.appendChild(made);
  return made;
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(+(k * step).toPrecision(12));
  return found;
}

function short(value) {
  if (value === null || !Number.isFinite(value)) return "-";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(1).replace("e+", "e");
  return String(+value.toPrecision(3));
}

// A chart on linear axes. `clear` removes the drawing; the frame stays.
function chart(id, { x, y, xlabel, ylabel, height = 300, equal = false }) {
  const width = 440, left = 58, right = 12, top = 10, bottom = 46;
  const full = equal ? width - left - right + top + bottom : height;
  const host = document.getElementById(id);
  const svg = element(host, "svg", { viewBox: `0 0 ${width} ${full}`, role: "img" });
  host.insertBefore(svg, host.firstChild);
  element(svg, "title", {}, `${ylabel} against ${xlabel}`);
  const w = width - left - right, h = full - top - bottom;
  const at = {
    x: (v) => left + ((v - x[0]) / (x[1] - x[0])) * w,
    y: (v) => top + h - ((v - y[0]) / (y[1] - y[0])) * h,
  };
  const back = element(svg, "g");
  for (const t of ticks(x[0], x[1], 5)) {
    element(svg, "line", { class: "grid", x1: at.x(t), x2: at.x(t), y1: top, y2: top + h });
    element(svg, "text", { class: "tick", x: at.x(t), y: top + h + 17, "text-anchor": "middle" }, short(t));
  }
  for (const t of ticks(y[0], y[1], 5)) {
    element(svg, "line", { class: "grid", x1: left, x2: left + w, y1: at.y(t), y2: at.y(t) });
    element(svg, "text", { class: "tick", x: left - 6, y: at.y(t) + 4, "text-anchor": "end" }, short(t));
  }
  element(svg, "rect", { class: "axis", x: left, y: top, width: w, height: h });
  element(svg, "text", { x: left + w / 2, y: full - 8, "text-anchor": "middle" }, xlabel);
  element(svg, "text", { x: 14, y: top + h / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${top + h / 2})` }, ylabel);
  const clip = `${id}-clip`;
  element(element(svg, "clipPath", { id: clip }), "rect", { x: left, y: top, width: w, height: h });
  const layer = element(svg, "g", { "clip-path": `url(#${clip})` });
  return {
    at, back, layer, svg,
    clear() { layer.replaceChildren(); },
    line(xs, ys, style) {
      let path = "", open = false;
      xs.forEach((v, k) => {
        if (ys[k] === null || v === null) { open = false; return; }
        path += `${open ? "L" : "M"}${at.x(v).toFixed(2)} ${at.y(ys[k]).toFixed(2)}`;
        open = true;
      });
      element(layer, "path", { class: `line ${style}`, d: path });
    },
    dot(v, u, style, radius = 4) { element(layer, "circle", { class: `fill ${style}`, cx: at.x(v), cy: at.y(u), r: radius }); },
    now(v) { element(layer, "line", { class: "now", x1: at.x(v), x2: at.x(v), y1: top, y2: top + h }); },
    text(v, u, style, words, anchor = "start") {
      element(layer, "text", { class: `label ${style}`, x: at.x(v), y: at.y(u), "text-anchor": anchor }, words);
    },
  };
}

const sliders = {};
let redraw = () => {};

function slider(name, label, count, start, format) {
  const box = document.createElement("label"), input = document.createElement("input"), shown = document.createElement("output");
  Object.assign(input, { type: "range", min: 0, max: count - 1, step: 1, id: name });
  const asked = Number(new URLSearchParams(location.hash.slice(1)).get(name) ?? NaN);
  input.value = Number.isInteger(asked) ? Math.min(Math.max(asked, 0), count - 1) : start;
  box.htmlFor = name;  // the output inside could be labelled too, and comes first
  box.append(`${label} `, shown, input);
  document.getElementById("controls").append(box);
  sliders[name] = { get: () => Number(input.value), set: (k) => { input.value = k; } };
  const show = () => {
    shown.textContent = format(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);  // the place on the slider says nothing
  };
  sliders[name].show = show;
  input.addEventListener("input", () => { update(); });
}

function update() {
  Object.values(sliders).forEach((one) => one.show());
  const places = Object.entries(sliders).map(([name, one]) => `${name}=${one.get()}`).join("&");
  history.replaceState(null, "", `#${places}`);
  redraw();
}

function start(draw) {
  redraw = draw;
  window.addEventListener("hashchange", () => {
    const places = new URLSearchParams(location.hash.slice(1));
    for (const [name, one] of Object.entries(sliders)) if (places.has(name)) one.set(Number(places.get(name)));
    update();
  });
  update();
}

function reading(text) { document.getElementById("reading").textContent = text; }
