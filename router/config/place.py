"""Where in the file a setting stands.

Owns the way from a setting's name to its node.  Must not know what settings mean.
"""

from rules.source import MappingNode, Node, SequenceNode


def at(root: Node, *path: str | int) -> Node:
    """The deepest node on the way that the file has, for settings left to their default too."""
    node = root
    for part in path:
        if isinstance(node, MappingNode) and isinstance(part, str) and part in node.entries:
            node = node.entries[part][1]
        elif isinstance(node, SequenceNode) and isinstance(part, int):
            node = node.items[part]
        else:
            break
    return node
