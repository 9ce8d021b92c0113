// The viewer's look, from ComfyUI's own colours, so that every theme fits. Everybody tells blue from vermilion.

const CSS = `
.tcd-host { display: flex; width: 100%; height: 100%; min-height: var(--tcd-min-height); }
.tcd-view {
  --a: #0072b2; --b: #d55e00; --line: var(--border-color, #4e4e4e); --text: var(--input-text, #ddd);
  --soft: color-mix(in srgb, var(--text) 62%, transparent);
  box-sizing: border-box; flex: 1; min-width: 0; padding: 6px 8px;
  display: flex; flex-direction: column; gap: 6px; overflow: auto; container-type: inline-size;
  background: var(--comfy-input-bg, #222); color: var(--text); border-radius: 6px; font: 12px/1.35 sans-serif;
  user-select: none; cursor: default;
}
.dark-theme .tcd-view { --a: #56b4e9; --b: #f08a4b; }
.tcd-view * { box-sizing: border-box; }
.tcd-view :is(p, h3, figure) { margin: 0; }
.tcd-view [hidden], .tcd-empty > :is(.tcd-body, .tcd-controls, .tcd-foot) { display: none !important; }
.tcd-view .run-0 { --run: var(--a); }
.tcd-view .run-1 { --run: var(--b); }
.tcd-view :focus-visible { outline: 2px solid var(--a); outline-offset: 2px; }

.tcd-message { padding: 5px 8px; border-left: 3px solid var(--b); border-radius: 3px; user-select: text;
  background: color-mix(in srgb, var(--b) 14%, transparent); overflow-wrap: anywhere; }
.tcd-empty { justify-content: center; }
.tcd-empty .tcd-message { border: 0; background: none; color: var(--soft); text-align: center; }
.tcd-spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; white-space: nowrap;
  clip-path: inset(50%); }

.tcd-body { flex: 1; min-height: 0; display: flex; flex-direction: column; gap: 8px; }
.tcd-runs { flex: 1; min-height: 150px; display: flex; gap: 12px; }
.tcd-run { flex: 1; min-width: 0; min-height: 0; display: grid; gap: 6px 10px;
  grid-template: "title title" auto "clean side" minmax(0, 1fr) "strip strip" auto / minmax(0, 1.9fr) minmax(0, 1fr); }
.tcd-run h3 { grid-area: title; display: none; font: 600 12px/1.2 sans-serif; }
.tcd-run h3::before { content: ""; display: inline-block; width: 9px; height: 9px; margin-right: 6px;
  border-radius: 50%; background: var(--run); }
.tcd-compare .tcd-run { grid-template: "title" auto "clean" minmax(0, 1fr) "side" 84px "strip" auto / minmax(0, 1fr); }
.tcd-compare .tcd-run h3 { display: block; }
.tcd-picture { min-height: 0; display: flex; flex-direction: column; align-items: center; gap: 2px; }
.tcd-picture img { flex: 1; min-height: 0; width: 100%; object-fit: contain; border-radius: 4px; }
.tcd-picture figcaption, .tcd-plot figcaption, .tcd-foot { font-size: 0.92em; color: var(--soft); }
.tcd-picture.clean { grid-area: clean; }
.tcd-side { grid-area: side; min-height: 0; display: flex; flex-direction: column; gap: 8px; justify-content: center; }
.tcd-side .noisy { flex: 0 1 auto; }
.tcd-compare .tcd-side { flex-direction: row; align-items: center; }
.tcd-compare .tcd-side > * { flex: 1; max-height: 100%; }
.tcd-words { white-space: pre-line; font-variant-numeric: tabular-nums; text-align: center; }
.tcd-words::first-line { font-weight: 600; }
.tcd-compare .tcd-words { text-align: left; }
.tcd-strip { grid-area: strip; display: flex; gap: 3px; justify-content: center; height: 44px; }
.tcd-strip button { flex: 0 1 44px; min-width: 0; padding: 0; border: 2px solid transparent; border-radius: 5px;
  background: none; overflow: hidden; cursor: pointer; opacity: 0.6; }
.tcd-strip button:is(:hover, [aria-current="true"]) { opacity: 1; }
.tcd-strip button[aria-current="true"] { border-color: var(--run); }
.tcd-strip img { display: block; width: 100%; height: 100%; object-fit: cover; border-radius: 3px; }

.tcd-plots { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 6px; justify-content: center; }
.tcd-compare .tcd-plots { grid-template-columns: minmax(0, 2fr) minmax(0, 1fr) minmax(0, 1fr) minmax(0, 2fr); }
.tcd-compare .plane svg { aspect-ratio: 100 / 132; }
.tcd-compare .plane figcaption { color: var(--run); }
.tcd-plot svg { display: block; width: 100%; aspect-ratio: 200 / 132; cursor: ew-resize; touch-action: none;
  border: 1px solid var(--line); border-radius: 4px; background: color-mix(in srgb, var(--text) 4%, transparent); }
.tcd-plot text { font: 10.5px sans-serif; fill: var(--soft); }
.tcd-plot .value { font-weight: 600; fill: var(--run); }
.tcd-plot polyline { fill: none; stroke: var(--run); stroke-width: 1.6; stroke-linejoin: round; }
.tcd-plot .grid { stroke: var(--line); stroke-width: 0.6; }
.tcd-plot :is(.step, .path) { opacity: 0.45; }
.tcd-plot .step.now { opacity: 1; }
.tcd-plot .step.now polyline, .tcd-plot .travelled { stroke-width: 2.6; }
.tcd-plot .up { stroke-dasharray: 2.5 2; }
.tcd-plot .reference { stroke: var(--soft); stroke-dasharray: 4 3; stroke-width: 1.2; }
.tcd-plot .state { fill: var(--run); }
.tcd-plot .start { fill: var(--comfy-input-bg, #222); stroke: var(--run); stroke-width: 1.4; }
.tcd-plot .marker { fill: var(--run); stroke: var(--text); stroke-width: 1.5; }

.tcd-controls { display: flex; align-items: center; gap: 8px; }
.tcd-controls :is(button, select) { height: 26px; border: 1px solid var(--line); border-radius: 5px; cursor: pointer;
  background: color-mix(in srgb, var(--text) 8%, transparent); color: var(--text); font: inherit; }
.tcd-controls button { flex: none; width: 30px; padding: 0; display: grid; place-items: center; }
.tcd-controls button:hover { background: color-mix(in srgb, var(--text) 18%, transparent); }
.tcd-controls option { background: var(--comfy-input-bg, #222); color: var(--text); }
.tcd-controls svg { width: 13px; height: 13px; fill: currentColor; }
.tcd-controls input { flex: 1; min-width: 40px; margin: 0; accent-color: var(--a); cursor: ew-resize; }
.tcd-controls output { font-variant-numeric: tabular-nums; white-space: nowrap; }
.tcd-foot { display: flex; flex-wrap: wrap; gap: 0 10px; }
.tcd-foot a { color: inherit; }

@container (max-width: 380px) {
  .tcd-view:not(.tcd-compare) .tcd-plots { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@container (min-width: 1000px) { .tcd-plots { width: 1000px; align-self: center; } }
.tcd-view:fullscreen .tcd-strip { height: 72px; }
.tcd-view:fullscreen .tcd-strip button { flex-basis: 72px; }
.tcd-view:fullscreen { padding: 16px 24px; border-radius: 0; font-size: 15px; background: var(--comfy-menu-bg, #222); }
`;

/** Put the rules into the page, once. */
export function addStyle() {
  const style = document.createElement("style");
  style.textContent = CSS;
  document.head.append(style);
}
