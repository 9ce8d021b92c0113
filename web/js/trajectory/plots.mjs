// The plots below the pictures, as SVG. Each is {element, update(runs)}, where runs say which step is shown.
import { svg } from "./dom.mjs";
import { dot, framed, label, line, place, polyline, scrubbable } from "./drawing.mjs";
import { BOX, NARROW, PLANE, levelsOf, linear, linearTicks, logTicks, logarithmic, planar, zigzag } from "./scales.mjs";
import { figure, itemOf, positionsOf, scaled } from "./state.mjs";

const RIGHT = BOX.width - BOX.right;
const BOTTOM = BOX.height - BOX.bottom;

function levelAxis(levels, unit) {
  const isLog = unit === "sigma";
  const y = isLog ? logarithmic(levels, BOTTOM, BOX.top) : linear(0, Math.max(...levels), BOTTOM, BOX.top);
  const lines = (isLog ? logTicks(levels) : linearTicks(levels)).flatMap((tick) => [
    svg("line", { x1: BOX.left, x2: RIGHT, y1: y(tick), y2: y(tick), class: "grid" }),
    label(BOX.left - 4, y(tick) + 3.5, figure(tick), "end"),
  ]);
  return { y, lines };
}

function stepLabels(x, steps) {
  const middle = steps > 3 ? [Math.round(steps / 2)] : [];
  return [0, ...middle, steps].map((step) => label(x(step), BOX.height - 4, String(step), "middle"));
}

function zigzagOf(run, number, x, y) {
  const corners = zigzag(run, x, y);
  const parts = corners.map(([t, down, up]) =>
    svg("g", { class: "step" }, polyline([t, down], "down"), polyline([down, up], "up")),
  );
  const marker = dot("marker");
  const update = (step) => {
    parts.forEach((part, i) => part.classList.toggle("now", i === step));
    place(marker, corners[step][0]);
  };
  return { group: svg("g", { class: `run-${number}` }, ...parts, marker), update };
}

/** The paper's figure 2b: down from t to s', and back up to s. */
export function levelPlot(view, onMove) {
  const positions = positionsOf(view);
  const x = linear(0, positions, BOX.left, RIGHT);
  const { y, lines } = levelAxis(view.runs.flatMap(levelsOf), view.unit);
  const drawn = view.runs.map((run, i) => zigzagOf(run, i, x, y));
  const drawing = svg("svg", {}, ...lines, ...stepLabels(x, positions), ...drawn.map(({ group }) => group));
  scrubbable(drawing, BOX, Array.from({ length: positions }, (_, i) => [x(i + 0.5), 0]), true, onMove);
  const about = "Noise level of every step: solid down, dashed back up by added noise";
  const caption = view.unit === "t" ? "Timestep" : "Noise level";
  return framed("levels", BOX, caption, about, drawing, (runs) => drawn.forEach((one, i) => one.update(runs[i].step)));
}

function planeCaption(explained, several) {
  const share = Math.round(100 * (explained?.[0] + explained?.[1]));
  if (!Number.isFinite(share)) return "Path";
  return several ? `Path, ${share}%` : `Path, ${share}% in this plane`;
}

/** The states in the plane of their two main directions, with the path without noise where there is one. */
export function planePlot(view, number, item, onMove) {
  const run = view.runs[number];
  const { path, reference, explained } = itemOf(run, item).plane;
  const several = view.runs.length > 1;
  const box = several ? NARROW : PLANE;
  const to = planar([...path, ...(reference ?? [])], box);
  const points = path.map(to);
  const round = ([cx, cy], i) => svg("circle", { cx, cy, r: i ? 2 : 3.5, class: i ? "state" : "start" });
  const travelled = polyline([], "travelled");
  const marker = dot("marker");
  const drawing = svg("svg", {});
  if (reference) drawing.append(polyline(reference.map(to), "reference"));
  const parts = [polyline(points, "path"), travelled, ...points.map(round), marker];
  drawing.append(svg("g", { class: `run-${number}` }, ...parts));
  const positions = positionsOf(view);
  const anchors = Array.from({ length: positions }, (_, i) => points[scaled(i, positions, run.t.length)]);
  scrubbable(drawing, box, anchors, false, onMove);
  const dashes = reference ? "; dashed: without added noise" : "";
  const about = `Path of the state of ${run.name} in the plane of its two main directions${dashes}`;
  return framed(`plane run-${number}`, box, planeCaption(explained, several), about, drawing, (runs) => {
    const { step } = runs[number];
    travelled.setAttribute("points", line(points.slice(0, step + 1)));
    place(marker, points[step]);
  });
}
