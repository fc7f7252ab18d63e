"""Reports: tables, dashboard notes, exports."""
