"use strict";
const grid = DATA.ticks, reach = grid[grid.length - 1] * 1.04;
slider("x", "first coordinate of the start:", grid.length, Math.floor(grid.length * 0.62), (k) => short(grid[k]));
slider("y", "second coordinate of the start:", grid.length, Math.floor(grid.length * 0.7), (k) => short(grid[k]));

const plane = chart("plane", { x: [-reach, reach], y: [-reach, reach], xlabel: "first coordinate of p", ylabel: "second coordinate of p", equal: true });
const fall = chart("fall", { x: [0, DATA.until], y: [0, 1.05], xlabel: "log t", ylabel: "attention in the longer sequence" });
const cell = (2.08 * grid[grid.length - 1]) / (2 * grid.length);
DATA.ends.forEach((row, r) => row.forEach((k, c) => {
  const tile = element(plane.back, "rect", { x: plane.at.x(grid[c] - cell), y: plane.at.y(grid[r] + cell),
    width: plane.at.x(2 * cell) - plane.at.x(0) + 0.4, height: plane.at.y(0) - plane.at.y(2 * cell) + 0.4,
    class: k < 0 ? "fill faint" : `fill c${k}`, "fill-opacity": 0.28 });
  tile.addEventListener("click", () => { sliders.x.set(c); sliders.y.set(r); update(); });
}));

function draw() {
  const c = sliders.x.get(), r = sliders.y.get(), path = DATA.paths[r * grid.length + c], end = DATA.ends[r][c];
  plane.clear();
  DATA.optima.forEach((one, k) => {
    const tip = one.direction.map((v) => 0.78 * reach * v);
    plane.line([0, tip[0]], [0, tip[1]], `c${k}`);
    plane.text(0.9 * tip[0], tip[1] + 0.07 * reach, `c${k}`, `token ${one.token}`, tip[0] > 0 ? "end" : "start");
  });
  plane.line(path.x, path.y, "ink");
  plane.dot(path.x[0], path.y[0], "ink", 5);
  fall.clear();
  DATA.optima.forEach((one, k) => fall.line(path.log_time, path.attention.map((a) => a[k]), `c${k}${end === k ? "" : " dashed"}`));
  const start = `(${short(grid[c])}, ${short(grid[r])})`;
  reading(end < 0 ? `The flow from ${start} has settled on none of the local optima by log t = ${DATA.until}.`
    : `The flow from ${start} selects token ${DATA.optima[end].token}, whose value is ${short(DATA.optima[end].value)}; `
      + `the loss then ends ${short(DATA.optima[end].excess)} above its infimum. `
      + `Of all starts shown, ${short(100 * DATA.optima[end].share)} % select it.`);
}
start(draw);
