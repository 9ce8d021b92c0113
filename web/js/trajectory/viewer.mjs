// The whole viewer as one element: what is shown, and what moves it.
import { createControls } from "./controls.mjs";
import { html } from "./dom.mjs";
import { createFrames, linksTo } from "./frames.mjs";
import { measurePlot } from "./measures.mjs";
import { keepPlace, keyOf, placeOf } from "./memory.mjs";
import { createPlayer } from "./player.mjs";
import { levelPlot, planePlot } from "./plots.mjs";
import { EMPTY, GONE, NOTHING, clamped, isUsable, itemsOf, movedBy, positionsOf, scaled, shownAt } from "./state.mjs";

export class Viewer {
  #api;
  #box;
  #view = null;
  #place = { position: 0, item: 0 };
  #parts = []; // each with update(runs)
  #player = createPlayer((calm) => this.#advance(calm));
  #body = html("div", { class: "tcd-body" });
  #said = html("p", { class: "tcd-message", role: "status" });
  #spoken = html("p", { class: "tcd-spoken", "aria-live": "polite" }); // read aloud, not seen
  #foot = html("p", { class: "tcd-foot" });
  #controls = createControls({
    onMove: (position) => this.#scrub(position),
    onPlay: () => this.#toggle(),
    onItem: (item) => this.#pick(item),
    onEnlarge: () => this.#enlarge(),
  });

  constructor(api) {
    this.#api = api;
    const inside = [this.#said, this.#body, this.#controls.element, this.#foot, this.#spoken];
    const attributes = { class: "tcd-view", role: "group", "aria-label": "Trajectory viewer" };
    this.#box = html("div", { ...attributes, keydown: (event) => this.#key(event) }, ...inside);
    // Else ComfyUI drags the node; the middle button still moves the canvas.
    this.#box.addEventListener("pointerdown", (event) => event.button === 0 && this.#press(event));
    // In full screen the box leaves the node: what holds its place keeps Nodes 2.0 from shrinking the node.
    this.element = html("div", { class: "tcd-host widget-expands" }, this.#box);
    this.#clear(NOTHING);
  }

  get view() {
    return this.#view;
  }

  /** Show a view; `item` is where a new one starts. One that is shown already stays as it is. */
  show(view, item = 0) {
    if (this.#view && keyOf(view) && keyOf(view) === keyOf(this.#view)) return;
    this.#player.stop();
    if (!isUsable(view)) return this.#clear(view?.message || EMPTY);
    this.#view = view;
    const start = { position: positionsOf(view) - 1, item: clamped(item, itemsOf(view)) };
    this.#place = { ...start, ...placeOf(view) };
    this.#box.classList.toggle("tcd-compare", view.runs.length > 1);
    this.#box.classList.remove("tcd-empty");
    this.say(view.message);
    this.#build();
  }

  say(message) {
    this.#said.textContent = message ?? "";
    this.#said.hidden = !message;
  }

  /** Nothing of it runs, loads or is in full screen any more. */
  destroy() {
    this.#player.stop();
    if (document.fullscreenElement === this.#box) document.exitFullscreen();
    this.#clear("");
  }

  #clear(message) {
    this.#view = null;
    this.#parts = [];
    this.#body.replaceChildren();
    this.#foot.replaceChildren();
    this.#box.classList.add("tcd-empty");
    this.say(message);
  }

  #build() {
    const { runs, held, files = {} } = this.#view;
    const { item } = this.#place;
    const onMove = (position) => this.#scrub(position);
    const frames = runs.map((run, number) => this.#frames(run, number, item));
    const planes = runs.map((_, number) => planePlot(this.#view, number, item, onMove));
    const measures = measurePlot(this.#view, item, onMove);
    const plots = [levelPlot(this.#view, onMove), ...planes, measures];
    this.#parts = [...frames.map((one, i) => ({ update: (shown) => one.update(shown[i]) })), ...plots];
    const pictures = html("div", { class: "tcd-runs" }, ...frames.map((one) => one.element));
    this.#body.replaceChildren(pictures, html("div", { class: "tcd-plots" }, ...plots.map((one) => one.element)));
    this.#foot.replaceChildren(held ? `Recorded: ${held}` : "", ...linksTo(this.#api, files));
    this.#update();
  }

  #frames(run, number, item) {
    const onPick = (step) => this.#scrub(scaled(step, run.t.length, positionsOf(this.#view)));
    return createFrames(this.#api, run, item, { number, onPick, onLost: () => this.say(GONE) });
  }

  #update() {
    const { position, item } = this.#place;
    const shown = shownAt(this.#view, position);
    const [positions, items] = [positionsOf(this.#view), itemsOf(this.#view)];
    const playing = this.#player.isPlaying();
    keepPlace(this.#view, this.#place);
    this.#parts.forEach((part) => part.update(shown.runs));
    this.#controls.update({ position, positions, item, items, playing, words: shown.sentence });
    if (!playing) this.#spoken.textContent = shown.sentence; // while it plays, nobody can listen so fast
  }

  #scrub(position) {
    this.#player.stop();
    this.#move(position);
  }

  #move(position) {
    if (!this.#view) return;
    this.#place.position = clamped(position, positionsOf(this.#view));
    this.#update();
  }

  #pick(item) {
    this.#place.item = clamped(item, itemsOf(this.#view));
    this.#build();
  }

  #toggle() {
    if (this.#player.isPlaying()) return this.#scrub(this.#place.position);
    this.#player.start();
    this.#move(this.#place.position === positionsOf(this.#view) - 1 ? 0 : this.#place.position);
  }

  #advance(calm) {
    const positions = positionsOf(this.#view);
    const next = this.#place.position + 1;
    const isHidden = this.#box.getClientRects().length === 0; // in another graph, say
    if (isHidden || (calm && next === positions - 1)) this.#player.stop();
    this.#move(next % positions);
  }

  #enlarge() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.#box.requestFullscreen();
  }

  #press(event) {
    event.stopPropagation();
    // The arrow keys then move along the steps, wherever one clicked.
    if (event.target.closest("button, select, input, a")) return;
    requestAnimationFrame(() => this.#controls.range.focus({ preventScroll: true }));
  }

  #key(event) {
    if (!this.#view || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
    const position = movedBy(event.key, this.#place.position, positionsOf(this.#view));
    const isPlay = event.key === " " && !event.target.closest("button, a"); // which the key presses
    if (position === null && !isPlay) return;
    event.preventDefault();
    event.stopPropagation(); // arrows and space mean other things to the canvas
    if (isPlay) this.#toggle();
    else this.#scrub(position);
  }
}
