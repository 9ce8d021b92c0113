// The clock behind play and pause.

const FRAME_MS = 700;
const CALM_MS = 1500; // for those who asked their system for less motion, and then only once from start to end

/** {start, stop, isPlaying}; `advance(calm)` is called for every step, and stops a calm one at the end. */
export function createPlayer(advance) {
  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
  }
  function start() {
    stop();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    timer = setInterval(() => advance(calm), calm ? CALM_MS : FRAME_MS);
  }
  return { start, stop, isPlaying: () => timer !== null };
}
