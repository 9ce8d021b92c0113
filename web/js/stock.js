// The setting that puts `tcd` into ComfyUI's own KSampler, and what the names there mean, as a tooltip.
import { app } from "../../../scripts/app.js";

const SETTING = "TCD.StockNames"; // nodes/stock.py reads it when ComfyUI starts
const NAMES =
  "TCD: tcd has gamma 0.3, tcd_smooth gamma 0 (no noise is put back), tcd_detail gamma 0.6. Use them with the scheduler tcd.";

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
  beforeRegisterNodeDef(nodeType, nodeData) {
    const input = nodeData.input?.required?.sampler_name;
    const names = Array.isArray(input?.[0]) ? input[0] : input?.[1]?.options;
    if (!names?.includes("tcd")) return;
    input[1] = { ...input[1], tooltip: [input[1]?.tooltip, NAMES].filter(Boolean).join(" ") };
  },
});
