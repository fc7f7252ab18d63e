"""The database: opened, locked, and waited for where it fails. Nothing of merging."""
