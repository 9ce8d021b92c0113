// Shows in the node what TCD LoRA Loader matched; on both of ComfyUI's renderers, since it is a plain DOM widget.
import { app } from "../../../scripts/app.js";
import { nodeAt, openWorkflow } from "./graph.mjs";
import { after, takeOver } from "./widgets.mjs";

const NODE = "TCD_LoraLoader";
const HEIGHT = 80; // pixels: five lines

function reportElement(node) {
  if (node.tcdReport) return node.tcdReport;
  const element = document.createElement("div");
  element.className = "tcd-report";
  element.setAttribute("role", "status"); // a screen reader says it when it changes
  Object.assign(element.style, {
    minHeight: `${HEIGHT}px`,
    padding: "2px 8px",
    overflow: "auto",
    whiteSpace: "pre-line", // one line of the report is one here
    overflowWrap: "anywhere", // names of modules are long
    font: "12px sans-serif",
    color: "var(--input-text, #ddd)",
  });
  const options = { serialize: false, getMinHeight: () => HEIGHT };
  node.addDOMWidget("tcd_report", "tcd-report", element, options).serialize = false;
  node.tcdReport = element;
  return element;
}

function show(node, output) {
  const lines = output?.tcd_report;
  if (node?.comfyClass !== NODE || !lines) return;
  const element = reportElement(node);
  element.textContent = lines.join("\n");
  requestAnimationFrame(() => takeOver(node, element, app.canvas.graph));
}

app.registerExtension({
  name: "tcd.report",
  nodeCreated(node) {
    if (node.comfyClass === NODE) after(node, "onExecuted", (_, output) => show(node, output));
  },
  // Results that come back from the history or another tab do not pass through onExecuted.
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) show(nodeAt(openWorkflow(app), id), output);
  },
});
