"""An extension of Griffe: signatures of classes whose fields are their arguments, and examples as such."""

import re
from typing import Any

import griffe

ROOTS = {"eqx.Module", "NamedTuple"}


class FieldSignatures(griffe.Extension):
    """Give a class without `__init__` one whose parameters are the fields of the class, and show examples as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Name the section of an example as Griffe does, which shows any other section as text."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^Example:$",
                "Examples:",
                obj.docstring.value,
                flags=re.MULTILINE,
            )

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Let a public name be what it is when imported, where a module of the package has the same name."""
        for name in map(str, pkg.exports or ()):
            member = pkg.members.get(name)
            if isinstance(member, griffe.Module) and name in member.members:
                pkg.members[name] = griffe.Alias(
                    name, member.members[name], parent=pkg
                )

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Add the signature once the members of all classes are known."""
        line = lineage(cls)
        if not ROOTS & {str(base) for each in line for base in each.bases}:
            return
        if any("__init__" in each.members for each in line):
            return
        fields = {
            name: value
            for each in line
            for name, value in fields_of(each).items()
        }
        kind = griffe.ParameterKind.positional_or_keyword
        parameters = [griffe.Parameter("self", kind=kind)]
        parameters += [
            griffe.Parameter(name, kind=kind, **options)
            for name, options in fields.items()
        ]
        cls.set_member(
            "__init__",
            griffe.Function(
                "__init__", parameters=griffe.Parameters(*parameters)
            ),
        )


def lineage(cls: griffe.Class) -> list[griffe.Class]:
    """Return the bases of a class inside the package, the oldest first, and the class."""
    found = []
    for base in cls.bases:
        member = cls.parent.members.get(str(base)) if cls.parent else None
        try:
            target = (
                member.final_target
                if member is not None and member.is_alias
                else member
            )
        except griffe.AliasResolutionError:  # a base of another package
            continue
        if isinstance(target, griffe.Class):
            found += lineage(target)
    return [*found, cls]


def fields_of(cls: griffe.Class) -> dict[str, Any]:
    """Return the fields of a class that are arguments, with their defaults."""
    fields = {}
    for name, member in cls.members.items():
        if (
            isinstance(member, griffe.Attribute)
            and member.annotation is not None
            and not name.startswith("_")
        ):
            options = field_options(member.value)
            if str(options.get("init")) != "False":
                value = options.get(
                    "default", "..." if "default_factory" in options else None
                )
                fields[name] = {
                    "annotation": member.annotation,
                    "default": value,
                }
    return fields


def field_options(value: Any) -> dict[str, Any]:
    """Return the options of a field: those of the call that makes it, or its value as default."""
    if (
        isinstance(value, griffe.ExprCall)
        and str(value.function).rpartition(".")[2] == "field"
    ):
        return {
            x.name: x.value
            for x in value.arguments
            if isinstance(x, griffe.ExprKeyword)
        }
    return {} if value is None else {"default": value}
