"""What makes two recipes the same: their canonical form."""

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class Identified(BaseModel):
    """An immutable description that is equal to another when their canonical JSON is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def canonical(self) -> str:
        """JSON with sorted keys and exact floats: equal text means equal weights."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)

    def digest(self) -> str:
        """SHA-256 of the canonical form; the recipe's identity in the database."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.canonical())
