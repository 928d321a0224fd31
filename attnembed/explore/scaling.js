"use strict";
const factors = DATA.factors, epochs = DATA.epochs, arms = DATA.arms, styles = ["c1", "c0", "c2"];
slider("factor", "multiplier c of the pairwise part:", factors.length, DATA.start, (k) => short(factors[k]));
slider("epoch", "epoch:", epochs, epochs - 1, (k) => String(k + 1));

const percent = DATA.range, logs = factors.map(Math.log2);
const scores = chart("scores", { x: [logs[0], logs[logs.length - 1]], y: percent, xlabel: "log2 c", ylabel: "correct labels on held-out data, %" });
const course = chart("course", { x: [1, epochs], y: percent, xlabel: "epoch", ylabel: "correct labels at this c, %" });
const ratios = chart("ratios", { x: [1, epochs], y: DATA.ratio_range, xlabel: "epoch", ylabel: "log2 of ||U|| / ||c W||" });

function draw() {
  const f = sliders.factor.get(), e = sliders.epoch.get(), words = [];
  for (const one of [scores, course, ratios]) one.clear();
  scores.now(logs[f]);
  course.now(e + 1);
  ratios.now(e + 1);
  arms.forEach((arm, k) => {
    const dash = k ? " dashed" : "";
    scores.line(logs, arm.score[e], styles[k] + dash);
    course.line(arm.score.map((_, j) => j + 1), arm.score.map((row) => row[f]), styles[k] + dash);
    ratios.line(arm.log2_ratio.map((_, j) => j + 1), arm.log2_ratio.map((v) => (v === null ? null : v - logs[f])), styles[k] + dash);
    const best = arm.score[e].indexOf(Math.max(...arm.score[e]));
    words.push(`${arm.name}: ${short(arm.score[e][f])} % at c = ${short(factors[f])}, at best ${short(arm.score[e][best])} % at c = ${short(factors[best])}`);
  });
  reading(`After epoch ${e + 1}, ${words.join("; ")}.`);
}
start(draw);
