"""An extension of Griffe: signatures of equinox modules and named tuples, whose fields are their arguments."""

from typing import Any

import griffe


class FieldSignatures(griffe.Extension):
    """Give a class without `__init__` one whose parameters are the fields of the class."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Add the signature once the members of a class are known."""
        bases = {str(base).rpartition(".")[2] for base in cls.bases}
        if "__init__" in cls.members or not bases & {"Module", "NamedTuple"}:
            return
        parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
        for name, member in cls.members.items():
            if member.is_attribute and member.annotation is not None and not name.startswith("_"):
                value = default(member.value)
                if value is not NOT_AN_ARGUMENT:
                    kind = griffe.ParameterKind.positional_or_keyword
                    parameters.append(griffe.Parameter(name, annotation=member.annotation, kind=kind, default=value))
        init = griffe.Function("__init__", parameters=griffe.Parameters(*parameters), parent=cls)
        cls.set_member("__init__", init)


NOT_AN_ARGUMENT = object()


def default(value: Any) -> Any:
    """Return the default of a field as it reads in a signature."""
    if value is None or not str(value).startswith(("eqx.field(", "field(", "dataclasses.field(")):
        return value
    if not isinstance(value, griffe.ExprCall):
        return None
    options = {x.name: x.value for x in value.arguments if isinstance(x, griffe.ExprKeyword)}
    if str(options.get("init")) == "False":
        return NOT_AN_ARGUMENT
    return options.get("default", "..." if "default_factory" in options else None)
