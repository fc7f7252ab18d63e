"""What makes two recipes the same: their canonical form."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

# Only where a text has some longest length does pydantic refuse lone surrogates in it.
READ_ONLY = ConfigDict(extra="forbid", frozen=True, str_max_length=1_000_000)

# The model that keeps everything but the merged part. It is stored by the name that it had when
# vision-language models were the only ones with such a part.
Host = Annotated[str | None, Field(alias="vision")]


class Identified(BaseModel):
    """An immutable description that is equal to another when their canonical JSON is."""

    model_config = READ_ONLY | ConfigDict(populate_by_name=True, serialize_by_alias=True)

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As recipes were before there were these parts, whose digests must stay the same."""
        content: dict[str, Any] = dump(self)
        return {
            k: v
            for k, v in content.items()
            if v or k not in ("merges", "vision", "components", "after")
        }

    def canonical(self) -> str:
        """JSON with sorted keys and exact floats: equal text means equal weights."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)

    def digest(self) -> str:
        """SHA-256 of the canonical form; the recipe's identity in the database."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.canonical())
