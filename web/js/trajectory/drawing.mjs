// What all plots are made of.
import { html, svg } from "./dom.mjs";
import { nearest } from "./scales.mjs";

export const line = (points) => points.map((point) => point.map((value) => value.toFixed(1)).join()).join(" ");
export const polyline = (points, kind) => svg("polyline", { points: line(points), class: kind });
export const label = (x, y, text, anchor = "start") => svg("text", { x, y, "text-anchor": anchor }, text);
export const dot = (kind, r = 4.5) => svg("circle", { r, class: kind });

export function place(marker, [cx, cy]) {
  marker.setAttribute("cx", cx);
  marker.setAttribute("cy", cy);
}

/** Drag in a plot to scrub: anchors[i] is where position i is drawn. */
export function scrubbable(drawing, box, anchors, flat, onMove) {
  const move = (event) => {
    const { left, top, width, height } = drawing.getBoundingClientRect(); // also right where the canvas is zoomed
    const point = [((event.clientX - left) / width) * box.width, ((event.clientY - top) / height) * box.height];
    onMove(nearest(anchors, point, flat));
  };
  drawing.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drawing.setPointerCapture(event.pointerId);
    move(event);
  });
  drawing.addEventListener("pointermove", (event) => {
    if (drawing.hasPointerCapture(event.pointerId)) move(event);
  });
}

export function framed(kind, box, caption, about, drawing, update) {
  drawing.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", about);
  drawing.prepend(svg("title", {}, about));
  return { element: html("figure", { class: `tcd-plot ${kind}` }, html("figcaption", {}, caption), drawing), update };
}
