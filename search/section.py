"""What every section of the configuration is."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Frozen; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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
