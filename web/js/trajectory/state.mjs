// What a view shows at a position of the scrubber. No DOM here: tests/viewer runs these functions in node.

export const NOTHING = "Run the workflow: every step of every picture appears here.";
export const EMPTY = "This trajectory has no steps: connect the recorded model to the sampler, then run the workflow.";
export const GONE = "ComfyUI no longer has these pictures: run the workflow again to see them.";

/** Whether a view has something to show. */
export function isUsable(view) {
  const runs = view?.runs;
  return Array.isArray(runs) && runs.length > 0 && runs.every((run) => run?.t?.length > 0 && run.items?.length > 0);
}

/** Positions of the common scrubber: the steps of the longest run. */
export function positionsOf(view) {
  return Math.max(...view.runs.map((run) => run.t.length));
}

export function itemsOf(view) {
  return Math.max(...view.runs.map((run) => run.items.length));
}

export function clamped(value, count) {
  return Math.min(Math.max(Number.isFinite(value) ? Math.round(value) : 0, 0), count - 1);
}

/** A picture of a run; the last one where it has fewer than were chosen from. */
export function itemOf(run, chosen) {
  return run.items[clamped(chosen, run.items.length)];
}

/** The place in `count` steps that is as far on the way as `position` is in `positions`. */
export function scaled(position, positions, count) {
  return positions > 1 ? clamped((position / (positions - 1)) * (count - 1), count) : 0;
}

/** A number in at most three digits, as a person would write it. */
export function figure(value) {
  if (!Number.isFinite(value)) return "-";
  const size = Math.abs(value);
  if (size >= 100) return String(Math.round(value));
  return size !== 0 && size < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
}

const NAMES = { sigma: "noise level", t: "timestep" };

function sentenceOf(run, step, unit) {
  const start = `Step ${step + 1} of ${run.t.length}: ${NAMES[unit] ?? "level"} ${figure(run.t[step])}`;
  const [below, end] = [run.s_prime[step], run.s[step]];
  return end > below ? `${start} down to ${figure(below)}, up to ${figure(end)}` : `${start} down to ${figure(end)}`;
}

/** {runs: [{step, sentence}], sentence: all of it in words} at a position of the scrubber. */
export function shownAt(view, position) {
  const runs = view.runs.map((run) => {
    const step = scaled(position, positionsOf(view), run.t.length);
    return { step, sentence: sentenceOf(run, step, view.unit) };
  });
  const named = runs.length > 1 ? runs.map((run, i) => `${view.runs[i].name}: ${run.sentence}`) : [runs[0].sentence];
  return { runs, sentence: named.join(". ") };
}

/** Where a key moves the scrubber, or null for a key that does not. */
export function movedBy(key, position, positions) {
  const target = {
    ArrowLeft: position - 1,
    ArrowDown: position - 1,
    ArrowRight: position + 1,
    ArrowUp: position + 1,
    Home: 0,
    End: positions - 1,
  }[key];
  return target === undefined ? null : clamped(target, positions);
}
