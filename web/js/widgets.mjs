// What both of our DOM widgets need of a node.

/** Call `then` after a node's own method of that name, with what it gave. */
export function after(node, name, then) {
  const own = node[name];
  node[name] = function (...given) {
    const result = own?.apply(this, given);
    then.call(this, result, ...given);
    return result;
  };
}

/** Nodes 2.0 goes on to show another node's widget where a node gets its id: after undo, in a subgraph. */
export function takeOver(node, element, shown) {
  const stale = document.querySelector(`[data-node-id="${node.id}"] .${element.classList[0]}`);
  if (stale && !element.isConnected && node.graph === shown) stale.replaceWith(element);
}
