"use strict";
const times = DATA.log_time, steps = DATA.step_sizes, kinds = ["c0", "c1", "faint"];
slider("step", "step size of the first gradient step on E:", steps.length, DATA.start, (k) => short(steps[k]));
slider("time", "log t of the flow on p:", times.length, Math.floor(times.length / 3), (k) => short(times[k]));

const span = (values) => { const reach = 1.1 * Math.max(...values.map(Math.abs)); return [-reach, reach]; };
const align = chart("align", { x: span(DATA.frequency), y: [-1.15, 1.15], xlabel: "signed frequency of the token", ylabel: "E.v after the step, scaled" });
const curves = chart("curves", { x: [times[0], times[times.length - 1]], y: [0, 1.05], xlabel: "log t", ylabel: "share, cosine" });
const bars = document.getElementById("bars");
const box = element(bars, "svg", { viewBox: `0 0 440 ${34 * DATA.sequences.length + 8}`, role: "img" });
bars.insertBefore(box, bars.firstChild);

function draw() {
  const e = sliders.step.get(), t = sliders.time.get(), run = DATA.runs[e];
  align.clear();
  const size = Math.max(...run.value.map(Math.abs), Math.abs(run.slope) * Math.max(...DATA.frequency.map(Math.abs)), 1e-300);
  const ends = span(DATA.frequency);
  align.line(ends, ends.map((a) => (a * run.slope) / size), "ink dashed");
  DATA.frequency.forEach((a, s) => align.dot(a, run.value[s] / size, kinds[DATA.kind[s]], 4));

  box.replaceChildren();
  element(box, "title", {}, "attention on the tokens of each sequence");
  DATA.sequences.forEach((sequence, i) => {
    let x = 84;
    element(box, "text", { x: 0, y: 34 * i + 24 }, `${sequence.label > 0 ? "+1" : "-1"}, seq. ${i + 1}`);
    sequence.tokens.forEach((token, j) => {
      const width = 350 * run.attention[t][i][j];
      const bar = element(box, "rect", { class: `fill ${kinds[DATA.kind[token]]}`, x, y: 34 * i + 6, width, height: 26,
        stroke: "var(--paper)", "stroke-width": 1.5, "fill-opacity": token === sequence.top ? 1 : 0.55 });
      element(bar, "title", {}, `token ${token}: ${short(run.attention[t][i][j])}`);
      if (width > 24) element(box, "text", { x: x + width / 2, y: 34 * i + 24, "text-anchor": "middle", style: "fill: #fff; paint-order: stroke; stroke: #0008; stroke-width: 2px" }, token);
      x += width;
    });
  });

  curves.clear();
  curves.now(times[t]);
  curves.line(times, run.top_attention, "c0");
  curves.line(times, run.cosine, "c1 dashed");
  reading(
    `${run.selected} of ${run.n} sequences end on their top token. At log t = ${short(times[t])} the least attention on a top token is `
    + `${short(run.top_attention[t])}`
    + (run.margin === null ? "; no max-margin direction separates the selection."
      : `, the cosine of p to the max-margin direction ${short(run.cosine[t])}, and ||p|| is ${short(run.norm[t])} (||p_mm|| log t = ${short(times[t] / run.margin)}).`)
  );
}
start(draw);
