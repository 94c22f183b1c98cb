"""As much of a GraphQL server as a loopback double needs: selections walked over mappings and callables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphql import parse
from graphql.language import ast

Node = Mapping[str, Any]
"""Fields by name; a callable is called with the field's arguments."""


class Query:
    """One operation of a client: its name, and its answer from a root.

    Args:
        text: The document.
        variables: By name.
    """

    def __init__(self, text: str, variables: Mapping[str, Any]) -> None:
        document = parse(text)
        self._fragments = {
            part.name.value: part for part in document.definitions if isinstance(part, ast.FragmentDefinitionNode)
        }
        (self._operation,) = (p for p in document.definitions if isinstance(p, ast.OperationDefinitionNode))
        self.name = self._operation.name.value if self._operation.name else ""
        self._variables = dict(variables)
        for variable in self._operation.variable_definitions or ():
            if variable.default_value is not None:
                self._variables.setdefault(variable.variable.name.value, self._value(variable.default_value))
        self.unresolved: list[str] = []

    def answer(self, root: Node) -> Any:
        """Return the data; fields that the root doesn't know are null, and noted in `unresolved`."""
        return self._select(root, self._operation.selection_set, self.name)

    def _select(self, found: Any, wanted: ast.SelectionSetNode | None, path: str) -> Any:
        if found is None or wanted is None:
            return found
        if isinstance(found, list):
            return [self._select(entry, wanted, path) for entry in found]
        result: dict[str, Any] = {}
        for selection in wanted.selections:
            if not self._included(selection):
                continue
            if isinstance(selection, ast.FieldNode):
                name = selection.name.value
                label = selection.alias.value if selection.alias else name
                if name not in found:
                    self.unresolved.append(f"{path}.{name}")
                value = _called(
                    found.get(name), {arg.name.value: self._value(arg.value) for arg in selection.arguments or ()}
                )
                result[label] = self._select(value, selection.selection_set, f"{path}.{name}")
            elif isinstance(selection, ast.FragmentSpreadNode):
                result |= self._select(found, self._fragments[selection.name.value].selection_set, path)
            elif isinstance(selection, ast.InlineFragmentNode):
                kind = selection.type_condition.name.value if selection.type_condition else None
                if kind is None or found.get("__typename") in (kind, None):
                    result |= self._select(found, selection.selection_set, path)
        return result

    def _included(self, node: ast.SelectionNode) -> bool:
        for directive in node.directives or ():
            condition = bool(self._value(directive.arguments[0].value))
            if (directive.name.value == "include") != condition and directive.name.value in {"include", "skip"}:
                return False
        return True

    def _value(self, node: ast.ValueNode) -> Any:
        if isinstance(node, ast.VariableNode):
            return self._variables.get(node.name.value)
        if isinstance(node, ast.ListValueNode):
            return [self._value(entry) for entry in node.values]
        if isinstance(node, ast.ObjectValueNode):
            return {field.name.value: self._value(field.value) for field in node.fields}
        if isinstance(node, ast.IntValueNode):
            return int(node.value)
        if isinstance(node, ast.FloatValueNode):
            return float(node.value)
        return getattr(node, "value", None)


def _called(value: Any, arguments: Mapping[str, Any]) -> Any:
    return value(**arguments) if callable(value) else value


def connection(nodes: list[Any], *, start: int = 0, more: bool = False) -> dict[str, Any]:
    """Return nodes as a page of a connection."""
    end = str(start + len(nodes) - 1) if nodes else None
    return {
        "edges": [{"node": node, "cursor": str(start + place)} for place, node in enumerate(nodes)],
        "totalCount": len(nodes),
        "pageInfo": {"__typename": "PageInfo", "endCursor": end, "hasNextPage": more},
    }
