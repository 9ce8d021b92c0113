// The row of controls: play, scrubber, picture of the batch, full screen.
import { html, icon } from "./dom.mjs";

function iconButton(name, label, click) {
  return html("button", { type: "button", "aria-label": label, title: label, click }, icon(name));
}

/** {element, range, update(state)}; `state` is {position, positions, item, items, playing, words}. */
export function createControls({ onMove, onPlay, onItem, onEnlarge }) {
  const play = iconButton("play", "Play", onPlay);
  const attributes = { type: "range", min: 0, step: 1, "aria-label": "Step" };
  const range = html("input", { ...attributes, input: () => onMove(range.valueAsNumber) });
  const count = html("output", {});
  const items = html("select", { "aria-label": "Picture of the batch", change: () => onItem(Number(items.value)) });
  const enlarge = iconButton("enlarge", "Full screen", onEnlarge);
  enlarge.hidden = !document.fullscreenEnabled;
  const element = html("div", { class: "tcd-controls" }, play, range, count, items, enlarge);

  function fillItems(length) {
    if (items.length === length) return;
    items.replaceChildren(...Array.from({ length }, (_, i) => html("option", { value: i }, `picture ${i + 1}`)));
    items.hidden = length < 2;
  }

  function update(state) {
    range.max = state.positions - 1;
    range.value = state.position;
    range.setAttribute("aria-valuetext", state.words);
    count.textContent = `${state.position + 1} / ${state.positions}`;
    play.replaceChildren(icon(state.playing ? "pause" : "play"));
    play.setAttribute("aria-label", state.playing ? "Pause" : "Play");
    play.title = state.playing ? "Pause" : "Play";
    play.disabled = state.positions < 2;
    fillItems(state.items);
    items.value = state.item;
  }

  return { element, range, update };
}
