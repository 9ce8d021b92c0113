// Measures of every step, as lines.
import { dot, framed, label, place, polyline, scrubbable } from "./drawing.mjs";
import { svg } from "./dom.mjs";
import { BOX, linear } from "./scales.mjs";
import { figure, itemOf, positionsOf } from "./state.mjs";

const RIGHT = BOX.width - BOX.right;
const MEASURES = [
  ["drift", "change of x0", "How far the clean prediction moved since the step before"],
  ["distance", "off the noiseless path", "How far the state is from the path without added noise"],
  ["detail", "detail of x0", "High-frequency energy of the clean prediction"],
];

function curveOf(values, number, x, y) {
  const known = values.map((value, i) => [i, value]).filter(([, value]) => Number.isFinite(value));
  const marker = dot("marker", 3.5);
  const curve = polyline(known.map(([i, value]) => [x(i), y(value)]), "curve");
  const group = svg("g", { class: `run-${number}` }, curve, marker);
  const read = svg("tspan", { class: `value run-${number}` });
  const update = (step) => {
    const value = values[step];
    read.textContent = ` ${figure(value ?? NaN)}`;
    marker.style.display = Number.isFinite(value) ? "" : "none";
    if (Number.isFinite(value)) place(marker, [x(step), y(value)]);
  };
  return { group, read, update };
}

function measureRow([key, name, about], row, view, item, x) {
  const series = view.runs.map((run) => itemOf(run, item).measures?.[key] ?? []);
  const all = series.flat().filter(Number.isFinite);
  const top = 4 + row * 43;
  const y = linear(Math.min(0, ...all), Math.max(0, ...all), top + 38, top + 15);
  const curves = series.map((values, i) => curveOf(values, i, x, y));
  const read = svg("text", { x: RIGHT, y: top + 8, "text-anchor": "end" });
  read.append(...(all.length ? curves.map((curve) => curve.read) : ["-"]));
  const group = svg("g", {}, svg("title", {}, about), label(6, top + 8, name), read, ...curves.map((one) => one.group));
  return { group, update: (runs) => curves.forEach((curve, i) => curve.update(runs[i].step)) };
}

/** A row for every measure, each on its own scale from zero. */
export function measurePlot(view, item, onMove) {
  const positions = positionsOf(view);
  const x = linear(0, positions, 8, RIGHT);
  const rows = MEASURES.map((measure, i) => measureRow(measure, i, view, item, x));
  const drawing = svg("svg", {}, ...rows.map(({ group }) => group));
  scrubbable(drawing, BOX, Array.from({ length: positions }, (_, i) => [x(i), 0]), true, onMove);
  const about = `Measures of every step: ${MEASURES.map(([, name]) => name).join(", ")}`;
  return framed("measures", BOX, "Measures", about, drawing, (runs) => rows.forEach((row) => row.update(runs)));
}
