// The viewer's pure parts, in node: `node --test tests/viewer`. test_modules.py runs it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { idsOf, nodeAt } from "../../web/js/graph.mjs";
import { entriesOf, find, keepPlace, keyOf, placeOf } from "../../web/js/trajectory/memory.mjs";
import * as scales from "../../web/js/trajectory/scales.mjs";
import * as state from "../../web/js/trajectory/state.mjs";

const { BOX, linear, linearTicks, logTicks, logarithmic, nearest, planar, zigzag } = scales;
const { figure, isUsable, itemOf, itemsOf, movedBy, positionsOf, scaled, shownAt } = state;

const ref = (filename) => ({ filename, subfolder: "", type: "temp" });
const item = (name, steps) => {
  const frames = (kind) => Array.from({ length: steps }, (_, i) => ref(`${name}_${kind}_${i}`));
  return { x0: frames("x0"), x_t: frames("x_t") };
};
const run = (name, t, items = 1) => {
  const s = [...t.slice(1), 0];
  const all = Array.from({ length: items }, (_, i) => item(`${name}${i}`, t.length));
  return { name, t, s_prime: s.map((level) => level / 2), s, items: all };
};
const view = (...runs) => ({ unit: "sigma", runs, files: { data: ref("data") } });

test("a view is usable when every run has steps and pictures", () => {
  assert.ok(isUsable(view(run("a", [2, 1]))));
  const broken = [null, {}, view(), view(run("a", [])), view(run("a", [1], 0)), view(run("a", [1]), null), { runs: 3 }];
  for (const one of broken) assert.equal(isUsable(one), false);
});

test("the scrubber has the steps of the longest run, and the others follow in proportion", () => {
  const both = view(run("a", [4, 3, 2, 1]), run("b", [7, 6, 5, 4, 3, 2, 1], 3));
  assert.equal(positionsOf(both), 7);
  assert.equal(itemsOf(both), 3);
  const steps = (position) => shownAt(both, position).runs.map((one) => one.step);
  assert.deepEqual([0, 3, 6].map(steps), [[0, 0], [2, 3], [3, 6]]);
});

test("one step has one position", () => {
  assert.equal(scaled(0, 1, 1), 0);
  assert.equal(scaled(0, 1, 5), 0);
  assert.equal(movedBy("End", 0, 1), 0);
});

test("a picture beyond the batch is the last one", () => {
  assert.equal(itemOf(run("a", [1], 2), 9).x0[0].filename, "a1_x0_0");
});

test("a step is said in words", () => {
  const one = view(run("a", [9.234, 3.5]));
  assert.equal(shownAt(one, 0).sentence, "Step 1 of 2: noise level 9.2 down to 1.8, up to 3.5");
  assert.equal(shownAt(one, 1).sentence, "Step 2 of 2: noise level 3.5 down to 0");
  const two = view(run("a", [2]), run("b", [3]));
  const said = ["a: Step 1 of 1: noise level 2 down to 0", "b: Step 1 of 1: noise level 3 down to 0"];
  assert.equal(shownAt(two, 0).sentence, said.join(". "));
  assert.match(shownAt({ ...one, unit: "t" }, 0).sentence, /timestep 9.2/);
});

test("numbers are short", () => {
  const said = [0, 0.5, 12.34, 999.4, 0.0001234, -3.456, null, NaN].map(figure);
  assert.deepEqual(said, ["0", "0.5", "12", "999", "1.2e-4", "-3.5", "-", "-"]);
});

test("keys move within the steps; others do nothing", () => {
  assert.deepEqual(["ArrowLeft", "ArrowRight", "Home", "End"].map((key) => movedBy(key, 0, 4)), [0, 1, 0, 3]);
  assert.equal(movedBy("a", 2, 4), null);
});

test("scales meet their ends, and a range without extent its middle", () => {
  assert.deepEqual([0, 5, 10].map(linear(0, 10, 100, 0)), [100, 50, 0]);
  assert.equal(linear(3, 3, 0, 10)(3), 5);
  const log = logarithmic([10, 1, 0], 0, 1);
  assert.equal(log(10), 1);
  assert.equal(log(0), 0); // clean data, below the lowest level
  assert.ok(log(1) > 0);
  assert.ok(Number.isFinite(logarithmic([0, 0], 0, 1)(0)));
});

test("ticks lie within the levels", () => {
  assert.deepEqual(logTicks([14, 0.2, 0]).map(figure), ["0.3", "1", "3", "10"]);
  assert.deepEqual(logTicks([80, 0.02, 0]).map(figure), ["0.1", "1", "10"]);
  assert.deepEqual(linearTicks([999, 0]), [0, 499.5, 999]);
});

test("the zigzag goes down to s' and up to s at the next step", () => {
  const same = (value) => value;
  assert.deepEqual(zigzag(run("a", [4, 2]), same, same), [[[0, 4], [1, 1], [1, 2]], [[1, 2], [2, 0], [2, 0]]]);
});

test("the plane keeps distances, fits the box, and draws a point that stays", () => {
  const points = [[0, 0], [2, 0], [0, 1]];
  const [origin, right, up] = points.map(planar(points, BOX));
  assert.ok(Math.abs((right[0] - origin[0]) / 2 - (origin[1] - up[1])) < 1e-9);
  for (const [x, y] of [origin, right, up]) assert.ok(x >= 0 && x <= BOX.width && y >= 0 && y <= BOX.height);
  assert.ok(planar([[1, 1], [1, 1]], BOX)([1, 1]).every(Number.isFinite));
});

test("the nearest anchor, in the plane or along the steps", () => {
  const anchors = [[0, 0], [10, 0], [2, 50]];
  assert.equal(nearest(anchors, [3, 10], false), 0);
  assert.equal(nearest(anchors, [3, 10], true), 2);
});

const root = { id: "root", nodes: [] };
const inner = { id: 7, nodes: [] };
const sub = { nodes: [inner], getNodeById: (id) => sub.nodes.find((node) => node.id === id) };
root.nodes.push({ id: 12, subgraph: sub }, { id: 7 });
root.getNodeById = (id) => root.nodes.find((node) => node.id === id);
root.subgraphs = new Map([["uuid", sub]]);

test("ids lead through subgraphs, and back", () => {
  assert.deepEqual(idsOf(root, inner), ["12:7"]);
  assert.equal(nodeAt(root, "12:7"), inner);
  assert.equal(nodeAt(root, "uuid:7"), inner);
  assert.equal(nodeAt(root, "7"), root.nodes[1]);
  for (const id of ["8", "12:8", "3:7", "gone:7"]) assert.equal(nodeAt(root, id) ?? null, null);
});

const named = (name) => ({ ...view(run(name, [1])), files: { data: ref(name) } });
const finished = (graph, outputs) => ({ prompt: [0, "", {}, { extra_pnginfo: { workflow: { id: graph } } }], outputs });
const history = {
  one: finished("root", { 7: { tcd_view: [named("old")] }, 8: { images: [] } }),
  two: finished("other", { 7: { tcd_view: [named("other")] } }),
  three: finished("root", { 7: { tcd_view: [named("new")] } }),
  four: { prompt: [], outputs: null },
};
const entries = entriesOf(history);

test("the newest view of the same node in the same workflow is found", () => {
  assert.equal(keyOf(find(entries, { graph: "root", ids: ["7"] })), "temp//new");
  assert.equal(find(entries, { graph: "root", ids: ["9"] }), undefined);
  assert.equal(find(entries, { graph: "third", ids: ["7"] }), undefined);
  assert.deepEqual(entriesOf(undefined), []);
});

test("a copy is found by what it copies, a node in a subgraph by all of its id", () => {
  assert.equal(find(entries, { graph: "root", ids: ["12:7"] }), undefined);
  assert.equal(keyOf(find(entries, { graph: "third", ids: ["50"], key: "temp//old" })), "temp//old");
  const inside = { graph: "root", node: "12:7", view: named("inside") };
  assert.equal(keyOf(find([...entries, inside], { graph: "root", ids: ["12:7"] })), "temp//inside");
});

test("the place of a view is kept, until there are too many", () => {
  const place = { position: 1 };
  keepPlace(named("place"), place);
  place.position = 2;
  assert.deepEqual(placeOf(named("place")), { position: 1 });
  for (let i = 0; i < 64; i++) keepPlace(named(`place ${i}`), {});
  assert.equal(placeOf(named("place")), undefined);
});
