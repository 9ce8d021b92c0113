// Finds the view of a node that was made anew: by undo, by a change of tab, by a reload of the page, as a copy.
// Nothing is written into the workflow. The server's history has what it still has the pictures of.

const LIMIT = 64; // views, here and of the server's history
const recent = []; // {graph, node, view}, newest first
const places = new Map(); // key of a view -> {position, item}

/** What tells a view from all others: its files have a name of their own. */
export function keyOf(view) {
  const file = view?.files?.data ?? view?.runs?.[0]?.items?.[0]?.x0?.[0];
  return file ? `${file.type}/${file.subfolder}/${file.filename}` : "";
}

/** Where a view was last left, if it was. */
export function placeOf(view) {
  return places.get(keyOf(view));
}

export function keepPlace(view, place) {
  places.delete(keyOf(view)); // it becomes the newest
  places.set(keyOf(view), { ...place }); // a copy of the node may go elsewhere
  if (places.size > LIMIT) places.delete(places.keys().next().value);
}

export function remember(entry) {
  recent.unshift(entry);
  recent.length = Math.min(recent.length, LIMIT);
}

/** Entries of GET /history, newest first. */
export function entriesOf(history) {
  return Object.values(history ?? {}).reverse().flatMap(({ prompt, outputs }) => {
    const graph = prompt?.[3]?.extra_pnginfo?.workflow?.id;
    return Object.entries(outputs ?? {})
      .filter(([, output]) => output?.tcd_view?.[0])
      .map(([node, output]) => ({ graph, node, view: output.tcd_view[0] }));
  });
}

/**
 * The newest view of a node. `wanted` is {graph, ids, key}: `ids` are the node's execution ids, such as "12:7" in
 * subgraph 12; `key`, of a copy, says whose view it shows.
 */
export function find(entries, { graph, ids, key }) {
  const isIt = (entry) => (key ? keyOf(entry.view) === key : entry.graph === graph && ids.includes(entry.node));
  return entries.find(isIt)?.view;
}

let pending = null; // one request for all nodes of a workflow

async function fetched(api) {
  pending ??= api.fetchApi(`/history?max_items=${LIMIT}`).then((response) => response.json());
  try {
    return entriesOf(await pending);
  } catch {
    return []; // no server, no history: the node stays empty, as after a first start
  } finally {
    pending = null;
  }
}

export async function recall(api, wanted) {
  return find(recent, wanted) ?? find(await fetched(api), wanted);
}
