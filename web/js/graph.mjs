// Nodes and their ids, through subgraphs.

const ZERO = "00000000-0000-0000-0000-000000000000"; // the id of a workflow that was cleared, and of any other such

/** The workflow that is open, also while a subgraph of it is shown; front ends without subgraphs have `graph` alone. */
export function openWorkflow(app) {
  return app.rootGraph ?? app.graph;
}

/** The workflow that a node is in, which has an id of its own from now on; nothing for a node in none. */
export function rootOf(node) {
  const root = node.graph?.rootGraph ?? node.graph;
  if (root?.id === ZERO) root.id = LiteGraph.uuidv4();
  return root;
}

/** Execution ids of a node: "7", or "12:7" in the subgraph of node 12; several where the subgraph is used twice. */
export function idsOf(graph, node, prefix = "") {
  return (graph?.nodes ?? []).flatMap((other) => {
    if (other === node) return [`${prefix}${node.id}`];
    return other.subgraph ? idsOf(other.subgraph, node, `${prefix}${other.id}:`) : [];
  });
}

function childOf(graph, id) {
  return graph?.getNodeById(id) ?? graph?.getNodeById(Number(id));
}

/** The node of an execution id, or of a locator: "subgraph's uuid:7". */
export function nodeAt(root, id) {
  const parts = String(id).split(":");
  const named = parts.length > 1 && root?.subgraphs?.get(parts[0]);
  const way = named ? parts.slice(1) : parts;
  const graph = way.slice(0, -1).reduce((inner, part) => childOf(inner, part)?.subgraph, named || root);
  return childOf(graph, way.at(-1));
}
