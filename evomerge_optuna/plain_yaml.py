"""YAML as it is written: in the order given, readable, and read back as it was."""

import re
from typing import Any

import yaml


def to_yaml(content: Any, **layout: Any) -> str:
    """The content as YAML text."""
    text = str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, **layout))
    if not re.search("[\x85\u2028\u2029]", text):
        return text
    # PyYAML reads these back as other line ends, or as none; escaped they stay.
    return str(yaml.safe_dump(content, sort_keys=False, **layout))
