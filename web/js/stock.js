// The setting that puts `tcd` into ComfyUI's own KSampler, and what the names there mean, as a tooltip.
import { app } from "../../../scripts/app.js";

const SETTING = "TCD.StockNames"; // nodes/stock.py reads it when ComfyUI starts
const NAMES =
  "The algorithm used when sampling. Of TCD: tcd has gamma 0.3, tcd_smooth gamma 0 (no noise is put back), tcd_detail gamma 0.6. " +
  "Use them with the scheduler tcd.";

app.registerExtension({
  name: "tcd.stock",
  settings: [
    {
      id: SETTING,
      category: ["TCD", "KSampler", "StockNames"],
      name: "Show tcd in KSampler's lists of samplers and schedulers",
      tooltip: "Takes effect when ComfyUI is started again. TCD Sampler and TCD KSampler have more knobs.",
      type: "boolean",
      defaultValue: false,
    },
  ],
  // The widget's own tooltip: that of the node's definition gives way to the front end's translation.
  nodeCreated(node) {
    const widget = node.widgets?.find((widget) => widget.name === "sampler_name");
    if (widget?.options?.values?.includes?.("tcd")) widget.tooltip = NAMES;
  },
});
