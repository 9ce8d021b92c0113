// Where the plots draw: numbers to coordinates of a plot. No DOM here.

export const BOX = { width: 200, height: 132, left: 30, right: 10, top: 10, bottom: 18 };
export const PLANE = { ...BOX, left: 12, right: 12, top: 14, bottom: 12 }; // it has no axes
export const NARROW = { ...PLANE, width: 100 }; // where two planes stand side by side

/** [low, high] -> [from, to]; a range without extent maps to the middle. */
export function linear(low, high, from, to) {
  return (value) => (high > low ? from + ((value - low) / (high - low)) * (to - from) : (from + to) / 2);
}

/** The same for levels of noise: logarithmic; clean data stand just below the lowest level above zero. */
export function logarithmic(levels, from, to) {
  const positive = levels.filter((level) => level > 0);
  const floor = positive.length ? Math.min(...positive) / 2 : 1;
  const log = (level) => Math.log10(Math.max(level, floor));
  const scale = linear(log(floor), log(Math.max(floor, ...positive)), from, to);
  return (level) => scale(log(level));
}

/** Powers of ten within the levels; where they are few, also their triples. */
export function logTicks(levels) {
  const low = Math.min(...levels.filter((level) => level > 0));
  const inside = (ticks) => ticks.filter((tick) => tick >= low && tick <= Math.max(...levels));
  const tens = [-3, -2, -1, 0, 1, 2, 3].map((power) => 10 ** power);
  return inside(tens).length > 2 ? inside(tens) : inside(tens.flatMap((ten) => [ten, 3 * ten]));
}

export function linearTicks(levels) {
  const top = Math.max(...levels);
  return [0, top / 2, top];
}

export function levelsOf(run) {
  return [...run.t, ...run.s_prime, ...run.s].filter(Number.isFinite);
}

/** Per step the corners of the paper's figure 2b: [x, y] at t, down at s', up at s. */
export function zigzag(run, x, y) {
  return run.t.map((t, i) => [[x(i), y(t)], [x(i + 1), y(run.s_prime[i])], [x(i + 1), y(run.s[i])]]);
}

/** A function from the plane to the box, with one scale for both axes: distances stay true. */
export function planar(points, { width, height, left, right, top, bottom }) {
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;
  const extent = (values) => Math.max(...values) - Math.min(...values) || 1e-9;
  const scale = Math.min((width - left - right) / extent(xs), (height - top - bottom) / extent(ys));
  const still = extent(xs) === 1e-9 && extent(ys) === 1e-9;
  const centre = [(left + width - right) / 2, (top + height - bottom) / 2];
  const factor = still ? 0 : scale;
  return ([x, y]) => [centre[0] + (x - middle(xs)) * factor, centre[1] - (y - middle(ys)) * factor];
}

/** Index of the anchor nearest to a point; by x alone where `flat`. */
export function nearest(anchors, [x, y], flat) {
  const far = ([left, top]) => Math.hypot(left - x, flat ? 0 : top - y);
  return anchors.reduce((best, anchor, i) => (far(anchor) < far(anchors[best]) ? i : best), 0);
}
