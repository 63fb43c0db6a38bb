"""What every section of the configuration is, and which of its fields decide results."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Role = Literal["semantic", "operational"]
Paths = dict[str, Any]
"""Fields by their names: True, or of a section those in it, as pydantic takes what to leave out."""

OPERATIONAL = "x-operational"
Operational = Field(json_schema_extra={OPERATIONAL: True})
"""Marks a field of a semantic section that decides no result, `Annotated[str, Operational]`."""


class Section(BaseModel):
    """Frozen; unknown keys and numbers that are not finite are refused.

    A field is semantic, so that it decides results and a resume must not change it, or operational: what another
    machine may have otherwise. Every section says in `role` what its fields are, all but those marked `Operational`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    role: ClassVar[Role]

    @classmethod
    def role_of(cls, name: str) -> Role:
        """Whether a field decides results."""
        extra = cls.model_fields[name].json_schema_extra
        return "operational" if isinstance(extra, dict) and OPERATIONAL in extra else cls.role

    @classmethod
    def operational(cls) -> Paths:
        """What decides no result, in this section and those in it; lists hold none such."""
        found: Paths = {}
        for name, field in cls.model_fields.items():
            inner = [each for each in _kinds(field.annotation) if issubclass(each, Section)]
            if inner:
                below = inner[0].operational()
                whole = len(below) == len(inner[0].model_fields) and all(each is True for each in below.values())
                found |= {name: True if whole else below} if below else {}
            elif cls.role_of(name) == "operational":
                found[name] = True
        return found

    def semantic(self) -> dict[str, Any]:
        """What decides results, as plain values."""
        return self.model_dump(mode="json", exclude=self.operational())

    def refuse_unread(self, names: tuple[str, ...], why: str) -> None:
        """Refuse values that nothing would read.

        Args:
            names: Fields that have no use beside the others.
            why: What they are for, `is for source combinations`.

        Raises:
            ValueError: One of them was set to another value than its default.
        """
        for name in names:
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                msg = f"{name} {value} {why}; leave it out"
                raise ValueError(msg)


def semantic_part(values: Mapping[str, Any], operational: Paths) -> dict[str, Any]:
    """What decides results among plain values; see `Section.operational`."""
    return {
        name: semantic_part(value, operational[name]) if name in operational and isinstance(value, dict) else value
        for name, value in values.items()
        if operational.get(name) is not True
    }


def overlaid(values: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with others in their place or beside them, in those sections that are there."""
    found = dict(values)
    for name, value in by.items():
        if not isinstance(value, dict):
            found[name] = value
        elif isinstance(values.get(name), dict):
            found[name] = overlaid(values[name], value)
    return found


def _kinds(annotation: Any) -> Iterator[type]:  # noqa: ANN401 # of whichever form
    """The classes an annotation names, at any depth."""
    if isinstance(annotation, type):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from _kinds(inner)
