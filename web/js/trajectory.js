// The viewer in TCD View Trajectory, on both of ComfyUI's renderers, since it is a plain DOM widget.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { idsOf, nodeAt, openWorkflow, rootOf } from "./graph.mjs";
import { keyOf, recall, remember } from "./trajectory/memory.mjs";
import { addStyle } from "./trajectory/style.mjs";
import { Viewer } from "./trajectory/viewer.mjs";
import { after, takeOver } from "./widgets.mjs";

const NODE = "TCD_ViewTrajectory";
const COPIED = "tcd_view"; // a property of copies alone: whose view they show until they run themselves
const WIDTH = 520;
const HEIGHTS = { one: 480, two: 620 }; // pixels that one run needs, and two side by side

let serialised = null; // the last such node: {id, view}

const isOurs = (node) => node?.comfyClass === NODE && node.tcdViewer;
const minHeight = (viewer) => ((viewer.view?.runs.length ?? 1) > 1 ? HEIGHTS.two : HEIGHTS.one);

function show(node, view) {
  if (!isOurs(node) || !view) return;
  const item = node.widgets?.find((widget) => widget.name === "item")?.value;
  node.tcdViewer.show(view, item);
  node.tcdViewer.element.style.setProperty("--tcd-min-height", `${minHeight(node.tcdViewer)}px`);
  const [width, height] = node.size;
  node.setSize([width, Math.max(height, node.computeSize()[1])]); // two runs need more room than one
  node.graph?.setDirtyCanvas(true, true);
}

async function restore(node) {
  const root = rootOf(node);
  if (!root || node.tcdViewer.view) return;
  const view = await recall(api, { graph: root.id, ids: idsOf(root, node), key: node.properties[COPIED] });
  if (!node.tcdViewer.view) show(node, view); // it may have run meanwhile
}

function takeOverAll() {
  requestAnimationFrame(() => {
    const shown = app.canvas.graph;
    shown?.nodes.filter(isOurs).forEach((node) => takeOver(node, node.tcdViewer.element, shown));
  });
}

function markCopy(node, view) {
  if (view) node.properties[COPIED] = keyOf(view);
}

function follow(node) {
  after(node, "onExecuted", (_, output) => {
    const view = output?.tcd_view?.[0];
    if (!view) return;
    delete node.properties[COPIED];
    const root = rootOf(node);
    if (root) remember({ graph: root.id, node: idsOf(root, node)[0], view });
    show(node, view);
  });
  after(node, "onAdded", () => {
    queueMicrotask(() => restore(node)); // its id and properties come after it is added
    takeOverAll();
  });
  after(node, "onRemoved", () => node.tcdViewer.destroy());
  after(node, "clone", (copy) => copy && markCopy(copy, node.tcdViewer.view));
  // Into a subgraph and out of it, ComfyUI moves copies that it configures right after it serialised the node.
  after(node, "onSerialize", (_, { id }) => (serialised = { id, view: node.tcdViewer.view }));
  after(node, "onConfigure", (_, { id }) => !node.graph && id === serialised?.id && markCopy(node, serialised.view));
}

function addViewer(node) {
  const viewer = new Viewer(api);
  const options = { serialize: false, getMinHeight: () => minHeight(viewer) };
  viewer.element.style.setProperty("--tcd-min-height", `${HEIGHTS.one}px`); // for Nodes 2.0, which asks no widget
  node.addDOMWidget("tcd_view", "tcd-view", viewer.element, options).serialize = false;
  node.tcdViewer = viewer;
  follow(node);
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, WIDTH), height]);
}

app.registerExtension({
  name: "tcd.trajectory",
  setup() {
    addStyle();
    app.canvas.canvas.addEventListener("litegraph:set-graph", takeOverAll);
    api.addEventListener("execution_error", ({ detail }) => {
      const node = nodeAt(openWorkflow(app), detail.node_id);
      if (isOurs(node)) node.tcdViewer.say(detail.exception_message);
    });
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) addViewer(node);
  },
  // Results that come back from the history or another tab do not pass through onExecuted.
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) show(nodeAt(openWorkflow(app), id), output?.tcd_view?.[0]);
  },
});
