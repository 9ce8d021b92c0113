// The pictures of one run: the clean prediction large, the noisy state it was made from, and the strip of all steps.
import { html } from "./dom.mjs";
import { itemOf } from "./state.mjs";

/** Where ComfyUI serves a file of a view. */
function addressOf(api, ref) {
  const { filename, subfolder, type } = ref;
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

/** A link to each of {name: file}, to download it. */
export function linksTo(api, files) {
  const names = Object.keys(files).filter((name) => files[name]?.filename);
  const attributes = (name) => ({ href: addressOf(api, files[name]), download: "", target: "_blank" });
  return names.map((name) => html("a", attributes(name), name));
}

function picture(kind, caption, onLost) {
  const image = html("img", { draggable: "false", error: onLost });
  const element = html("figure", { class: `tcd-picture ${kind}` }, image, html("figcaption", {}, caption));
  const show = (address, alt) => {
    image.alt = alt;
    image.style.visibility = address ? "" : "hidden"; // no picture of this step was made
    if (address && image.getAttribute("src") !== address) image.src = address;
  };
  return { element, show };
}

function strip(addresses, onPick) {
  const buttons = addresses.map((address, i) =>
    html(
      "button",
      // Not in the order of Tab: the arrow keys reach them all.
      { type: "button", tabindex: "-1", "aria-label": `Step ${i + 1}`, click: () => onPick(i) },
      html("img", { src: address, alt: "", draggable: "false" }),
    ),
  );
  return { element: html("div", { class: "tcd-strip" }, ...buttons), buttons };
}

/**
 * The pictures of one item of a run: {element, update(shown)}. All are fetched at once, so that scrubbing never waits.
 * `onPick` is called with a step, `onLost` when the server no longer has a picture.
 */
export function createFrames(api, run, item, { number, onPick, onLost }) {
  const [clean, noisy] = ["x0", "x_t"].map((kind) => (itemOf(run, item)[kind] ?? []).map((ref) => addressOf(api, ref)));
  const large = picture("clean", "clean prediction x0", onLost);
  const small = picture("noisy", "noisy state x_t", onLost);
  const film = strip(clean, onPick);
  const preloaded = noisy.map((src) => Object.assign(new Image(), { src }));
  const words = html("p", { class: "tcd-words" });
  const title = html("h3", {}, run.name);
  const side = html("div", { class: "tcd-side" }, small.element, words);
  const attributes = { class: `tcd-run run-${number}`, "aria-label": run.name };
  const element = html("section", attributes, title, large.element, side, film.element);
  const update = (shown) => {
    large.show(clean[shown.step], `Clean prediction at step ${shown.step + 1}`);
    small.show(preloaded[shown.step]?.src, `Noisy state at step ${shown.step + 1}`);
    words.textContent = shown.sentence.replace(/: |, | (?=down)/g, "\n");
    film.buttons.forEach((button, i) => button.setAttribute("aria-current", String(i === shown.step)));
  };
  return { element, update };
}
